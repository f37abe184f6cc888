//! The cases that every [`Freezer`] must pass. A backend's tests provide a [`World`] and call [`run`]; a failing case panics with a description.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{FreezeGuard, FreezeState, Freezer};
use crate::Code;
use crate::error::Kind;
use crate::id::ContainerId;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a backend's containers come from.
pub trait World {
    /// The backend.
    fn freezer(&self) -> &dyn Freezer;
    /// A thawed container with at least one busy process, where there are processes.
    fn make(&self) -> ContainerId;
    /// Removes a container, frozen or not.
    fn remove(&self, container: &ContainerId);
    /// A number that grows as long as the container runs; `None` where the backend runs no processes.
    fn progress(&self, container: &ContainerId) -> Option<u64>;
    /// A container with a process that cannot be frozen, if the backend can make one.
    fn make_stuck(&self) -> Option<ContainerId>;
}

/// Every case.
pub fn run(world: &dyn World) {
    freezes_and_thaws(world);
    doing_it_twice_changes_nothing(world);
    nothing_runs_while_frozen(world);
    a_guard_puts_back_the_state_before(world);
    one_container_does_not_touch_another(world);
    a_container_that_is_not_there(world);
    a_freeze_that_fails_is_undone(world);
}

fn freezes_and_thaws(w: &dyn World) {
    let (f, c) = (w.freezer(), w.make());
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed);
    assert_eq!(f.freeze(&c, TIMEOUT).unwrap(), FreezeState::Thawed);
    assert_eq!(f.state(&c).unwrap(), FreezeState::Frozen);
    assert_eq!(f.thaw(&c).unwrap(), FreezeState::Frozen);
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed);
    w.remove(&c);
}

fn doing_it_twice_changes_nothing(w: &dyn World) {
    let (f, c) = (w.freezer(), w.make());
    f.freeze(&c, TIMEOUT).unwrap();
    assert_eq!(f.freeze(&c, TIMEOUT).unwrap(), FreezeState::Frozen);
    assert_eq!(f.state(&c).unwrap(), FreezeState::Frozen);
    f.thaw(&c).unwrap();
    assert_eq!(f.thaw(&c).unwrap(), FreezeState::Thawed);
    w.remove(&c);
}

fn nothing_runs_while_frozen(w: &dyn World) {
    let (f, c) = (w.freezer(), w.make());
    for _ in 0..20 {
        f.freeze(&c, TIMEOUT).unwrap();
        // A task counts as frozen an instant before it leaves its processor, and its time is booked when it leaves.
        // On a loaded machine that instant may be long.
        let Some(mut before) = w.progress(&c) else { break };
        // A busy process that ran would use some time in each of these pauses.
        let still = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let now = w.progress(&c).unwrap_or(before);
            std::mem::replace(&mut before, now) == now
        });
        assert!(still, "it ran while frozen");
        f.thaw(&c).unwrap();
        let deadline = std::time::Instant::now() + TIMEOUT;
        while w.progress(&c) == Some(before) {
            assert!(std::time::Instant::now() < deadline, "it did not continue after the thaw");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    w.remove(&c);
}

fn a_guard_puts_back_the_state_before(w: &dyn World) {
    let (f, c) = (w.freezer(), w.make());
    drop(FreezeGuard::new(f, &c, TIMEOUT).unwrap());
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed);
    f.freeze(&c, TIMEOUT).unwrap();
    drop(FreezeGuard::new(f, &c, TIMEOUT).unwrap());
    assert_eq!(f.state(&c).unwrap(), FreezeState::Frozen, "one that was paused stays paused");
    w.remove(&c);
}

fn one_container_does_not_touch_another(w: &dyn World) {
    let (f, a, b) = (w.freezer(), w.make(), w.make());
    f.freeze(&a, TIMEOUT).unwrap();
    assert_eq!(f.state(&b).unwrap(), FreezeState::Thawed);
    w.remove(&a);
    w.remove(&b);
}

fn a_container_that_is_not_there(w: &dyn World) {
    let (f, c) = (w.freezer(), w.make());
    w.remove(&c);
    for e in [f.freeze(&c, TIMEOUT).unwrap_err(), f.thaw(&c).unwrap_err(), f.state(&c).unwrap_err()] {
        assert_eq!((e.kind(), e.code()), (Kind::NotFound, Code::CgroupNotFound));
    }
}

fn a_freeze_that_fails_is_undone(w: &dyn World) {
    let Some(c) = w.make_stuck() else { return };
    let f = w.freezer();
    let e = f.freeze(&c, Duration::from_millis(50)).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Timeout, Code::FreezeTimeout));
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed, "the group is as it was before");
    w.remove(&c);
}
