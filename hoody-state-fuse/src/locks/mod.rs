//! The lock service: the thin shell of I/O, clock and threads round the pure broker of `hoody_state::locked_db`.
//!
//! A request is answered by calling its `answer` once, at once or later, from whichever thread made it possible.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What SQLite would call a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not SQLite's: ordinary POSIX locks.
    Plain,
    /// A main database file (or an empty one that may become one).
    Database,
    /// The `-shm` of a database.
    Shm,
}

/// One backing inode that locks are taken on, whatever the number of FUSE nodes that stand for it.
#[derive(Debug)]
pub struct LockedFile {
    /// Its number in the broker.
    pub id: u64,
    /// What it is now; a plain file may become a database.
    pub class: std::sync::Mutex<Class>,
    /// An open descriptor of the backing file, for looking at headers (positional reads only).
    pub fd: OwnedFd,
}

/// A lock request as the kernel sent it.
#[derive(Debug, Clone, Copy)]
pub struct LockCall {
    /// The FUSE node.
    pub node: u64,
    /// The open file handle.
    pub fh: u64,
    /// The kernel's lock owner: of a process (POSIX) or of an open file description (OFD).
    pub lock_owner: u64,
    /// The calling thread.
    pub tid: u32,
    /// The calling process; 0 when the kernel did not say (unlock).
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
    pub kind: i32,
    /// Whether the caller is ready to wait (`F_SETLKW`).
    pub wait: bool,
    /// Whether the handle was opened read-only.
    pub read_only: bool,
}

/// The answer to a lock request: `Err` carries an errno.
pub type Answer = Box<dyn FnOnce(Result<(), i32>) + Send>;

/// Who stands in the way of a lock, for `F_GETLK`.
#[derive(Debug, Clone, Copy)]
pub struct Conflict {
    /// First byte of the lock held.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
    /// `F_RDLCK` or `F_WRLCK`.
    pub kind: i32,
    /// The holder's process.
    pub pid: u32,
}

/// The service. Cheap to share.
#[derive(Debug, Default)]
pub struct LockService {}

impl LockService {
    /// `F_SETLK`, `F_SETLKW`: `answer` is called once, now or later.
    pub fn setlk(&self, file: &Arc<LockedFile>, call: LockCall, answer: Answer) {
        let _ = (file, call);
        answer(Err(nix::libc::ENOSYS));
    }

    /// `F_GETLK`.
    #[must_use]
    pub fn getlk(&self, file: &Arc<LockedFile>, call: &LockCall) -> Option<Conflict> {
        let _ = (file, call);
        None
    }

    /// A descriptor was closed by the process `lock_owner`: its POSIX locks on that node go (FLUSH).
    pub fn flush(&self, file: &Arc<LockedFile>, node: u64, lock_owner: u64) {
        let _ = (file, node, lock_owner);
    }

    /// The last descriptor of a handle was closed: locks taken through it go (RELEASE).
    pub fn release(&self, file: &Arc<LockedFile>, node: u64, fh: u64) {
        let _ = (file, node, fh);
    }

    /// The inode that the calling thread must see when it looks up this database: the node on which that thread holds RESERVED
    /// (SQLite compares `stat(path)` with its own inode then), if it holds it.
    #[must_use]
    pub fn reserved_node(&self, file: &Arc<LockedFile>, tid: u32) -> Option<u64> {
        let _ = (file, tid);
        None
    }
}
