//! An undo restored another snapshot whose alias was the name of the undo snapshot.

use crate::support::aliased;
use hoody_state::Caller;
use hoody_state::model::RestoreOptions;
use hoody_state_workspace::{MemoryWorld, container, furnish};

#[test]
fn an_undo_restores_its_own_snapshot_though_another_has_its_name_as_alias() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    aliased(&h, &c, "s");
    w.write(&c, "state", "overwritten");
    let undo = h.restore(&me, &c, "s", RestoreOptions::default()).unwrap().undo.unwrap();
    h.rename_snapshot(&me, &c, undo.as_str(), Some("kept".into())).unwrap();
    aliased(&h, &c, undo.as_str());
    h.undo(&me, &c).unwrap();
    assert_eq!(w.read(&c, "state").as_deref(), Some("overwritten"));
}
