//! After a crash during the start of containers after a reboot, the remaining ones never started.

use crate::support::eventually;
use hoody_state::model::Status;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state_workspace::{MemoryWorld, container, furnish};
use std::sync::Arc;

#[test]
fn containers_that_a_crash_left_unstarted_start_the_next_time() {
    let mut w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    drop(h);
    w.boot = "the next boot".into();
    w.runtime = Arc::new(MemoryRuntime::new());
    w.crash_at(1);
    drop(w.host());
    w.crash_at(0);
    let h = w.host();
    eventually("it runs", || h.container(&c).unwrap().status == Status::Running);
}
