//! Removing a name with everything in it. Nested subvolumes go too.
//!
//! No link is followed and no path is looked up: a directory is emptied by its descriptor and found again by its inode number. So the walk never leads out of
//! what is removed, whatever is renamed meanwhile, and no depth is too deep.

use super::dir_id::{DirId, names};
use super::place::Place;
use crate::error::{Code, Error, IoContext, Result};
use crate::sys::fs::SUBVOLUME_ROOT_INO;
use btrfs_uapi::subvolume::{self, SubvolumeFlags};
use nix::errno::Errno as Nix;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often a directory is emptied again in which a program keeps making names.
const ROUNDS: u32 = 16;

/// A directory on the way down: one that is emptied.
struct Level {
    /// Where it is, to remove it by its name.
    above: DirId,
    name: CString,
    this: DirId,
    names: Vec<CString>,
    rounds: u32,
}

/// Removes what is at `place` with everything in it. Nothing there is no error. May be repeated.
///
/// # Errors
/// `volume_in_use` when a program keeps making names in it, or a nested subvolume cannot be deleted now; `io`.
pub fn remove(pool: BorrowedFd<'_>, place: Place<'_>) -> Result<()> {
    let mut levels: Vec<Level> = Vec::new();
    let mut dir = match step_down(place.dir, place.name)? {
        Some((level, dir)) => {
            levels.push(level);
            dir
        }
        None => return Ok(()),
    };
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop() {
            if let Some((below, open)) = step_down(dir.as_fd(), &name)? {
                levels.push(below);
                dir = open;
            }
            continue;
        }
        let above = open(level.above, pool)?;
        let emptied = match &above {
            // Whoever removed the directory above has removed this one.
            None => true,
            Some(above) => match rustix::fs::unlinkat(above, &level.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => true,
                Err(Errno::NOTEMPTY) => false,
                Err(e) => return Err(e).io(|| format!("remove the directory {:?}", level.name)),
            },
        };
        if emptied {
            levels.pop();
            match above {
                Some(above) => dir = above,
                None if levels.is_empty() => return Ok(()),
                None => return Err(busy()),
            }
            continue;
        }
        level.rounds += 1;
        if level.rounds > ROUNDS {
            return Err(busy());
        }
        match open(level.this, pool)? {
            Some(again) => {
                level.names = names(again.as_fd())?;
                dir = again;
            }
            None => return Err(busy()),
        }
    }
    Ok(())
}

fn busy() -> Error {
    Error::new(Code::VolumeInUse, "a program keeps changing a directory while it is removed: stop it, or try again")
}

fn open(id: DirId, pool: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    match id.open(pool) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ESTALE | nix::libc::ENOENT | nix::libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(Error::io("open a directory that is removed", e)),
    }
}

/// Removes a name that has nothing in it. A directory is opened instead: what is to be emptied is returned.
fn step_down(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<(Level, OwnedFd)>> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e).io(|| format!("remove {name:?}")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(open) => open,
        // It is something else by now, and will be met again.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(e) => return Err(e).io(|| format!("open the directory {name:?}")),
    };
    let this = DirId::of(open.as_fd())?;
    if this.inode == SUBVOLUME_ROOT_INO && delete_subvolume(dir, name, open.as_fd())? {
        return Ok(None);
    }
    let level = Level { above: DirId::of(dir)?, name: name.to_owned(), this, names: names(open.as_fd())?, rounds: 0 };
    Ok(Some((level, open)))
}

/// Deletes a nested subvolume at once; false if others are nested in it: then it is emptied first.
fn delete_subvolume(dir: BorrowedFd<'_>, name: &CStr, root: BorrowedFd<'_>) -> Result<bool> {
    match subvolume::subvolume_delete(dir, name) {
        Ok(()) | Err(Nix::ENOENT) => Ok(true),
        Err(Nix::ENOTEMPTY) => {
            subvolume::subvolume_flags_set(root, SubvolumeFlags::empty()).io(|| "make a nested subvolume writable")?;
            Ok(false)
        }
        Err(e @ (Nix::EPERM | Nix::EBUSY)) => {
            let message = format!("the nested subvolume {name:?} is in use: it is being sent to another server, or has an active swap file");
            Err(Error::new(Code::VolumeInUse, message).with_source(e))
        }
        Err(e) => Err(e).io(|| format!("delete the nested subvolume {name:?}")),
    }
}
