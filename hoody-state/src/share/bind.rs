//! Shares on one host: a clone of the owner's directory as a mount, put into the receiver's mount namespace.
//!
//! Each receiver has a hub from its start, a small tmpfs at [`RECEIVED`](super::RECEIVED), on which these mounts are put.

use super::{Detached, Identity, Receiver, ShareMount, Source, Tree};
use crate::error::{Code, Error, Result};
use crate::model::mount::identity;
use crate::sys::hub;
use crate::sys::mount::{Links, open_in_root};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A [`ShareMount`] by bind mounts.
#[derive(Debug, Default, Clone, Copy)]
pub struct BindShareMount;

fn failed(receiver: &Receiver, name: &str, what: &str, e: io::Error) -> Error {
    if e.raw_os_error() == Some(nix::libc::ESRCH) {
        return Error::new(Code::ReceiverEnded, format!("container {} has ended", receiver.container)).with_source(e);
    }
    Error::new(Code::ShareMountFailed, format!("the share {name} could not be {what} container {}: {e}", receiver.container)).with_source(e)
}

/// A source that was found, its root, and whether the path to it is what it looks like, without any link.
struct Opened {
    root: OwnedFd,
    tree: Tree,
    plain: bool,
}

fn opened(source: &Source) -> io::Result<Opened> {
    // What is above a container's volume is the host's.
    let root = rustix::fs::open(&source.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if source.path.as_os_str().is_empty() { Path::new(".") } else { &source.path };
    let (dir, plain) = match open_in_root(root.as_fd(), path, Links::None) {
        Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => (open_in_root(root.as_fd(), path, Links::Inside)?, false),
        dir => (dir?, true),
    };
    Ok(Opened { root, tree: Tree::new(dir, source.read_only)?, plain })
}

/// A directory, whatever it is mounted as.
type Place = (u64, u64);

/// The places from `dir` up to `root`, both included. What is renamed meanwhile stays in the volume that `root` is the root of.
fn way_up(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<Vec<Place>> {
    let place = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino));
    let top = place(root)?;
    let mut at = dir.try_clone_to_owned()?;
    let mut way = vec![place(dir)?];
    while way.last() != Some(&top) {
        at = openat(&at, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let here = place(at.as_fd())?;
        if way.last() == Some(&here) {
            return Err(io::Error::from_raw_os_error(nix::libc::EXDEV));
        }
        way.push(here);
    }
    Ok(way)
}

/// Why a source that was found is not to be opened, if so.
fn refused(source: &Source, found: &Opened) -> io::Result<Option<String>> {
    let within = |p: &Path| format!("leads into /{}: share that path by its own name", p.display());
    let above = |p: &Path| format!("holds /{}, which has to be shared for itself: share a directory beside it", p.display());
    if found.plain {
        let path = &source.path;
        let into = source.not_within.iter().find(|p| path.starts_with(p)).map(|p| within(p));
        return Ok(into.or_else(|| source.not_above.iter().find(|p| p.starts_with(path)).map(|p| above(p))));
    }
    let Some(dir) = found.tree.descriptor() else { return Ok(None) };
    let root = found.root.as_fd();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let find = |p: &Path| match openat2(root, p, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => way_up(root, fd.as_fd()).map(Some),
        // Then nothing is in it, and nothing of it can be reached.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(e) => Err(e.into()),
    };
    let way = way_up(root, dir)?;
    for p in &source.not_within {
        if find(p)?.is_some_and(|w| way.contains(&w[0])) {
            return Ok(Some(within(p)));
        }
    }
    for p in &source.not_above {
        if find(p)?.is_some_and(|w| w.contains(&way[0])) {
            return Ok(Some(above(p)));
        }
    }
    Ok(None)
}

impl ShareMount for BindShareMount {
    fn open(&self, source: &Source) -> Result<Tree> {
        let path = source.path.display();
        let found = opened(source).and_then(|found| Ok((refused(source, &found)?, found.tree)));
        let (refused, tree) = found.map_err(|e| {
            let why = match e.raw_os_error() {
                Some(nix::libc::ENOENT) => format!("/{path} is not there"),
                Some(nix::libc::ENOTDIR) => format!("/{path} is no directory"),
                Some(nix::libc::EXDEV) => format!("/{path} leads to another file system"),
                Some(nix::libc::ELOOP) => format!("/{path} leads round in links"),
                _ => return Error::io(format!("open the shared directory /{path}"), e),
            };
            Error::new(Code::ShareSourceMissing, format!("{why} in the container that shares it"))
        })?;
        refused.map_or(Ok(tree), |why| Err(Error::new(Code::ShareSourceRefused, format!("/{path} {why}"))))
    }

    fn attach(&self, receiver: &Receiver, name: &str, tree: &Tree) -> Result<Detached> {
        let Some(dir) = tree.descriptor() else { return Err(Error::internal("a share of another backend")) };
        let mounted = hub::mount_of(dir, tree.identity.read_only).and_then(|mount| hub::put(receiver.pid, name, mount.as_fd()));
        mounted.map(Detached::of).map_err(|e| failed(receiver, name, "mounted in", e))
    }

    fn detach(&self, receiver: &Receiver, name: &str) -> Result<Detached> {
        hub::take(receiver.pid, name).map(Detached::of).map_err(|e| failed(receiver, name, "taken from", e))
    }

    fn attached(&self, receiver: &Receiver) -> Result<BTreeMap<String, Identity>> {
        // A directory whose daemon is dead has no identity: it is no longer what it should be.
        let dead = |read_only| Identity { device: 0, inode: 0, read_only };
        let seen = hub::list(receiver.pid, |m, root| identity(root, m.read_only()).unwrap_or(dead(m.read_only())));
        seen.map_err(|e| failed(receiver, "list", "read from", e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::ContainerId;
    use crate::share::suite::{self, Harness};
    use crate::sys::inside::Inside;
    use std::cell::RefCell;
    use std::process::{Child, Command};

    /// Receivers are processes in mount namespaces of their own with a hub, as a runtime makes them.
    struct World {
        dir: tempfile::TempDir,
        receivers: RefCell<Vec<Child>>,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for d in ["owner/a", "owner/b", "hub"] {
                std::fs::create_dir_all(dir.path().join(d)).unwrap();
            }
            World { dir, receivers: RefCell::default() }
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            for mut c in self.receivers.take() {
                c.kill().unwrap();
                c.wait().unwrap();
            }
        }
    }

    impl Harness for World {
        fn shares(&self) -> &dyn ShareMount {
            &BindShareMount
        }
        fn receiver(&self) -> Receiver {
            let hub = self.dir.path().join("hub");
            let child = crate::sys::mount::in_private_namespace(|| {
                nix::mount::mount(Some(hub::HUB), &hub, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("mode=755")).unwrap();
                Command::new("sleep").arg("1000").spawn().unwrap()
            })
            .unwrap();
            let pid = child.id().cast_signed();
            self.receivers.borrow_mut().push(child);
            Receiver { container: ContainerId::generate(), pid }
        }
        fn source(&self, name: &str, read_only: bool) -> Source {
            Source { root: self.dir.path().join("owner"), path: name.into(), read_only, ..Default::default() }
        }
        fn missing(&self) -> Source {
            self.source("never", false)
        }
    }

    #[test]
    fn contract() {
        suite::run(&World::new());
    }

    #[test]
    fn a_read_only_share_is_read_only_and_a_link_leads_nowhere_out() {
        let w = World::new();
        std::fs::create_dir_all(w.dir.path().join("owner/etc")).unwrap();
        for (to, link) in [("/etc", "abs"), ("../../..", "up"), ("/proc/self/root", "magic")] {
            std::os::unix::fs::symlink(to, w.dir.path().join("owner").join(link)).unwrap();
        }
        let inode = |p: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(p).unwrap());
        let owner = w.dir.path().join("owner");
        assert_eq!(BindShareMount.open(&w.source("abs", true)).unwrap().identity.inode, inode(&owner.join("etc")));
        assert_eq!(BindShareMount.open(&w.source("up", true)).unwrap().identity.inode, inode(&owner));
        assert_eq!(BindShareMount.open(&w.source("magic", true)).unwrap_err().code(), Code::ShareSourceMissing);
        let r = w.receiver();
        let tree = BindShareMount.open(&w.source("a", true)).unwrap();
        BindShareMount.attach(&r, "a", &tree).unwrap();
        let seen = w.dir.path().join("hub/a/new");
        let e = Inside::of(r.pid).unwrap().enter(|| Ok(std::fs::write(&seen, "x").unwrap_err())).unwrap();
        assert_eq!(e.raw_os_error(), Some(nix::libc::EROFS));
    }

    #[test]
    fn a_receiver_that_has_ended_is_said_to_have() {
        let w = World::new();
        let r = w.receiver();
        let mut process = w.receivers.borrow_mut().pop().unwrap();
        process.kill().unwrap();
        // Not waited for yet: it is a process still, without a mount namespace.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while BindShareMount.attached(&r).is_ok() {
            assert!(std::time::Instant::now() < end);
        }
        assert_eq!(BindShareMount.attached(&r).unwrap_err().code(), Code::ReceiverEnded);
        let tree = BindShareMount.open(&w.source("a", false)).unwrap();
        assert_eq!(BindShareMount.attach(&r, "a", &tree).unwrap_err().code(), Code::ReceiverEnded);
        process.wait().unwrap();
        assert_eq!(BindShareMount.detach(&r, "a").unwrap_err().code(), Code::ReceiverEnded);
    }

    #[test]
    fn a_share_is_taken_away_however_its_receiver_renames_what_is_above() {
        let w = World::new();
        let r = w.receiver();
        BindShareMount.attach(&r, "a", &BindShareMount.open(&w.source("a", false)).unwrap()).unwrap();
        let dir = w.dir.path().to_path_buf();
        let moved = dir.with_extension("moved");
        std::fs::rename(&dir, &moved).unwrap();
        BindShareMount.detach(&r, "a").unwrap();
        assert!(BindShareMount.attached(&r).unwrap().is_empty());
        std::fs::rename(&moved, &dir).unwrap();
    }
}
