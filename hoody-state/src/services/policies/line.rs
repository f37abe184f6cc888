//! Whose turn it is. A container has one run at a time; one that another operation has waits apart, so that it keeps no others waiting.

use crate::id::ContainerId;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    closed: bool,
    queue: VecDeque<ContainerId>,
    /// In the queue, or at work.
    active: HashMap<ContainerId, Active>,
    /// Held by another operation.
    waiting: HashSet<ContainerId>,
    workers: usize,
    /// When a run was first seen to be due, for as long as it has not ended.
    noticed: HashMap<(ContainerId, String), Timestamp>,
    /// When the runner looks again, although nothing is due: what failed could not even be written down.
    again_at: Option<Timestamp>,
}

struct Active {
    noticed: Timestamp,
    /// Something happened meanwhile that may give it more to do.
    again: bool,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

/// A container whose schedules are to be run now.
pub(crate) struct Turn {
    pub container: ContainerId,
    /// When the runner saw that something is due.
    pub noticed: Timestamp,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines up containers that have something due, and those that waited; how many workers are to be started, of `most`.
    pub(crate) fn enter(&self, due: Vec<ContainerId>, now: Timestamp, most: usize) -> usize {
        let mut guard = self.state();
        let s = &mut *guard;
        if s.closed {
            return 0;
        }
        s.again_at = None;
        for id in due {
            s.waiting.remove(&id);
            match s.active.get_mut(&id) {
                Some(active) => active.again = true,
                None => {
                    s.active.insert(id.clone(), Active { noticed: now, again: false });
                    s.queue.push_back(id);
                }
            }
        }
        let more = most.min(s.active.len()).saturating_sub(s.workers);
        s.workers += more;
        more
    }

    /// The next turn for a worker; nothing: the worker ends.
    pub(crate) fn next(&self) -> Option<Turn> {
        let mut s = self.state();
        let next = if s.closed { None } else { s.queue.pop_front() };
        let Some(container) = next else {
            s.workers -= 1;
            drop(s);
            self.changed.notify_all();
            return None;
        };
        let noticed = s.active.get(&container).map_or(Timestamp::UNIX_EPOCH, |a| a.noticed);
        Some(Turn { container, noticed })
    }

    /// A worker could not be started.
    pub(crate) fn worker_missing(&self) {
        self.state().workers -= 1;
        self.changed.notify_all();
    }

    /// When a run was first seen to be due.
    pub(crate) fn noticed(&self, turn: &Turn, schedule: &str) -> Timestamp {
        *self.state().noticed.entry((turn.container.clone(), schedule.to_owned())).or_insert(turn.noticed)
    }

    /// A run has ended.
    pub(crate) fn run_ended(&self, id: &ContainerId, schedule: &str) {
        self.state().noticed.remove(&(id.clone(), schedule.to_owned()));
    }

    /// Nothing of a container is due any more; whether its turn ends. Otherwise the worker looks again.
    pub(crate) fn leave(&self, id: &ContainerId) -> bool {
        self.end(id, false)
    }

    /// Another operation has the container; whether its turn ends. Otherwise that operation may have ended meanwhile, and the worker tries again.
    pub(crate) fn wait(&self, id: &ContainerId) -> bool {
        self.end(id, true)
    }

    fn end(&self, id: &ContainerId, waits: bool) -> bool {
        let mut s = self.state();
        if let Some(active) = s.active.get_mut(id).filter(|a| a.again) {
            active.again = false;
            return false;
        }
        s.active.remove(id);
        if waits {
            s.waiting.insert(id.clone());
        }
        drop(s);
        self.changed.notify_all();
        true
    }

    /// What went wrong with a container could not be written down: its turn ends, and the runner looks again at `at`.
    pub(crate) fn give_up_until(&self, id: &ContainerId, at: Timestamp) {
        let mut s = self.state();
        s.active.remove(id);
        s.waiting.insert(id.clone());
        s.again_at = Some(s.again_at.map_or(at, |t| t.min(at)));
        drop(s);
        self.changed.notify_all();
    }

