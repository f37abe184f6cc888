//! Input and output of the broker: requests, the view of the files, answers, limits and counters.

use super::ranges::{LockKind, Range};
use std::collections::BTreeMap;

/// A time, in microseconds of a clock that never goes back.
pub type Tick = u64;
/// A file, however many nodes represent it.
pub type FileId = u64;
/// A volume: its files can be quiesced together.
pub type VolumeId = u64;
/// The number of a request, which is answered exactly once.
pub type Ticket = u64;
/// A wal-index header, or a digest of it: it only matters whether it changed.
pub type Stamp = u64;

/// The owner of a lock: a process or open file description (the kernel's lock owner), through one node or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The kernel's lock owner.
    pub lock_owner: u64,
    /// The FUSE node; for SQLite's locks, what represents the connection.
    pub node: u64,
}

/// A thread and its process; 0 if the kernel did not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Task {
    /// Thread.
    pub tid: u32,
    /// Process.
    pub pid: u32,
}

/// What a file is to SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not a file of SQLite: ordinary POSIX locks.
    Plain,
    /// A database.
    Database,
    /// The `-shm` of a database.
    Shm,
}

/// A lock request.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its number, which was never used before.
    pub ticket: Ticket,
    /// The file.
    pub file: FileId,
    /// What the file is.
    pub class: Class,
    /// The file's volume.
    pub volume: VolumeId,
    /// The owner.
    pub owner: Owner,
    /// The requesting thread.
    pub task: Task,
    /// The bytes.
    pub range: Range,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// Whether the caller asked to wait (`F_SETLKW`). SQLite never does, and is made to wait all the same.
    pub wait: bool,
    /// Whether the handle was opened read-only, or belongs to a connection that cannot write.
    pub read_only: bool,
}

/// What the broker may ask about a file while it decides, and the decisions that it reports. Questions must be cheap and have no effect.
pub trait View {
    /// Whether the header of the database says WAL (bytes 18 and 19 are 2).
    fn is_wal(&self, file: FileId) -> bool;
    /// Whether there is a journal beside the database that is not empty and not zeroed.
    fn has_hot_journal(&self, file: FileId) -> bool;
    /// The wal-index header of a `-shm`.
    fn stamp(&self, file: FileId) -> Stamp;
    /// Whether users of the file that the broker does not know hold any of these bytes.
    fn others_hold(&self, _file: FileId, _range: Range) -> bool {
        false
    }
    /// Called before a lock on all of `range` is granted. Returns whether no such user holds a conflicting lock; if so, they are kept out from now on.
    fn keep_others_out(&self, _file: FileId, _range: Range, _kind: LockKind) -> bool {
        true
    }
    /// Called when locks in `range` were released; `left` are those still held there.
    fn allow_others(&self, _file: FileId, _range: Range, _left: &[(Range, LockKind)]) {}
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A conflict with an ordinary lock, requested without waiting.
    Conflict,
    /// SQLite asked only to find out whether the lock is free (rule 2).
    Hint,
    /// The snapshot became stale while the request waited; SQLite retries by itself (rule 3).
    Stale,
    /// It would wait for something that waits for it: a deadlock (rule 6).
    Deadlock,
    /// It would wait for its own thread.
    OwnThread,
    /// It waited too long.
    Timeout,
    /// Its container is about to be frozen.
    Parked,
    /// Its thread has a signal to handle.
    Interrupted,
    /// Its file or volume was removed.
    Gone,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub ticket: Ticket,
    /// Granted, or the reason for the refusal.
    pub outcome: Result<(), Cause>,
    /// How long it waited, in microseconds.
    pub waited: Tick,
}

/// How long things may take, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A stale reader keeps the intent this long while it looks again.
    pub keep: Tick,
    /// An intent whose holder only reads is revoked after this time, if others wait.
    pub read_phase: Tick,
    /// The same in rollback mode. There a writer must wait for readers to end before it commits, so overtaking one gains little; and a connection that was only slow
    /// to begin writing would meet BUSY.
    pub read_phase_rollback: Tick,
    /// The longest wait, except for one that was asked for (`F_SETLKW`) on an ordinary file, which has no limit.
    pub wait: Tick,
    /// For this long a connection that comes back at once may begin its next transaction ahead of waiters: a hand-over costs more than a transaction.
    pub turn: Tick,
    /// What counts as "at once".
    pub quick: Tick,
    /// The time after which a doubtful cycle is broken: one through a process that moves connections between threads.
    pub doubt: Tick,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { keep: 10_000, read_phase: 500_000, read_phase_rollback: 5_000_000, wait: 60_000_000, turn: 2_000, quick: 400, doubt: 250_000 }
    }
}

/// Counts of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Granted at once.
    pub granted: u64,
    /// Granted after a wait.
    pub granted_late: u64,
    /// Refused, by cause.
    pub refused: BTreeMap<Cause, u64>,
    /// Intents taken from connections that only read.
    pub revoked: u64,
    /// Write locks given to connections whose intent had been revoked: the one case in which SQLite may still report BUSY.
    pub upgrades_after_revocation: u64,
    /// Requests that waited.
    pub waits: u64,
    /// The sum of all waits, in microseconds.
    pub waited: u64,
    /// The longest wait.
    pub longest_wait: u64,
}
