//! How much of a history is kept.
#![allow(clippy::unwrap_used)]

use super::{Caller, Host};
use crate::catalog::Durability;
use crate::id::ContainerId;
use crate::model::{NewContainer, NewSnapshot, NodeKind, ProjectInput, Timeline, TimelineRequest};
use std::collections::HashSet;
use std::time::Duration;

fn timeline(host: &Host, c: &ContainerId) -> Timeline {
    let request = TimelineRequest { cursor: None, limit: 10_000, copies: true, wait: Duration::ZERO };
    host.container_timeline(c, &request, None).unwrap()
}

#[test]
fn beyond_a_bound_the_oldest_nodes_are_bridged_and_snapshots_stay() {
    let (host, me) = (Host::in_memory().unwrap(), Caller::default());
    let p = host.create_project(&me, ProjectInput { alias: Some("p".into()), ..Default::default() }).unwrap().id;
    let c = host.create_container(&me, &p, NewContainer { name: Some("agent".into()), ..Default::default() }).unwrap().id;
    let mut kept = Vec::new();
    for n in 0..12 {
        let name = host.create_snapshot(&me, &c, NewSnapshot { alias: Some(format!("s{n}")), ..Default::default() }).unwrap().snapshot.name;
        host.restore(&me, &c, name.as_str(), Default::default()).unwrap();
        if n % 4 == 0 {
            kept.push(name);
        } else {
            host.delete_snapshot(&me, &c, name.as_str()).unwrap();
        }
    }
    let before = timeline(&host, &c);
    let beside =
        |t: &Timeline| t.nodes.iter().filter(|n| n.kind != Some(NodeKind::Now) && (n.kind != Some(NodeKind::Snapshot) || n.deleted_at.is_some())).count();
    assert!(beside(&before) > 20);
    host.write(Durability::Process, |tx| tx.prune_history(5)).unwrap();
    let t = timeline(&host, &c);
    assert_eq!(beside(&t), 5);
    let ids: HashSet<&String> = t.nodes.iter().map(|n| &n.id).collect();
    for n in &t.nodes {
        assert!(n.parents.iter().chain(&n.overwrote).all(|p| ids.contains(p)), "{n:#?}");
    }
    for name in &kept {
        assert!(t.nodes.iter().any(|n| n.kind == Some(NodeKind::Snapshot) && n.snapshot.as_ref() == Some(name)), "{name} stays");
    }
    assert_eq!(t.nodes[0].parents, before.nodes[0].parents, "what the live state grows from stays");
    // From any snapshot that was an ancestor the way is still there: the newest reaches the oldest.
    let mut reached = HashSet::new();
    let mut next = vec![t.nodes[0].id.clone()];
    while let Some(id) = next.pop() {
        if reached.insert(id.clone()) {
            next.extend(t.nodes.iter().find(|n| n.id == id).unwrap().parents.iter().cloned());
        }
    }
    assert!(t.nodes.iter().filter(|n| n.snapshot.as_ref() == Some(&kept[0]) && n.kind == Some(NodeKind::Snapshot)).all(|n| reached.contains(&n.id)));
}
