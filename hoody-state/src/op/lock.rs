//! Locks of what operations change: taken all at once or not at all, first come, first served.
//!
//! **Guarantees.**
//! 1. Two claims that overlap never hold at the same time, unless both only read what they share ([`Want::shared`]).
//! 2. Claims that overlap are granted in the order in which they came. A claim never waits for one that came later.
//! 3. A claim takes all of its keys in one step, so claims cannot wait for each other in a circle. An operation that takes a further claim while it
//!    holds one takes keys of a later kind only ([`Key`] lists the kinds in order).
//! 4. A claim waits only for [`Pace::Short`] work, and at most as long as its caller said. Everything else is refused at once.
//! 5. A claim that is about to end ([`Held::ending`]) refuses nobody: whoever has seen the end of an operation may begin the next one.
//!
//! Cost: a look at every claim that is held. There are as many as there are operations under way.

use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::name::ImageName;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a claim waits for one that is about to end, although its caller would not wait.
const ENDING: Duration = Duration::from_secs(5);

/// What can be locked. The order of the kinds is the order in which one operation takes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Container(ContainerId),
    /// The databases that a project's containers share.
    Databases(ProjectId),
    Image(ImageName),
    Project(ProjectId),
    /// What concerns the pool as a whole and is done once at a time.
    Pool,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Container(c) => write!(f, "container {c}"),
            Key::Databases(p) => write!(f, "the databases of project {p}"),
            Key::Image(i) => write!(f, "image {i}"),
            Key::Project(p) => write!(f, "project {p}"),
            Key::Pool => f.write_str("the pool"),
        }
    }
}

/// A key, and whether others may hold it at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    key: Key,
    shared: bool,
}

impl Want {
    pub(crate) fn container(id: &ContainerId) -> Self {
        Key::Container(id.clone()).into()
    }

    pub(crate) fn image(name: &ImageName) -> Self {
        Key::Image(name.clone()).into()
    }

    /// For those that only rely on its staying as it is.
    pub(crate) fn shared(key: Key) -> Self {
        Want { key, shared: true }
    }

    fn excludes(&self, other: &Want) -> bool {
        self.key == other.key && !(self.shared && other.shared)
    }
}

impl From<Key> for Want {
    fn from(key: Key) -> Self {
        Want { key, shared: false }
    }
}

/// Whether others wait for an operation, or are refused while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Seconds at most.
    Short,
    /// As long as the data or another server takes.
    Long,
}

/// What is asked of the table.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Its word in `GET /operations`, for whoever is refused because of it.
    pub kind: &'static str,
    pub pace: Pace,
    pub wants: Vec<Want>,
}

impl Claim {
    pub(crate) fn short(kind: &'static str, wants: Vec<Want>) -> Self {
        Claim { kind, pace: Pace::Short, wants }
    }

    pub(crate) fn long(kind: &'static str, wants: Vec<Want>) -> Self {
        Claim { kind, pace: Pace::Long, wants }
    }

    /// The first key of this one that the two cannot both have.
    fn clash(&self, other: &Claim) -> Option<&Key> {
        self.wants.iter().find(|w| other.wants.iter().any(|o| w.excludes(o))).map(|w| &w.key)
    }
}

/// The table of locks.
#[derive(Clone, Default)]
pub(crate) struct Locks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
    on_free: OnceLock<OnFree>,
}

/// Called with each key that is freed.
type OnFree = Box<dyn Fn(&Key) + Send + Sync>;

#[derive(Default)]
struct Table {
    next: u64,
    held: BTreeMap<u64, Holder>,
    /// By their tickets: the lowest came first.
    waiting: BTreeMap<u64, Claim>,
}

struct Holder {
    claim: Claim,
    ending: bool,
}

/// Why a claim cannot be granted now.
struct Obstacle {
    key: Key,
    kind: &'static str,
    pace: Pace,
    ending: bool,
}

impl Table {
    /// What keeps a claim from being granted now: the obstacle that it must wait for longest.
    fn obstacle(&self, ticket: u64, claim: &Claim) -> Option<Obstacle> {
        let held = self.held.values().map(|h| (&h.claim, h.ending));
        let before = self.waiting.range(..ticket).map(|(_, w)| (w, false));
        let obstacles = held.chain(before).filter_map(|(other, ending)| {
            let key = claim.clash(other)?.clone();
            Some(Obstacle { key, kind: other.kind, pace: other.pace, ending })
        });
        obstacles.max_by_key(|o| (!o.ending, o.pace == Pace::Long))
    }
}

/// Held locks. Clones share them: they are freed when the last clone is dropped, so that an operation within another one keeps them as well.
#[derive(Clone)]
pub(crate) struct Held(Arc<Grant>);

struct Grant {
    locks: Locks,
    ticket: u64,
}

impl Locks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all keys of `claim`, waiting up to `patience` for short work that came before.
    ///
    /// # Errors
    /// `operation_in_progress`, which names what is under way on what.
    pub(crate) fn take(&self, claim: Claim, patience: Duration) -> Result<Held> {
        let began = Instant::now();
        let mut table = self.table();
        let ticket = table.next;
        table.next += 1;
        loop {
            let Some(o) = table.obstacle(ticket, &claim) else {
                table.waiting.remove(&ticket);
                table.held.insert(ticket, Holder { claim, ending: false });
                return Ok(Held(Arc::new(Grant { locks: self.clone(), ticket })));
            };
            let patience = match (o.ending, o.pace) {
                (true, _) => patience.max(ENDING),
                (false, Pace::Short) => patience,
                (false, Pace::Long) => Duration::ZERO,
            };
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                table.waiting.remove(&ticket);
                drop(table);
                // Whoever waited behind this claim waits for one less.
                self.0.changed.notify_all();
                return Err(refused(&claim, &o));
            }
            table.waiting.entry(ticket).or_insert_with(|| claim.clone());
            table = self.0.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `f` with each key that is freed, afterwards. Set once.
    pub(crate) fn on_free(&self, f: impl Fn(&Key) + Send + Sync + 'static) {
        let _ = self.0.on_free.set(Box::new(f));
    }

    /// The kind of operation that holds a key.
    pub(crate) fn holder(&self, key: &Key) -> Option<&'static str> {
        self.table().held.values().find(|h| h.claim.wants.iter().any(|w| w.key == *key)).map(|h| h.claim.kind)
    }

    /// Waits until nothing is held, for an orderly end; whether that came about.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut table = self.table();
        while !table.held.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) else { return false };
            table = self.0.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn refused(claim: &Claim, o: &Obstacle) -> Error {
    let code =
        if o.kind.starts_with("snapshot.") && claim.kind.starts_with("snapshot.") { Code::SnapshotOperationInProgress } else { Code::OperationInProgress };
    Error::new(code, format!("{} must wait: {} of {} is under way; try again when it has ended", claim.kind, o.kind, o.key))
}

impl Held {
    /// The operation is about to end, visibly: from now on nobody is refused because of it, only kept waiting until the locks are free.
    pub(crate) fn ending(&self, ending: bool) {
        let locks = &self.0.locks;
        if let Some(h) = locks.table().held.get_mut(&self.0.ticket) {
            h.ending = ending;
        }
        locks.0.changed.notify_all();
    }

    /// Never frees the locks: what a crash would leave, for tests of crashes.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let freed = self.locks.table().held.remove(&self.ticket);
        self.locks.0.changed.notify_all();
        if let (Some(f), Some(h)) = (self.locks.0.on_free.get(), freed) {
            h.claim.wants.iter().for_each(|w| f(&w.key));
        }
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
