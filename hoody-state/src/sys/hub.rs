//! The hub of a running container: a small tmpfs in it, on which directories of the host are mounted and taken away while it runs.
//!
//! The runtime mounts the hub before the container's init starts. It belongs to the host's root, so that nothing in the container can write or hide anything
//! in it. Mounts are put on directories of it by descriptor (`open_tree`, `move_mount`), and found again by the id of that tmpfs: whatever the container
//! renames above it, what was mounted can be taken away. In namespaces that were cloned from the container's (a sandbox in it) they vanish too, by
//! propagation.

use super::inside::{Inside, child, clear, name_of, open_mount};
use super::mount::{Restrict, clone_tree, put_tree, restrict};
use super::mountinfo::MountEntry;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The source of the tmpfs, by which it is found.
pub(crate) const HUB: &str = "hoody-shares";

/// How often a container that renames things meanwhile is looked at again.
const TRIES: usize = 16;

/// The hub of one container and what is mounted on it.
struct Hub {
    inside: Inside,
    line: MountEntry,
    children: Vec<MountEntry>,
}

fn find(pid: i32) -> io::Result<Hub> {
    // Of a process that is ending these are gone before it is.
    let inside = Inside::of(pid).map_err(|_| io::Error::from_raw_os_error(nix::libc::ESRCH))?;
    let mounts = inside.mounts().map_err(|_| io::Error::from_raw_os_error(nix::libc::ESRCH))?;
    let found = mounts.iter().rfind(|m| m.kind == "tmpfs" && m.source.as_os_str() == HUB).cloned();
    let line = found.ok_or_else(|| io::Error::other("it has no /hoody/shares: restart it"))?;
    let children = mounts.into_iter().filter(|m| m.parent == line.id).collect::<Vec<_>>();
    Ok(Hub { inside, line, children })
}

/// Does `f` inside, again if what was found has changed meanwhile.
fn with_hub<T: Send>(pid: i32, f: impl Fn(&Hub, BorrowedFd<'_>) -> io::Result<T> + Send + Sync) -> io::Result<T> {
    let mut tries = 0;
    loop {
        let hub = find(pid)?;
        match hub.inside.enter(|| f(&hub, open_mount(&hub.line)?.as_fd())) {
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ESTALE | nix::libc::ENOENT | nix::libc::ELOOP | nix::libc::EBUSY)) && tries < TRIES => {
                tries += 1
            }
            r => return r,
        }
    }
}

/// Makes a hub at `at` in this thread's mount namespace.
pub(crate) fn make(at: &Path) -> io::Result<()> {
    use nix::mount::MsFlags;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    Ok(nix::mount::mount(Some(HUB), at, Some("tmpfs"), flags, Some("mode=755,size=1m,nr_inodes=16k"))?)
}

/// A mount of a directory that is mounted nowhere yet, without device nodes and set-user-id bits. Must be called in the mount namespace in which the directory
/// was opened.
pub(crate) fn mount_of(dir: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    let mount = clone_tree(dir, false)?;
    restrict(mount.as_fd(), Restrict { read_only, shared: false })?;
    Ok(mount)
}

/// Mounts in a container that has just been made: its hub is empty.
pub(crate) fn fill(pid: i32, mounts: &[(&str, OwnedFd)]) -> io::Result<()> {
    let hub = find(pid)?;
    hub.inside.enter(|| {
        let dir = open_mount(&hub.line)?;
        mounts.iter().try_for_each(|(name, mount)| put_tree(mount.as_fd(), child(dir.as_fd(), name)?.as_fd()))
    })
}

impl Hub {
    fn mounts_named(&self, name: &str) -> Vec<MountEntry> {
        self.children.iter().filter(|m| name_of(m).as_deref() == Some(name)).cloned().collect()
    }
}

/// Mounts `mount` as `name`, in the place of what was there. Whether something of that is still in use. ESRCH: the container has ended.
pub(crate) fn put(pid: i32, name: &str, mount: BorrowedFd<'_>) -> io::Result<bool> {
    with_hub(pid, |hub, dir| {
        let old = hub.mounts_named(name);
        let held = !old.is_empty() && clear(dir, &old, name)?;
        put_tree(mount, child(dir, name)?.as_fd())?;
        Ok(held)
    })
}

/// Takes `name` away. Whether something of it is still in use. Nothing of that name is no error. ESRCH: the container has ended.
pub(crate) fn take(pid: i32, name: &str) -> io::Result<bool> {
    with_hub(pid, |hub, dir| clear(dir, &hub.mounts_named(name), name))
}

/// What is mounted, by name: `look` is given the root of each mount, as a path, inside. ESRCH: the container has ended.
pub(crate) fn list<T: Send>(pid: i32, look: impl Fn(&MountEntry, BorrowedFd<'_>) -> T + Send + Sync) -> io::Result<BTreeMap<String, T>> {
    with_hub(pid, |hub, _| {
        let mut seen = BTreeMap::new();
        for m in &hub.children {
            let fd = open_mount(m)?;
            if let Some(name) = name_of(m) {
                seen.insert(name, look(m, fd.as_fd()));
            }
        }
        Ok(seen)
    })
}
