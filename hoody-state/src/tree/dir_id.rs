//! Directories by number: a directory of the pool is found again wherever it has been moved, without looking up a path.

use crate::error::{Error, IoContext, Result};
use crate::sys::fs::{SUBVOLUME_ROOT_INO, open_dir_by_id};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A directory of the pool: its subvolume and its inode number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirId {
    /// The id of the subvolume.
    pub volume: u64,
    /// The inode number of the directory.
    pub inode: u64,
}

impl DirId {
    /// That of an open directory, which must not be `O_PATH`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn of(dir: BorrowedFd<'_>) -> Result<Self> {
        let inode = rustix::fs::fstat(dir).io(|| "look at a directory")?.st_ino;
        let volume = btrfs_uapi::inode::lookup_path_rootid(dir).io(|| "ask for the subvolume of a directory")?;
        Ok(DirId { volume, inode })
    }

    /// Opens it, wherever it is by now. `pool` is any directory of the file system.
    ///
    /// # Errors
    /// ESTALE, ENOENT or ENOTDIR when it is gone.
    pub fn open(self, pool: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
        open_dir_by_id(pool, self.volume, self.inode)
    }

    /// The root of its subvolume.
    #[must_use]
    pub fn volume_root(self) -> Self {
        DirId { inode: SUBVOLUME_ROOT_INO, ..self }
    }
}

/// The names in an open directory but `.` and `..`.
///
/// # Errors
/// Those of the system call.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).io(|| "open a directory to list it")? {
        match entry {
            // It was removed after it was opened.
            Err(Errno::NOENT) => break,
            Err(e) => return Err(Error::io("list a directory", e)),
            Ok(entry) if !matches!(entry.file_name().to_bytes(), b"." | b"..") => names.push(entry.file_name().to_owned()),
            Ok(_) => {}
        }
    }
    Ok(names)
}
