use super::{by_id, from, me, of, of_project, only, request, snapshot_node};
use hoody_state::model::{NodeKind, TimelineRequest};
use hoody_state::{Code, Host};
use hoody_state_workspace::{MemoryWorld, at_rest, container, furnish, project, snapshot};
use std::time::Duration;

fn page(host: &Host, c: &hoody_state::id::ContainerId, cursor: Option<String>) -> hoody_state::model::Timeline {
    host.container_timeline(c, &TimelineRequest { cursor, limit: 3, copies: true, wait: Duration::ZERO }, None).unwrap()
}

#[test]
fn pages_go_back_steadily_while_nodes_are_added_and_deleted() {
    let host = MemoryWorld::new().host();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    for n in 0..10 {
        snapshot(&host, &c, &format!("s{n}")).unwrap();
    }
    let all: Vec<String> = of(&host, &c).nodes.iter().skip(1).map(|n| n.id.clone()).collect();
    assert_eq!(all.len(), 12, "ten snapshots, the container's beginning, its image");
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let t = page(&host, &c, cursor);
        assert_eq!(t.nodes.iter().any(|n| n.kind == Some(NodeKind::Now)), pages == 0, "\"now\" is on the first page alone");
        let here: Vec<_> = t.nodes.iter().filter(|n| n.kind != Some(NodeKind::Now)).map(|n| n.id.clone()).collect();
        assert!(here.len() <= 3);
        seen.extend(here);
        pages += 1;
        // New ones come, and one that was shown goes.
        snapshot(&host, &c, &format!("more{pages}")).unwrap();
        host.delete_snapshot(&me(), &c, &format!("more{pages}")).unwrap();
        cursor = t.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (all, 4));
    for bad in ["", "x", "1", "1.x", "1.2.3"] {
        let r = TimelineRequest { cursor: Some(bad.into()), ..request() };
        assert_eq!(host.container_timeline(&c, &r, None).unwrap_err().code(), Code::InvalidPage, "{bad:?}");
    }
    for limit in [0, 10_001] {
        assert_eq!(host.container_timeline(&c, &TimelineRequest { limit, ..request() }, None).unwrap_err().code(), Code::InvalidPage);
    }
}

#[test]
fn a_deleted_snapshot_stays_as_a_placeholder_while_others_come_from_it() {
    let host = MemoryWorld::new().host();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    for n in ["one", "two", "three"] {
        snapshot(&host, &c, n).unwrap();
    }
    host.delete_snapshot(&me(), &c, "two").unwrap();
    let t = of(&host, &c);
    let three = snapshot_node(&t, &c, "three");
    let two = by_id(&t)[three.parents[0].as_str()];
    assert!(two.deleted_at.is_some() && two.snapshot.as_ref().unwrap().as_str() == "two" && two.size.is_none());
    assert_eq!(from(&t, two), ["one"]);
    // The live state comes from the last one.
    host.delete_snapshot(&me(), &c, "three").unwrap();
    let t = of(&host, &c);
    assert_eq!(from(&t, only(&t, &c, NodeKind::Now)), ["three"]);
    // Of the same name again, it is another node.
    snapshot(&host, &c, "three").unwrap();
    let t = of(&host, &c);
    assert_eq!(from(&t, snapshot_node(&t, &c, "three")), ["three"]);
    // Nothing comes from what a restore has left behind, once it is gone: it goes with what only it came from.
    host.restore(&me(), &c, "one", Default::default()).unwrap();
    let undo = host.container_timeline(&c, &request(), None).unwrap().nodes.iter().find(|n| n.kind == Some(NodeKind::Restore)).unwrap().overwrote.clone();
    assert!(undo.is_some());
}

#[test]
fn of_a_deleted_container_only_what_others_come_from_stays() {
    let world = MemoryWorld::new();
    let host = world.host();
    let (p, q) = (furnish(&host), project(&host, "other"));
    let c = container(&host, &p, "agent").unwrap();
    for n in ["one", "two", "three"] {
        snapshot(&host, &c, n).unwrap();
    }
    let request = |from: &str, name: &str| hoody_state::model::CopyRequest {
        source_snapshot: Some(from.into()),
        target_project_id: Some(q.to_string()),
        name: Some(name.into()),
        ..Default::default()
    };
    let fork = host.copy_container(&me(), &c, request("two", "fork")).unwrap().id;
    at_rest(&host);
    let of_fork = host.copy_container(&me(), &fork, request("one", "of-fork")).unwrap().id;
    at_rest(&host);
    let deleted = |id| {
        host.delete_container(&me(), id).unwrap();
        at_rest(&host);
    };
    deleted(&c);
    let t = of(&host, &fork);
    let origin = by_id(&t)[only(&t, &fork, NodeKind::Copy).parents[0].as_str()];
    assert_eq!((origin.container_name.as_deref(), origin.snapshot.as_ref().unwrap().as_str()), (Some("agent"), "two"));
    assert!(origin.deleted_at.is_some());
    let t = of_project(&host, &p);
    assert_eq!(t.nodes.iter().filter(|n| n.kind == Some(NodeKind::Snapshot)).count(), 1, "the project still shows where the fork came from: {t:#?}");
    deleted(&fork);
    let t = of(&host, &of_fork);
    let origin = by_id(&t)[only(&t, &of_fork, NodeKind::Copy).parents[0].as_str()];
    assert_eq!(origin.container_name.as_deref(), Some("fork"));
    deleted(&of_fork);
    drop(host);
    let catalog = rusqlite::Connection::open(world.catalog_file()).unwrap();
    let left = |sql: &str| catalog.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(left("SELECT count(*) FROM history WHERE container_id IS NOT NULL"), 0, "nothing is left of containers that are gone");
    assert_eq!(left("SELECT count(*) FROM history_edges"), 0);
}

#[test]
fn who_may_not_see_a_project_sees_placeholders_without_names() {
    let host = MemoryWorld::new().host();
    let (p, q) = (furnish(&host), project(&host, "other"));
    let c = container(&host, &p, "secret").unwrap();
    snapshot(&host, &c, "plans").unwrap();
    let copy = hoody_state::model::CopyRequest { source_snapshot: Some("plans".into()), target_project_id: Some(q.to_string()), ..Default::default() };
    let copy = host.copy_container(&me(), &c, copy).unwrap().id;
    at_rest(&host);
    let only_q = [q.clone()];
    for t in [host.container_timeline(&copy, &request(), Some(&only_q)).unwrap(), host.project_timeline(&q, &request(), Some(&only_q)).unwrap()] {
        let hidden = t.outside.iter().find(|n| n.hidden).expect("the origin is hidden");
        assert_eq!((hidden.kind, &hidden.container_id, &hidden.snapshot, &hidden.author), (None, &None, &None, &None));
        let begun = only(&t, &copy, NodeKind::Copy);
        assert_eq!((begun.parents.as_slice(), &begun.source), ([hidden.id.clone()].as_slice(), &None));
        // Its own copy of the snapshot is its own.
        assert!(!serde_json::to_string(&t).unwrap().contains("secret"));
    }
    let t = host.container_timeline(&copy, &request(), Some(&[p, q])).unwrap();
    assert!(t.outside.iter().all(|n| !n.hidden));
}
