//! A catalog of the version before has no history: what it knows is shown.

use super::{from, me, of, only, snapshot_node};
use hoody_state::model::{CopyRequest, NodeKind, Trigger};
use hoody_state_workspace::{MemoryWorld, assert_clean, at_rest, container, furnish, snapshot};

/// Takes a catalog back to the version before there was a history.
fn back(world: &MemoryWorld) {
    let catalog = rusqlite::Connection::open(world.catalog_file()).unwrap();
    let version: i64 = catalog.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
    assert_eq!(version, 8, "later migrations must be taken back here first");
    catalog
        .execute_batch(
            "DROP TABLE policies; DROP TABLE schedules; DROP TABLE trash; DROP INDEX snapshots_by_schedule;
             ALTER TABLE snapshots DROP COLUMN trigger; ALTER TABLE snapshots DROP COLUMN schedule; ALTER TABLE snapshots DROP COLUMN scheduled_ms;
             ALTER TABLE snapshots DROP COLUMN missed; ALTER TABLE snapshots DROP COLUMN replaced_alias;
             DROP TABLE history; DROP TABLE history_edges; DROP INDEX operations_of; ALTER TABLE operations DROP COLUMN author; PRAGMA user_version = 6",
        )
        .unwrap();
}

#[test]
fn a_catalog_of_the_version_before_shows_what_it_knows() {
    let world = MemoryWorld::new();
    let host = world.host();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    for n in ["one", "two", "three"] {
        snapshot(&host, &c, n).unwrap();
    }
    host.restore(&me(), &c, "one", Default::default()).unwrap();
    let request = CopyRequest { source_snapshot: Some("two".into()), target_project_id: Some(p.to_string()), name: Some("copy".into()), ..Default::default() };
    let copy = host.copy_container(&me(), &c, request).unwrap().id;
    at_rest(&host);
    host.close();
    drop(host);
    back(&world);
    let host = world.host();
    let triggers = host.snapshots(&c).unwrap().snapshots.iter().map(|s| (s.alias.is_some(), s.trigger)).collect::<Vec<_>>();
    let (made, undo) = ((true, Trigger::Manual), (false, Trigger::Restore));
    assert_eq!(triggers, [undo, made, made, made], "snapshots of that version have the trigger that can be told from them");
    let t = of(&host, &c);
    assert_eq!(from(&t, only(&t, &c, NodeKind::Create)), ["image_import"]);
    assert_eq!(from(&t, snapshot_node(&t, &c, "one")), ["create"]);
    assert_eq!(from(&t, snapshot_node(&t, &c, "three")), ["two"]);
    assert_eq!(from(&t, only(&t, &c, NodeKind::Now)), ["one"], "the restore itself was not kept, but what the live state grows from is known");
    let t = of(&host, &copy);
    assert_eq!(from(&t, only(&t, &copy, NodeKind::Copy)), ["two"]);
    assert_eq!(only(&t, &copy, NodeKind::Copy).source.as_ref().unwrap().container_id, c);
    assert_eq!(from(&t, only(&t, &copy, NodeKind::Now)), ["two"], "its own copy of it");
    // It goes on from there.
    host.restore(&me(), &c, "two", Default::default()).unwrap();
    snapshot(&host, &copy, "four").unwrap();
    let t = of(&host, &c);
    assert_eq!(from(&t, only(&t, &c, NodeKind::Restore)), ["two"]);
    let t = of(&host, &copy);
    assert_eq!(from(&t, snapshot_node(&t, &copy, "four")), ["two"]);
    assert_clean(&host, "after the migration");
}
