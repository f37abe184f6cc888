//! The state of the table for people: holders and waiters, and since when.

use super::{Broker, Class, FileId, LockKind, Owner, Range, Task, Tick, VolumeId};

/// A file with locks on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// The file.
    pub file: FileId,
    /// Its volume.
    pub volume: VolumeId,
    /// What it is.
    pub class: Class,
    /// The owner of the intent, and for how long it has had it, in microseconds.
    pub intent: Option<(Owner, Tick)>,
    /// The holders of locks.
    pub holders: Vec<HolderStatus>,
    /// The waiters, first in line first.
    pub waiters: Vec<WaiterStatus>,
}

/// A holder of locks on a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderStatus {
    /// The owner.
    pub owner: Owner,
    /// The thread that acted for it last.
    pub task: Task,
    /// For how long, in microseconds.
    pub held: Tick,
    /// What.
    pub ranges: Vec<(Range, LockKind)>,
}

/// A waiter for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaiterStatus {
    /// The owner.
    pub owner: Owner,
    /// The thread that waits.
    pub task: Task,
    /// For how long, in microseconds.
    pub waited: Tick,
    /// For what.
    pub range: Range,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// How many later requests were granted before it.
    pub bypassed: u32,
}

impl Broker {
    /// Every file with locks or waits, in the order of their numbers.
    #[must_use]
    pub fn status(&self, now: Tick) -> Vec<FileStatus> {
        let mut all: Vec<FileStatus> = self
            .files
            .iter()
            .map(|(id, f)| FileStatus {
                file: *id,
                volume: f.volume,
                class: f.class,
                intent: f.intent.map(|i| (i.owner, now.saturating_sub(i.since))),
                holders: f
                    .holders
                    .iter()
                    .map(|(o, h)| HolderStatus { owner: *o, task: h.task, held: now.saturating_sub(h.since), ranges: h.ranges.iter().collect() })
                    .collect(),
                waiters: f
                    .queue
                    .iter()
                    .map(|w| WaiterStatus {
                        owner: w.request.owner,
                        task: w.request.task,
                        waited: now.saturating_sub(w.since),
                        range: w.request.range,
                        kind: w.request.kind,
                        bypassed: w.bypassed,
                    })
                    .collect(),
            })
            .collect();
        all.sort_by_key(|f| f.file);
        all
    }
}
