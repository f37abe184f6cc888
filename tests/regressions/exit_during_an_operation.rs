//! A container whose init exited during an operation was shown as running afterwards.

use crate::support::{At, host_with};
use hoody_state::model::{RestoreOptions, Status, Verb};
use hoody_state::{Caller, Error};
use hoody_state_workspace::{assert_clean, container, furnish, snapshot};

#[test]
fn a_container_that_exits_during_an_operation_is_shown_as_stopped() {
    let at = At::default();
    let (h, runtime) = host_with(&at);
    let p = furnish(&h);
    for (step, refused) in [("snapshot.restore:intent", true), ("snapshot.create:snapshot", false), ("container.pause:freeze", false)] {
        let c = container(&h, &p, &step.replace([':', '.'], "-")).unwrap();
        snapshot(&h, &c, "s").unwrap();
        let (id, runtime) = (c.clone(), runtime.clone());
        at.set(move |s| {
            if s != step {
                return Ok(());
            }
            runtime.crash(&id, 3);
            if refused { Err(Error::new(hoody_state::Code::OperationStateConflict, "a test asked for it")) } else { Ok(()) }
        });
        let _ = match step {
            "snapshot.restore:intent" => h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).map(|_| ()),
            "container.pause:freeze" => h.lifecycle(&Caller::default(), &c, Verb::Pause, None).map(|_| ()),
            _ => snapshot(&h, &c, "t").map(|_| ()),
        };
        at.set(|_| Ok(()));
        assert_eq!(h.container(&c).unwrap().status, Status::Stopped, "{step}");
        assert_clean(&h, step);
    }
}
