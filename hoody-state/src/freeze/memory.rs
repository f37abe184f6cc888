//! The freezer in memory: which containers exist and which are frozen.

use super::{FreezeState, Freezer, not_found};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A freezer without a kernel. Every container exists unless it was [removed](Self::remove).
#[derive(Debug, Default)]
pub struct MemoryFreezer {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    states: HashMap<ContainerId, FreezeState>,
    removed: HashSet<ContainerId>,
    stuck: HashSet<ContainerId>,
}

impl MemoryFreezer {
    /// A freezer with nothing frozen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes freezes of the container time out from now on (`true`), or succeed again.
    pub fn set_stuck(&self, container: &ContainerId, stuck: bool) {
        let mut inner = self.lock();
        if stuck {
            inner.stuck.insert(container.clone());
        } else {
            inner.stuck.remove(container);
        }
    }

    /// Removes the container's group.
    pub fn remove(&self, container: &ContainerId) {
        let mut inner = self.lock();
        inner.states.remove(container);
        inner.removed.insert(container.clone());
    }

    fn change(&self, container: &ContainerId, to: FreezeState) -> Result<FreezeState> {
        let mut inner = self.lock();
        if inner.removed.contains(container) {
            return Err(not_found(container));
        }
        Ok(inner.states.insert(container.clone(), to).unwrap_or(FreezeState::Thawed))
    }
}

impl Freezer for MemoryFreezer {
    fn freeze_waking(&self, container: &ContainerId, timeout: Duration, _wake: &dyn Fn(&[i32])) -> Result<FreezeState> {
        if self.lock().stuck.contains(container) {
            return Err(Error::new(Code::FreezeTimeout, format!("container {container} did not freeze within {timeout:?} and runs on")));
        }
        self.change(container, FreezeState::Frozen)
    }

    fn thaw(&self, container: &ContainerId) -> Result<FreezeState> {
        self.change(container, FreezeState::Thawed)
    }

    fn state(&self, container: &ContainerId) -> Result<FreezeState> {
        let inner = self.lock();
        if inner.removed.contains(container) {
            return Err(not_found(container));
        }
        Ok(inner.states.get(container).copied().unwrap_or(FreezeState::Thawed))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::freeze::suite;

    struct World(MemoryFreezer);

    impl suite::World for World {
        fn freezer(&self) -> &dyn Freezer {
            &self.0
        }
        fn make(&self) -> ContainerId {
            ContainerId::generate()
        }
        fn remove(&self, container: &ContainerId) {
            self.0.remove(container);
        }
        fn progress(&self, _: &ContainerId) -> Option<u64> {
            None
        }
        fn make_stuck(&self) -> Option<ContainerId> {
            let c = ContainerId::generate();
            self.0.set_stuck(&c, true);
            Some(c)
        }
    }

    #[test]
    fn contract() {
        suite::run(&World(MemoryFreezer::new()));
    }
}
