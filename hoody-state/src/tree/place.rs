//! A name in an open directory, and putting something finished there in one step.

use crate::error::{IoContext, Result};
use rustix::fs::{AtFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// A name in an open directory.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The directory; may be `O_PATH`.
    pub dir: BorrowedFd<'a>,
    /// One plain name.
    pub name: &'a CStr,
}

/// What became of what had the name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was nothing, or a file, of which this was a name.
    Replaced,
    /// It has now the name that the other one came from.
    Exchanged,
}

impl<'a> Place<'a> {
    /// A name in a directory.
    #[must_use]
    pub fn new(dir: BorrowedFd<'a>, name: &'a CStr) -> Self {
        Place { dir, name }
    }

    /// What has this name; a link is not followed. `None`: nothing.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn stat(self) -> Result<Option<Stat>> {
        match rustix::fs::statat(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).io(|| format!("look at {:?}", self.name)),
        }
    }

    /// Gives what is here the name `to`, in one step: at every instant `to` is the old thing or the new one. A file that has the name before loses it; anything
    /// else is exchanged. Both are in one subvolume. Not durable until the directory of `to` is synced, or the pool.
    ///
    /// # Errors
    /// Those of the system call: ENOENT when the directory of `to` was removed, EXDEV when it is in another subvolume.
    pub fn put(self, to: Place<'_>) -> rustix::io::Result<Put> {
        // What has the name may change at any time.
        for _ in 0..64 {
            match rustix::fs::renameat(self.dir, self.name, to.dir, to.name) {
                Ok(()) => return Ok(Put::Replaced),
                Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            match self.exchange(to) {
                Ok(()) => return Ok(Put::Exchanged),
                Err(Errno::NOENT) if rustix::fs::statat(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {}
                Err(e) => return Err(e),
            }
        }
        Err(Errno::AGAIN)
    }

    /// Exchanges what has the two names in one step.
    ///
    /// # Errors
    /// Those of the system call: ENOENT when nothing has one of the names.
    pub fn exchange(self, other: Place<'_>) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(self.dir, self.name, other.dir, other.name, RenameFlags::EXCHANGE)
    }
}
