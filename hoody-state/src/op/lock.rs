use crate::error::{Code, Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One changing operation a thing. Nobody waits: a second one is refused.
#[derive(Clone, Default)]
pub(crate) struct Locks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<HashMap<String, &'static str>>,
    freed: Condvar,
    on_free: OnceLock<OnFree>,
}

/// Called with each thing that is freed.
type OnFree = Box<dyn Fn(&str) + Send + Sync>;

/// A held lock; dropping it frees it.
pub(crate) struct LockGuard {
    locks: Locks,
    thing: String,
}

impl Locks {
    fn held(&self) -> MutexGuard<'_, HashMap<String, &'static str>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock of `thing` for `what`, or says who has it.
    pub(crate) fn take(&self, thing: &str, what: &'static str) -> Result<LockGuard> {
        let mut held = self.held();
        if let Some(other) = held.get(thing) {
            let code =
                if other.starts_with("snapshot.") && what.starts_with("snapshot.") { Code::SnapshotOperationInProgress } else { Code::OperationInProgress };
            return Err(Error::new(code, format!("{what} of {thing} must wait: {other} is under way; try again when it is done")));
        }
        held.insert(thing.to_owned(), what);
        Ok(LockGuard { locks: self.clone(), thing: thing.to_owned() })
    }

    /// Called with each thing that is freed, afterwards. Set once.
    pub(crate) fn on_free(&self, f: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.0.on_free.set(Box::new(f));
    }

    /// What holds `thing`.
    pub(crate) fn holder(&self, thing: &str) -> Option<&'static str> {
        self.held().get(thing).copied()
    }

    /// Waits until nobody holds anything, for an orderly end; whether that came about.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut held = self.held();
        while !held.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            held = self.0.freed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl LockGuard {
    /// For an operation within another one that holds the lock.
    pub(crate) fn of_another(locks: &Locks) -> Self {
        LockGuard { locks: locks.clone(), thing: String::new() }
    }

    /// Never frees it: for an operation that could be neither finished nor undone, until a restart tries again.
    pub(crate) fn keep(mut self) {
        self.thing.clear();
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.thing.is_empty() {
            self.locks.held().remove(&self.thing);
            self.locks.0.freed.notify_all();
            if let Some(f) = self.locks.0.on_free.get() {
                f(&self.thing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Kind;

    #[test]
    fn a_second_change_of_one_thing_is_refused_and_of_another_is_not() {
        let l = Locks::default();
        let a = l.take("a", "container.stop").unwrap();
        let Err(e) = l.take("a", "snapshot.create") else { panic!("taken twice") };
        assert_eq!((e.kind(), e.code()), (Kind::Busy, Code::OperationInProgress));
        let _b = l.take("b", "container.stop").unwrap();
        drop(a);
        let _a = l.take("a", "snapshot.create").unwrap();
        let Err(e) = l.take("a", "snapshot.delete") else { panic!("taken twice") };
        assert_eq!(e.code(), Code::SnapshotOperationInProgress);
    }
}
