//! Renaming or pinning a snapshot during an operation on its container locked the container for good.

use crate::support::{At, host_with, patiently, rolling};
use hoody_state::model::RestoreOptions;
use hoody_state::{Caller, Kind};
use hoody_state_workspace::{assert_clean, container, furnish, snapshot};
use std::sync::{Arc, Mutex};

#[test]
fn renaming_and_pinning_during_an_operation_are_refused_and_lock_nothing() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let me = Caller::default();
    snapshot(&h, &c, "a").unwrap();
    h.create_snapshot(&me, &c, rolling()).unwrap();
    let (host, id) = (h.clone(), c.clone());
    let refused = Arc::new(Mutex::new(Vec::new()));
    let seen = refused.clone();
    at.set(move |s| {
        let e = match s {
            "snapshot.restore:clone" => host.rename_snapshot(&Caller::default(), &id, "a", Some("kept".into())),
            "snapshot.create:snapshot" => host.pin_snapshot(&Caller::default(), &id, "rolling", Some("audit".into())),
            _ => return Ok(()),
        };
        seen.lock().unwrap().push(e.unwrap_err().kind());
        Ok(())
    });
    h.restore(&me, &c, "a", RestoreOptions { keep_current: Some("kept".into()), ..Default::default() }).unwrap();
    patiently(|| h.create_snapshot(&me, &c, rolling()));
    assert_eq!(*refused.lock().unwrap(), [Kind::Busy, Kind::Busy]);
    assert_clean(&h, "after changes in the middle of changes");
}
