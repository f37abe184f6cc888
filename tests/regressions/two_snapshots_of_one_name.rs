//! Two snapshots of a container could be shown under one name.

use crate::support::aliased;
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::{NewSnapshot, RestoreOptions};
use hoody_state_workspace::{MemoryWorld, container, furnish};

#[test]
fn no_two_snapshots_show_one_name() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let unnamed = h.create_snapshot(&me, &c, NewSnapshot::default()).unwrap().snapshot.name;
    let again = NewSnapshot { alias: Some(unnamed.to_string()), ..Default::default() };
    assert_eq!(h.create_snapshot(&me, &c, again).unwrap_err().code(), Code::AliasInUse);
    aliased(&h, &c, "a");
    h.rename_snapshot(&me, &c, "a", Some("b".into())).unwrap();
    aliased(&h, &c, "a");
    // Without its alias `b` it would be called `a`, as the second one is.
    assert_eq!(h.rename_snapshot(&me, &c, "b", None).unwrap_err().code(), Code::AliasInUse);
    assert_eq!(h.restore(&me, &c, "b", RestoreOptions { keep_current: Some(unnamed.to_string()), ..Default::default() }).unwrap_err().code(), Code::AliasInUse);
}
