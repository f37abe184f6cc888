//! What goes into the broker and comes out of it: requests, looks at the files, answers, limits and counters.

use super::ranges::Range;
use std::collections::BTreeMap;

/// A moment, in microseconds of a clock that never goes back.
pub type Tick = u64;
/// A file, whatever the number of nodes that stand for it.
pub type FileId = u64;
/// A volume: files of one can be quiesced together.
pub type VolumeId = u64;
/// A request, to be answered once.
pub type Ticket = u64;
/// A wal-index header, or a digest of it: all that matters is whether it changed.
pub type Stamp = u64;

/// Who holds a lock: a process or open file description (the kernel's lock owner) by way of one node or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The kernel's lock owner.
    pub lock_owner: u64,
    /// The FUSE node; of SQLite's locks, what stands for the connection.
    pub node: u64,
}

/// A thread and its process; 0 where the kernel did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Task {
    /// Thread.
    pub tid: u32,
    /// Process.
    pub pid: u32,
}

/// What SQLite would call a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not SQLite's: ordinary POSIX locks.
    Plain,
    /// A database.
    Database,
    /// The `-shm` of a database.
    Shm,
}

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

/// A lock request.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its number, never used before.
    pub ticket: Ticket,
    /// The file.
    pub file: FileId,
    /// What the file is.
    pub class: Class,
    /// The file's volume.
    pub volume: VolumeId,
    /// For whom.
    pub owner: Owner,
    /// By which thread.
    pub task: Task,
    /// The bytes.
    pub range: Range,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// Whether the caller asked to wait (`F_SETLKW`). SQLite never does, and waits all the same.
    pub wait: bool,
    /// Whether the handle was opened read-only, or belongs to a connection that cannot write.
    pub read_only: bool,
}

/// What the broker may look up about a file while it decides, and what it tells of its decisions. Looks must be cheap and have no effect.
pub trait View {
    /// The database's header says WAL (bytes 18 and 19 are 2).
    fn is_wal(&self, file: FileId) -> bool;
    /// There is a journal beside the database that is not empty and not zeroed.
    fn has_hot_journal(&self, file: FileId) -> bool;
    /// The wal-index header of a `-shm`.
    fn stamp(&self, file: FileId) -> Stamp;
    /// Whether users of the file whom the broker does not know hold any of these bytes.
    fn others_hold(&self, _file: FileId, _range: Range) -> bool {
        false
    }
    /// A lock is about to be granted, on all of `range`: whether such users are not in its way. Then they are kept out from now on.
    fn keep_others_out(&self, _file: FileId, _range: Range, _kind: LockKind) -> bool {
        true
    }
    /// Locks in `range` have gone; `left` are those that are still held there.
    fn let_others_in(&self, _file: FileId, _range: Range, _left: &[(Range, LockKind)]) {}
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// An ordinary lock, asked for without waiting.
    Conflict,
    /// SQLite asked only to find out (rule 2).
    Hint,
    /// The snapshot went stale while it waited; SQLite looks again by itself (rule 3).
    Stale,
    /// It would wait for something that waits for it (rule 6).
    Deadlock,
    /// It would wait for its own thread.
    OwnThread,
    /// It waited too long.
    Timeout,
    /// Its container is about to be frozen.
    Parked,
    /// Its thread has a signal to attend to.
    Interrupted,
    /// Its file or volume went away.
    Gone,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub ticket: Ticket,
    /// Granted, or why not.
    pub outcome: Result<(), Cause>,
    /// How long it waited, in microseconds.
    pub waited: Tick,
}

/// How long things may take, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A stale reader keeps the intent this long while it looks again.
    pub keep: Tick,
    /// An intent whose holder only reads is revoked after this, if somebody waits.
    pub read_phase: Tick,
    /// The same in rollback mode. There whoever writes must wait for readers to end before it commits, so overtaking one gains little; and a connection that
    /// was only slow to go on and write would meet BUSY.
    pub read_phase_rollback: Tick,
    /// No wait is longer, but for one that was asked for (`F_SETLKW`) on an ordinary file: natively it has no end.
    pub wait: Tick,
    /// A connection that comes back at once goes on with its next transaction, past those who wait, for this long: a hand-over costs more than a transaction.
    pub turn: Tick,
    /// "At once".
    pub quick: Tick,
    /// A cycle that rests on which thread will act for a connection, in a process that moves connections between threads, is broken after this.
    pub doubt: Tick,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { keep: 10_000, read_phase: 500_000, read_phase_rollback: 5_000_000, wait: 60_000_000, turn: 2_000, quick: 400, doubt: 250_000 }
    }
}

/// How often what happened.
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
    /// Write locks given to connections whose intent had been revoked: the one place where SQLite may still say BUSY.
    pub upgrades_after_revocation: u64,
    /// Requests that waited.
    pub waits: u64,
    /// Microseconds waited in all.
    pub waited: u64,
    /// The longest wait.
    pub longest_wait: u64,
}
