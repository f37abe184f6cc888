//! Recognises databases and the files that belong to them.

use crate::nodes::{NodeKind, database, journal, shm, wal};
use rustix::fs::{FileType, Mode, OFlags, Stat, openat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Empty,
    /// SQLite's header.
    Database,
    Other,
}

/// The content of an open file, judged by its first bytes.
pub(crate) fn content(file: impl AsFd) -> Content {
    let mut head = [0; 16];
    match rustix::io::pread(file, &mut head, 0) {
        Ok(0) => Content::Empty,
        Ok(16) if head == *MAGIC => Content::Database,
        _ => Content::Other,
    }
}

/// The kind of a looked-up file. `known` tells of a regular file (by device and inode) whether it is already known as a database.
pub(crate) fn kind(directory: BorrowedFd<'_>, name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> Option<bool>) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::RegularFile => regular(directory, name, path, stat, known),
        _ => NodeKind::Special,
    }
}

fn regular(directory: BorrowedFd<'_>, name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> Option<bool>) -> NodeKind {
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

fn is_database(name: &OsStr, path: &OwnedFd, stat: &Stat, known: &dyn Fn(u64, u64) -> Option<bool>) -> bool {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return false;
    }
    if let Some(is) = known(stat.st_dev, stat.st_ino) {
        return is || (stat.st_size == 0 && has_database_name(name));
    }
    if stat.st_size == 0 {
        return has_database_name(name);
    }
    stat.st_size >= 16 && reopen(path, OFlags::RDONLY).is_ok_and(|file| content(&file) == Content::Database)
}

/// Whether an empty file with this name is taken for a new database.
pub(crate) fn has_database_name(name: &OsStr) -> bool {
    database::SUFFIXES.iter().any(|s| name.as_bytes().ends_with(s.as_bytes()))
}

/// Opens the inode of a path descriptor, even if its name leads to another file by now.
pub(crate) fn reopen(path: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(rustix::fs::CWD, proc_path(path), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The path of an open descriptor.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
