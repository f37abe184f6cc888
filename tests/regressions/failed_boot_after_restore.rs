//! A restore whose boot failed booted the container a second time while it returned the error.

use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::{EventFilter, RestoreOptions, Status};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};

#[test]
fn a_restore_whose_boot_fails_does_not_boot_again() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    w.runtime.fail_next_start();
    let e = h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap_err();
    assert_eq!(e.code(), Code::StartFailed);
    let seen = h.container(&c).unwrap();
    assert_eq!((seen.status, seen.last_used_snapshot.unwrap().as_str()), (Status::Failed, "s"));
    let restored =
        h.events(&EventFilter { limit: 500, ..Default::default() }).unwrap().0.into_iter().filter(|e| e.event_type == "container.snapshot.restored").count();
    assert_eq!(restored, 1);
    assert_clean(&h, "after a restore that does not boot");
}
