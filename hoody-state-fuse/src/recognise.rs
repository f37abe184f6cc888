//! Telling a database, and what belongs to one, from other files.

use crate::nodes::{NodeKind, database, journal, shm, wal};
use rustix::fs::{FileType, Mode, OFlags, Stat, openat};
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What a looked-up file is. `known` says whether a regular file (by device and inode) was seen to be a database before.
pub(crate) fn kind(directory: BorrowedFd<'_>, name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> bool) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::RegularFile => regular(directory, name, path, stat, known),
        _ => NodeKind::Special,
    }
}

fn regular(directory: BorrowedFd<'_>, name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> bool) -> NodeKind {
    for (suffix, kind) in [(shm::SUFFIX, NodeKind::Shm), (wal::SUFFIX, NodeKind::Wal), (journal::SUFFIX, NodeKind::Journal)] {
        if let Some(of) = name.as_bytes().strip_suffix(suffix.as_bytes()).filter(|n| !n.is_empty()) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(sibling) = openat(directory, OsStr::from_bytes(of), flags, Mode::empty()) else { continue };
            let Ok(stat) = rustix::fs::fstat(&sibling) else { continue };
            if is_database(OsStr::from_bytes(of), &sibling, &stat, known) {
                return kind;
            }
        }
    }
    if is_database(name, path, stat, known) { NodeKind::Database } else { NodeKind::Plain }
}

fn is_database(name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> bool) -> bool {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return false;
    }
    if known(stat.st_dev, stat.st_ino) {
        return true;
    }
    if stat.st_size == 0 {
        return database::SUFFIXES.iter().any(|s| name.as_bytes().ends_with(s.as_bytes()));
    }
    if stat.st_size < 16 {
        return false;
    }
    let mut head = [0; 16];
    let Ok(file) = reopen(path, OFlags::RDONLY) else { return false };
    rustix::io::pread(&file, &mut head, 0) == Ok(16) && head == *MAGIC
}

/// Opens what a path descriptor stands for: the very inode, whatever its name leads to by now.
pub(crate) fn reopen(path: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(rustix::fs::CWD, proc_path(path), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The name of an open descriptor.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
