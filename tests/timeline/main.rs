//! The commit graph: what operations leave in it, how it is read, and what deletions would free.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod before;
mod dedupe;
mod frees;
mod kinds;
mod pages;
mod random;
mod usage;

use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{NodeKind, Timeline, TimelineNode, TimelineRequest};
use hoody_state::{Caller, Host};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn me() -> Caller {
    Caller { author: Some("ann".into()), ..Caller::default() }
}

fn request() -> TimelineRequest {
    TimelineRequest { limit: 10_000, copies: true, cursor: None, wait: Duration::from_secs(20) }
}

fn of(host: &Host, c: &ContainerId) -> Timeline {
    checked(host.container_timeline(c, &request(), None).unwrap())
}

fn of_project(host: &Host, p: &ProjectId) -> Timeline {
    checked(host.project_timeline(p, &request(), None).unwrap())
}

/// What holds for every timeline that is read at once.
fn checked(t: Timeline) -> Timeline {
    assert_eq!(t.next_cursor, None);
    let mut older: BTreeSet<&str> = t.outside.iter().map(|n| n.id.as_str()).collect();
    assert_eq!(older.len(), t.outside.len(), "a node is outside twice: {t:#?}");
    for pair in t.nodes.windows(2) {
        assert!(pair[0].created_at >= pair[1].created_at, "not in order: {t:#?}");
    }
    let mut edges = 0;
    for n in t.nodes.iter().rev() {
        for p in n.parents.iter().chain(&n.overwrote).chain(&n.copy_of) {
            // From the oldest on, all that a node refers to has been seen: so there is no cycle either.
            assert!(older.contains(p.as_str()), "{} refers to {p}, which is not older and not outside: {t:#?}", n.id);
            assert!(t.edges.iter().any(|e| e.from == *p && e.to == n.id), "no edge {p} -> {}", n.id);
            edges += 1;
        }
        assert!(older.insert(&n.id), "node {} is there twice", n.id);
    }
    assert_eq!(t.edges.len(), edges);
    t
}

fn by_id(t: &Timeline) -> BTreeMap<&str, &TimelineNode> {
    t.nodes.iter().chain(&t.outside).map(|n| (n.id.as_str(), n)).collect()
}

/// The only node of a kind in a container.
fn only<'a>(t: &'a Timeline, c: &ContainerId, kind: NodeKind) -> &'a TimelineNode {
    let found: Vec<_> = t.nodes.iter().filter(|n| n.container_id.as_ref() == Some(c) && n.kind == Some(kind)).collect();
    assert_eq!(found.len(), 1, "{kind:?} of {c}: {t:#?}");
    found[0]
}

/// The node of a snapshot that exists.
fn snapshot_node<'a>(t: &'a Timeline, c: &ContainerId, name: &str) -> &'a TimelineNode {
    let is = |n: &&TimelineNode| {
        n.container_id.as_ref() == Some(c)
            && n.kind == Some(NodeKind::Snapshot)
            && n.deleted_at.is_none()
            && n.snapshot.as_ref().is_some_and(|s| s.as_str() == name)
    };
    t.nodes.iter().chain(&t.outside).find(is).unwrap_or_else(|| panic!("no snapshot {name} of {c}: {t:#?}"))
}

/// What a node comes from, in words: kinds, and names of snapshots.
fn from(t: &Timeline, n: &TimelineNode) -> Vec<String> {
    let all = by_id(t);
    let word = |p: &String| {
        let p = all[p.as_str()];
        match (p.kind, &p.snapshot) {
            (Some(NodeKind::Snapshot), Some(s)) => s.to_string(),
            (Some(kind), _) => kind.as_str().to_owned(),
            (None, _) => "hidden".to_owned(),
        }
    };
    n.parents.iter().map(word).collect()
}
