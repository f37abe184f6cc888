//! The lock table of one file: its holders, its waiters and its intent.

use super::bytes::{read_bytes, write_bytes};
use super::ranges::Ranges;
use super::{Class, Limits, LockKind, Owner, Range, Request, Stamp, Task, Tick, Ticket, VolumeId};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// The right to write a database next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intent {
    pub owner: Owner,
    pub task: Task,
    pub since: Tick,
    /// When its turn began; a turn is one or more transactions.
    pub turn: Tick,
    /// Until when it is held without a lock: its owner reads the header again, or is about to begin its next transaction.
    pub kept_until: Option<Tick>,
}

/// What one owner holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub ranges: Ranges,
    /// The thread that acted for it last.
    pub task: Task,
    pub since: Tick,
    /// Whether its locks are not SQLite's, whatever bytes they cover.
    pub ordinary: bool,
}

/// A request that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub request: Request,
    pub since: Tick,
    /// The wal-index header when it was queued, if it chose a snapshot by that.
    pub stamp: Option<Stamp>,
    /// How many later requests were granted before it.
    pub bypassed: u32,
    /// Whether it has waited for [`Limits::doubt`], and was reported to the judge of old waits.
    pub old: bool,
}

#[derive(Debug)]
pub(super) struct File {
    pub class: Class,
    pub volume: VolumeId,
    pub holders: BTreeMap<Owner, Held>,
    pub queue: VecDeque<Waiter>,
    /// When the queue must be examined.
    pub due: Tick,
    pub intent: Option<Intent>,
    /// The next owner of the intent: it was refused early because its snapshot is stale, and reads the header again.
    pub heir: Option<Owner>,
    /// Owners that lost a read-phase intent and have not written since.
    pub readers: HashSet<Owner>,
    /// Owners that may read without the intent this once, because waiting for it would be a deadlock; until they release what they read, or write.
    pub guests: HashSet<Owner>,
    /// Owners that were treated as readers and then wrote what they had read.
    pub disproved: HashSet<Owner>,
    /// When owners ended their last transaction; removed when they begin the next.
    pub ended: HashMap<Owner, Tick>,
    /// Owners that began their last transaction immediately after the one before.
    pub quick: HashSet<Owner>,
}

impl File {
    pub fn new(class: Class, volume: VolumeId) -> Self {
        File {
            class,
            volume,
            holders: BTreeMap::new(),
            queue: VecDeque::new(),
            due: Tick::MAX,
            intent: None,
            heir: None,
            readers: HashSet::new(),
            guests: HashSet::new(),
            disproved: HashSet::new(),
            ended: HashMap::new(),
            quick: HashSet::new(),
        }
    }

    pub fn held(&self, owner: Owner) -> Option<&Held> {
        self.holders.get(&owner)
    }

    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty() && self.intent.is_none() && self.heir.is_none() && self.readers.is_empty() && self.disproved.is_empty()
    }

    /// Whether time has an effect on this file.
    pub fn is_timed(&self) -> bool {
        !self.queue.is_empty() || self.heir.is_some() || self.intent.is_some_and(|i| i.kept_until.is_some())
    }

    /// The position of a waiter in the queue.
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        // In the order of their tickets, except for the few that were put at the front.
        let at = self.queue.partition_point(|w| w.request.ticket < ticket);
        let is_it = |w: &Waiter| w.request.ticket == ticket;
        self.queue.get(at).is_some_and(is_it).then_some(at).or_else(|| self.queue.iter().position(is_it))
    }

    pub fn anyone_writes(&self, range: Range) -> bool {
        self.holders.values().any(|h| !h.ordinary && h.ranges.writes(range))
    }

    /// Whether the holder of the intent may begin another transaction although others wait.
    pub fn has_turn_left(&self, owner: Owner, now: Tick, limits: &Limits) -> bool {
        !self.queue.is_empty() && self.quick.contains(&owner) && self.intent.is_some_and(|i| i.owner == owner && now.saturating_sub(i.turn) < limits.turn)
    }

    /// Whether `owner` is changing the database.
    pub fn is_writing(&self, owner: Owner) -> bool {
        write_bytes(self.class).is_some_and(|bytes| self.held(owner).is_some_and(|h| !h.ordinary && h.ranges.writes(bytes)))
    }

    /// Whether any owner is changing the database.
    pub fn is_being_written(&self) -> bool {
        write_bytes(self.class).is_some_and(|bytes| self.anyone_writes(bytes))
    }

    /// Every other owner with a conflicting lock.
    pub fn conflicts(&self, owner: Owner, range: Range, kind: LockKind) -> impl Iterator<Item = (Owner, Task, Range, LockKind)> + '_ {
        self.holders.iter().filter(move |(o, _)| **o != owner).filter_map(move |(o, h)| h.ranges.conflict(range, kind).map(|(r, k)| (*o, h.task, r, k)))
    }

    /// All locks in a range.
    pub fn locks_in(&self, range: Range) -> Vec<(Range, LockKind)> {
        self.holders.values().flat_map(|h| h.ranges.iter()).filter(|(held, _)| held.overlaps(range)).collect()
    }

    pub fn has_intent(&self, owner: Owner) -> bool {
        self.intent.is_some_and(|i| i.owner == owner)
    }

    /// Locks or unlocks.
    pub fn set(&mut self, now: Tick, owner: Owner, task: Option<Task>, range: Range, kind: Option<LockKind>) {
        if kind.is_none() && !self.holders.contains_key(&owner) {
            return;
        }
        let held = self.holders.entry(owner).or_insert_with(|| Held { ranges: Ranges::default(), task: task.unwrap_or_default(), since: now, ordinary: false });
        if let Some(task) = task {
            held.task = Task { tid: task.tid, pid: if task.pid == 0 { held.task.pid } else { task.pid } };
        }
        held.ranges.set(range, kind);
        let reads = read_bytes(self.class).is_some_and(|bytes| held.ranges.holds(bytes));
        if held.ranges.is_empty() {
            self.holders.remove(&owner);
        }
        if !reads {
            self.guests.remove(&owner);
        }
    }
}