    /// A worker stops in the middle, as if the server had been killed: nothing begins any more.
    pub(crate) fn abandon(&self, id: &ContainerId) {
        self.close();
        self.state().active.remove(id);
        self.changed.notify_all();
    }

    /// The runner looks again at `at`, although nothing is due then.
    pub(crate) fn look_again(&self, at: Timestamp) {
        let mut s = self.state();
        s.again_at = Some(s.again_at.map_or(at, |t| t.min(at)));
    }

    /// When the runner looks again at what could not be written down.
    pub(crate) fn again_at(&self) -> Option<Timestamp> {
        self.state().again_at
    }

    /// Locks are free: of a container, or of something that many may wait for. Whether anybody waited for them.
    pub(crate) fn lock_freed(&self, container: Option<&ContainerId>) -> bool {
        let mut s = self.state();
        match container {
            Some(id) => {
                if let Some(active) = s.active.get_mut(id) {
                    active.again = true;
                }
                s.waiting.remove(id)
            }
            None => {
                s.active.values_mut().for_each(|a| a.again = true);
                let waited = !s.waiting.is_empty();
                s.waiting.clear();
                waited
            }
        }
    }

    /// Of these containers those for which nobody waits until they are free.
    pub(crate) fn without_waiting(&self, due: Vec<ContainerId>) -> Vec<ContainerId> {
        let s = self.state();
        due.into_iter().filter(|id| !s.waiting.contains(id)).collect()
    }

    /// How many containers have a run under way or are in the queue, and how many wait for another operation.
    pub(crate) fn lengths(&self) -> (u64, u64) {
        let s = self.state();
        (s.active.len() as u64, s.waiting.len() as u64)
    }

    /// Waits until no run is under way; whether that came about in time.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut s = self.state();
        while !s.active.is_empty() || s.workers > 0 {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) else { return false };
            s = self.changed.wait_timeout(s, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether the host ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing more begins.
    pub(crate) fn close(&self) {
        let mut s = self.state();
        s.closed = true;
        while let Some(id) = s.queue.pop_front() {
            s.active.remove(&id);
        }
        drop(s);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_container_has_one_turn_at_a_time_and_looks_again_when_something_happened() {
        let line = Line::default();
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        assert_eq!(line.enter(vec![a.clone(), b.clone()], at(1), 8), 2);
        assert_eq!(line.enter(vec![a.clone()], at(2), 8), 0, "it is in the queue already");
        let turn = line.next().unwrap();
        assert_eq!((&turn.container, turn.noticed), (&a, at(1)));
        assert!(!line.leave(&a), "something became due meanwhile");
        assert!(line.leave(&a));
        assert_eq!(line.lengths(), (1, 0));
        assert_eq!(line.next().unwrap().container, b);
        assert!(line.wait(&b));
        assert_eq!(line.lengths(), (0, 1));
        assert!(line.next().is_none() && line.next().is_none());
        assert!(line.wait_idle(Duration::ZERO), "what waits for another operation is not under way");
        assert_eq!(line.without_waiting(vec![a.clone(), b.clone()]), [a]);
        assert!(line.lock_freed(Some(&b)) && !line.lock_freed(Some(&b)));
    }

    #[test]
    fn a_lock_that_is_freed_between_refusal_and_waiting_is_noticed() {
        let line = Line::default();
        let a = ContainerId::generate();
        line.enter(vec![a.clone()], at(1), 8);
        let turn = line.next().unwrap();
        assert_eq!(line.noticed(&turn, "daily"), at(1));
        assert!(!line.lock_freed(Some(&a)), "it does not wait yet");
        assert!(!line.wait(&a), "it tries again");
        assert!(line.wait(&a));
        line.enter(vec![a.clone()], at(9), 8);
        let turn = line.next().unwrap();
        assert_eq!((turn.noticed, line.noticed(&turn, "daily")), (at(9), at(1)), "the run has been due since");
        line.run_ended(&a, "daily");
        assert_eq!(line.noticed(&turn, "daily"), at(9));
        line.give_up_until(&a, at(20));
        assert_eq!(line.again_at(), Some(at(20)));
        line.close();
        assert!(line.next().is_none());
        assert_eq!(line.enter(vec![a], at(30), 8), 0);
    }
}
