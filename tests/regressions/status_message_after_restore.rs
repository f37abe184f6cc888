//! A restore that left a failed container stopped kept the message of the old failure.

use hoody_state::Caller;
use hoody_state::model::{RestoreOptions, Status};
use hoody_state_workspace::{MemoryWorld, container, furnish, snapshot};

#[test]
fn a_restore_that_leaves_the_container_stopped_clears_its_status_message() {
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
