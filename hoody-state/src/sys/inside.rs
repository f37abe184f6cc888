//! The mounts of a running container, seen and changed from outside by its mount namespace. No process of the container is asked or stopped, so that it
//! works in a paused one too; and nothing is believed of a path in it: a mount is known by its id.

use super::mount::{Restrict, TakeOff, in_namespace, mount_id, open_plain, put_tree, restrict, take_off};
use super::mountinfo::{self, MountEntry};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A running container's mount namespace.
pub(crate) struct Inside {
    ns: File,
    pid: i32,
}

impl Inside {
    /// That of the process `pid`. Whether `pid` is still who it was must be asked after this.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Inside { ns: File::open(format!("/proc/{pid}/ns/mnt"))?, pid })
    }

    /// What is mounted, in the order it was.
    pub fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        mountinfo::of_process(self.pid.cast_unsigned())
    }

    /// Runs `f` there, on a thread of its own.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_namespace(self.ns.as_fd(), f)
    }
}

/// Opens the root of a mount, inside; ESTALE when something else is at its place by now.
pub(crate) fn open_mount(line: &MountEntry) -> io::Result<OwnedFd> {
    let fd = open_plain(&line.at)?;
    if mount_id(fd.as_fd())? != line.id {
        return Err(io::Error::from_raw_os_error(nix::libc::ESTALE));
    }
    Ok(fd)
}

/// Takes a mount off, inside; whether something of it is still in use. ESTALE as above. What is mounted on cannot be renamed, so that the name means the
/// mount from the question to the answer.
fn take_off_mount(line: &MountEntry) -> io::Result<bool> {
    let stale = || io::Error::from_raw_os_error(nix::libc::ESTALE);
    let (dir, name) = (line.at.parent().ok_or_else(stale)?, line.at.file_name().ok_or_else(stale)?);
    drop(open_mount(line)?);
    let above = open_plain(dir)?;
    if take_off(above.as_fd(), name, TakeOff::Unused).is_ok() {
        return Ok(false);
    }
    // Who holds it shall at least not write; refused while something is open for writing.
    let _ = restrict(open_mount(line)?.as_fd(), Restrict { read_only: true, shared: false });
    take_off(above.as_fd(), name, TakeOff::Always)?;
    Ok(true)
}

/// Opens the directory `name` in `dir`, made if need be.
pub(crate) fn child(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(dir, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?)
}

/// Puts `tree` in the place of the mount `old` (on `at`, if there is none): inside.
pub(crate) fn exchange(old: Option<&MountEntry>, at: &Path, tree: BorrowedFd<'_>) -> io::Result<()> {
    let Some(old) = old else { return put_tree(tree, open_plain(at)?.as_fd()) };
    // The root of a mount whose daemon is dead can be opened as a path, which is all that is needed.
    take_off_mount(old)?;
    put_tree(tree, open_plain(&old.at)?.as_fd())
}

/// Takes the mounts off `name` in `hub`, and the directory away: inside. Whether something of them is still in use.
pub(crate) fn clear(hub: BorrowedFd<'_>, mounts: &[MountEntry], name: &str) -> io::Result<bool> {
    let mut held = false;
    for m in mounts.iter().rev() {
        held |= take_off_mount(m)?;
    }
    match unlinkat(hub, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(held),
        Err(e) => Err(e.into()),
    }
}

/// The last part of a mount's place.
pub(crate) fn name_of(line: &MountEntry) -> Option<String> {
    String::from_utf8(line.at.file_name()?.as_bytes().to_vec()).ok()
}
