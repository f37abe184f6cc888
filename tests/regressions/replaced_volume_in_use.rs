//! A snapshot that replaced another failed when the volume of the other could not be deleted yet.

use crate::support::{At, eventually, host_with, patiently, rolling};
use hoody_state::model::RestoreOptions;
use hoody_state::{Caller, Code, Error};
use hoody_state_workspace::{assert_clean, container, furnish};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_snapshot_succeeds_although_the_volume_it_replaces_cannot_be_deleted_yet() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let c = container(&h, &furnish(&h), "dev").unwrap();
    h.create_snapshot(&Caller::default(), &c, rolling()).unwrap();
    let in_use = Arc::new(AtomicBool::new(true));
    let flag = in_use.clone();
    at.set(move |step| match step {
        "volume.delete:delete" if flag.load(Ordering::SeqCst) => Err(Error::new(Code::VolumeInUse, "it is being sent")),
        _ => Ok(()),
    });
    let new = h.create_snapshot(&Caller::default(), &c, rolling()).unwrap().snapshot;
    let list = h.snapshots(&c).unwrap().snapshots;
    assert_eq!(list.iter().map(|s| &s.name).collect::<Vec<_>>(), [&new.name]);
    patiently(|| h.restore(&Caller::default(), &c, new.name.as_str(), RestoreOptions::default()));
    patiently(|| h.delete_snapshot(&Caller::default(), &c, new.name.as_str()));
    in_use.store(false, Ordering::SeqCst);
    eventually("the volumes go when they can", || h.container(&c).unwrap().operation_id.is_none());
    assert_clean(&h, "after volumes that were in use");
}
