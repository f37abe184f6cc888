//! What attacking the library has found, one test a bug.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::model::{EventFilter, RestoreOptions, Status};
use hoody_state::Caller;
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};

#[test]
fn a_restore_whose_boot_fails_is_not_booted_a_second_time_behind_its_error() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    w.runtime.fail_next_start();
    let e = h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap_err();
    assert_eq!(e.code(), "start_failed");
    let seen = h.container(&c).unwrap();
    assert_eq!((seen.status, seen.last_used_snapshot.unwrap().as_str()), (Status::Failed, "s"));
    let restored = h.events(&EventFilter { limit: 500, ..Default::default() }).unwrap().0.into_iter().filter(|e| e.event_type == "container.snapshot.restored").count();
    assert_eq!(restored, 1);
    assert_clean(&h, "after a restore that does not boot");
}

#[test]
fn a_container_that_is_stopped_by_a_restore_says_no_longer_why_it_had_failed() {
    let w = MemoryWorld::new();
    let h = w.host();
    let p = furnish(&h);
    w.runtime.fail_next_start();
    let c = container(&h, &p, "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap();
    let seen = h.container(&c).unwrap();
    assert_eq!((seen.status, seen.status_message), (Status::Stopped, None));
}
