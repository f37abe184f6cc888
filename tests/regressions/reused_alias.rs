//! An alias that was given again found the old snapshot.

use crate::support::aliased;
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::RestoreOptions;
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish};

#[test]
fn an_alias_given_anew_finds_the_new_snapshot_and_deletes_neither_by_mistake() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    w.write(&c, "state", "old");
    aliased(&h, &c, "nightly");
    h.rename_snapshot(&me, &c, "nightly", Some("nightly-old".into())).unwrap();
    w.write(&c, "state", "new");
    let new = aliased(&h, &c, "nightly");
    assert_eq!(new.name.as_str(), "nightly-2");
    w.write(&c, "state", "broken");

    assert_eq!(h.snapshot(&c, "nightly").unwrap().snapshot.name, new.name);
    assert_eq!(h.restore(&me, &c, "nightly", RestoreOptions::default()).unwrap().snapshot.unwrap().name, new.name);
    assert_eq!(w.read(&c, "state").as_deref(), Some("new"));

    // In a list the old one has the canonical name `nightly`: whoever deletes by that name must not lose the new one, nor the other way round.
    for e in [
        h.delete_snapshot(&me, &c, "nightly").unwrap_err(),
        h.set_snapshot_expiry(&me, &c, "nightly", None).unwrap_err(),
        h.rename_snapshot(&me, &c, "nightly", None).unwrap_err(),
    ] {
        assert_eq!(e.code(), Code::SnapshotAmbiguous);
        assert!(e.message().contains("nightly-2") && e.message().contains("nightly-old"), "{e}");
    }
    h.delete_snapshot(&me, &c, "nightly-2").unwrap();
    assert_eq!(h.snapshot(&c, "nightly").unwrap().snapshot.alias.unwrap().as_str(), "nightly-old");
    h.delete_snapshot(&me, &c, "nightly").unwrap();
    assert_clean(&h, "after snapshots of one name");
}
