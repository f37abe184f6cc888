//! A directory at the root of a subvolume in which names wait until they are put in their places: renames lead to no other subvolume.
//!
//! It belongs to the host's root, with mode 0700, and bears a mark in `trusted.*`. Nobody in a container can enter it, make one like it, or move it to another
//! directory. The container's root may rename it where it is; then it is found by its mark.

use crate::error::{Code, Error, IoContext, Result};
use crate::tree::dir_id::names;
use crate::tree::place::Place;
use crate::tree::remove::remove;
use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const PREFIX: &str = ".hoody-restore-";
const MARK: &CStr = c"trusted.hoody.restore";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How often its name is looked for again while somebody renames it.
const ROUNDS: u32 = 8;

/// An open area.
pub(super) struct Area {
    root: OwnedFd,
    dir: OwnedFd,
    id: String,
}

impl Area {
    /// Makes the area `id` in the directory `root`, which is that of a subvolume.
    pub(super) fn make(root: OwnedFd, id: &str) -> Result<Self> {
        let what = || "make a directory for what is restored";
        let name = name_of(id)?;
        match rustix::fs::mkdirat(&root, &name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::ROFS) => {
                return Err(Error::new(Code::VolumeReadOnly, "it is in a read-only subvolume of the container: make the subvolume writable first"));
            }
            Err(e) => return Err(e).io(what),
        }
        let dir = rustix::fs::openat(&root, &name, DIRECTORY, Mode::empty()).io(what)?;
        if rustix::fs::fstat(&dir).io(what)?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::new(Code::VolumeInUse, "something in the container takes the place of a directory that was just made: try again"));
        }
        // What is made in it inherits nothing.
        for name in ["system.posix_acl_access", "system.posix_acl_default", "btrfs.compression"] {
            match rustix::fs::fremovexattr(&dir, name) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(e) => return Err(e).io(what),
            }
        }
        let flags = rustix::fs::ioctl_getflags(&dir).io(what)?;
        if flags.intersects(IFlags::NOCOW | IFlags::COMPRESSED) {
            rustix::fs::ioctl_setflags(&dir, flags - (IFlags::NOCOW | IFlags::COMPRESSED)).io(what)?;
        }
        rustix::fs::fsetxattr(&dir, MARK, id.as_bytes(), XattrFlags::empty()).io(what)?;
        Ok(Area { root, dir, id: id.to_owned() })
    }

    /// Finds the area `id` in `root`, whatever it is called by now.
    pub(super) fn find(root: OwnedFd, id: &str) -> Result<Option<Self>> {
        Ok(look(root.as_fd(), id)?.map(|(_, dir)| Area { root, dir, id: id.to_owned() }))
    }

    /// Its directory.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens the directory `name` in it, if it is there.
    pub(super) fn open(&self, name: &CStr) -> Result<Option<OwnedFd>> {
        match rustix::fs::openat(&self.dir, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).io(|| "open a directory of what is restored"),
        }
    }

    /// Opens the directory `name` in it, made if need be.
    pub(super) fn child(&self, name: &CStr) -> Result<OwnedFd> {
        make_in(self.dir(), name)
    }

    /// Removes it with everything in it. May be repeated.
    pub(super) fn clear(self, pool: BorrowedFd<'_>) -> Result<()> {
        for name in names(self.dir())? {
            remove(pool, Place::new(self.dir(), &name))?;
        }
        let mut name = name_of(&self.id)?;
        for _ in 0..ROUNDS {
            // It is empty: should anything else have its name, that is not removed unless it is an empty directory of the container.
            match rustix::fs::unlinkat(&self.root, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY) => {}
                Err(e) => return Err(e).io(|| "remove the directory of what was restored"),
            }
            match look(self.root.as_fd(), &self.id)? {
                None => return Ok(()),
                Some((now, _)) => name = now,
            }
        }
        Err(Error::new(Code::VolumeInUse, "something in the container keeps renaming a directory that is to be removed: stop it"))
    }
}

/// Opens the directory `name`, made if need be, for the host's root alone.
pub(super) fn make_in(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let what = || "make a directory for what is restored";
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).io(what),
    }
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).io(what)
}

fn name_of(id: &str) -> Result<CString> {
    CString::new(format!("{PREFIX}{id}")).map_err(|_| Error::internal("an id contains a NUL"))
}

/// The area under its own name, else under any.
fn look(root: BorrowedFd<'_>, id: &str) -> Result<Option<(CString, OwnedFd)>> {
    let name = name_of(id)?;
    if let Some(dir) = is_area(root, &name, id) {
        return Ok(Some((name, dir)));
    }
    Ok(names(root)?.into_iter().find_map(|name| is_area(root, &name, id).map(|dir| (name, dir))))
}

fn is_area(root: BorrowedFd<'_>, name: &CStr, id: &str) -> Option<OwnedFd> {
    let stat = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || stat.st_uid != rustix::process::geteuid().as_raw() {
        return None;
    }
    let dir = rustix::fs::openat(root, name, DIRECTORY, Mode::empty()).ok()?;
    let mut mark = [0; 64];
    let n = rustix::fs::fgetxattr(&dir, MARK, &mut mark).ok()?;
    (mark.get(..n)? == id.as_bytes()).then_some(dir)
}
