//! A restore that was undone changed the status of a failed container.

use crate::support::{At, host_with};
use hoody_state::model::RestoreOptions;
use hoody_state::{Caller, Error};
use hoody_state_workspace::{assert_clean, container, furnish, snapshot};

#[test]
fn an_undone_restore_leaves_a_failed_container_failed() {
    let at = At::default();
    let (h, runtime) = host_with(&at);
    let p = furnish(&h);
    runtime.fail_next_start();
    let c = container(&h, &p, "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    let before = h.container(&c).unwrap();
    at.set(|s| if s == "snapshot.restore:exchange" { Err(Error::new(hoody_state::Code::OperationStateConflict, "a test asked for it")) } else { Ok(()) });
    h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap_err();
    let after = h.container(&c).unwrap();
    assert_eq!((after.status, after.status_message), (before.status, before.status_message));
    assert_clean(&h, "after a restore that was undone");
}
