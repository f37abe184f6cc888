use super::{by_id, from, me, of, of_project, only, request, snapshot_node};
use hoody_state::Host;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, ForkRequest, MoveRequest, NewContainer, NodeKind, SyncRequest, TimelineRequest};
use hoody_state::transfer::memory::MemoryNet;
use hoody_state_workspace::{MemoryWorld, RealHost, acquaint, assert_clean, at_rest, container, furnish, project, snapshot};

fn one_fork(host: &Host, c: &ContainerId, from: Option<&str>) -> ContainerId {
    let request = ForkRequest { count: Some(1), source_snapshot: from.map(str::to_owned), ..Default::default() };
    let forked = host.fork_container(&me(), c, &request).unwrap();
    let fork = serde_json::to_value(&forked.results[0]).unwrap()["container"]["id"].as_str().unwrap().parse().unwrap();
    at_rest(host);
    fork
}

/// One operation of each kind that one server does alone, on any host.
fn every_kind(host: &Host, p: &hoody_state::id::ProjectId, write: impl Fn(&ContainerId)) {
    let c = host.create_container(&me(), p, NewContainer { name: Some("agent".into()), ..Default::default() }).unwrap().id;
    for s in ["first", "second"] {
        snapshot(host, &c, s).unwrap();
    }
    host.restore(&me(), &c, "first", Default::default()).unwrap();
    snapshot(host, &c, "third").unwrap();
    let t = of(host, &c);
    let create = only(&t, &c, NodeKind::Create);
    assert_eq!((from(&t, create), create.author.as_deref()), (vec!["image_import".to_owned()], Some("ann")));
    assert_eq!(from(&t, snapshot_node(&t, &c, "first")), ["create"]);
    assert_eq!(from(&t, snapshot_node(&t, &c, "second")), ["first"]);
    let restore = only(&t, &c, NodeKind::Restore);
    assert_eq!((from(&t, restore), restore.snapshot.as_ref().unwrap().as_str()), (vec!["first".to_owned()], "first"));
    let undo = by_id(&t)[restore.overwrote.as_deref().unwrap()];
    assert!(undo.snapshot.as_ref().unwrap().as_str().starts_with("undo-"));
    assert_eq!(from(&t, undo), ["second"], "what was overwritten grew from the second");
    assert_eq!(from(&t, snapshot_node(&t, &c, "third")), ["restore"], "what comes after a restore descends from it");
    assert_eq!(from(&t, only(&t, &c, NodeKind::Now)), ["third"]);
    assert_eq!((restore.author.as_deref(), restore.operation_id.is_some()), (Some("ann"), true));
    host.undo(&me(), &c).unwrap();
    let t = of(host, &c);
    let undone = only(&t, &c, NodeKind::Undo);
    assert_eq!(undone.parents, [undo_id(&t)], "an undo descends from what was kept");
    assert_eq!(from(&t, only(&t, &c, NodeKind::Now)), ["undo"]);

    let fork = one_fork(host, &c, Some("third"));
    let t = of(host, &fork);
    let first = only(&t, &fork, NodeKind::Fork);
    assert_eq!(from(&t, first), ["third"]);
    let origin = by_id(&t)[first.parents[0].as_str()];
    assert_eq!((origin.container_id.as_ref(), origin.container_name.as_deref()), (Some(&c), Some("agent")), "the origin is the source's own snapshot");
    assert!(t.outside.iter().any(|n| n.id == origin.id));
    let copied = snapshot_node(&t, &fork, "third");
    assert_eq!(copied.copy_of.as_deref(), Some(origin.id.as_str()));
    assert_eq!(from(&t, only(&t, &fork, NodeKind::Now)), ["fork"]);
    host.restore(&me(), &fork, "second", Default::default()).unwrap();
    let t = of(host, &fork);
    assert_eq!(from(&t, only(&t, &fork, NodeKind::Restore)), ["second"]);
    assert_eq!(by_id(&t)[only(&t, &fork, NodeKind::Restore).parents[0].as_str()].container_id.as_ref(), Some(&fork), "its own copy of the second");

    // The project's timeline has both, connected; copies only where they are asked for.
    let t = of_project(host, p);
    assert!(t.outside.is_empty(), "{:#?}", t.outside);
    assert_eq!(by_id(&t)[only(&t, &fork, NodeKind::Fork).parents[0].as_str()].container_id.as_ref(), Some(&c));
    let without = host.project_timeline(p, &TimelineRequest { copies: false, ..request() }, None).unwrap();
    assert!(without.nodes.iter().all(|n| n.copy_of.is_none()));
    assert_eq!(without.outside.len(), 1, "the copy that was restored: {:#?}", without.outside);

    // A copy in another project, and a sync of it.
    let other = project(host, "other");
    let request = CopyRequest { target_project_id: Some(other.to_string()), name: Some("standby".into()), start: Some(false), ..Default::default() };
    let copy = host.copy_container(&me(), &c, request).unwrap().id;
    at_rest(host);
    write(&c);
    host.sync_container(&me(), &copy, &SyncRequest::default()).unwrap();
    at_rest(host);
    let t = of(host, &copy);
    let (begun, synced) = (only(&t, &copy, NodeKind::Copy), only(&t, &copy, NodeKind::Sync));
    assert_eq!(begun.source.as_ref().unwrap().container_id, c);
    assert_eq!(by_id(&t)[begun.parents[0].as_str()].container_id.as_ref(), Some(&c));
    let brought = by_id(&t)[synced.parents[0].as_str()];
    assert_eq!(brought.container_id.as_ref(), Some(&c), "a sync descends from the source's snapshot");
    assert_eq!(synced.parents.get(1), Some(&begun.id), "and from what the copy was, which it did not change");
    assert_eq!(snapshot_node(&t, &copy, synced.snapshot.as_ref().unwrap().as_str()).copy_of.as_ref(), Some(&brought.id));
    assert_eq!(from(&t, only(&t, &copy, NodeKind::Now)), ["sync"]);

    // An image of a snapshot, and a container of it.
    host.image_from_snapshot(&me(), "made", &c, "first").unwrap();
    let made =
        host.create_container(&me(), p, NewContainer { name: Some("made".into()), container_image: Some("made".into()), ..Default::default() }).unwrap().id;
    let t = of(host, &made);
    assert_eq!(from(&t, only(&t, &made, NodeKind::Create)), ["image_from_snapshot"]);
    let image = t.nodes.iter().find(|n| n.kind == Some(NodeKind::ImageFromSnapshot)).unwrap();
    assert_eq!((from(&t, image), image.image.as_deref()), (vec!["first".to_owned()], Some("made")));
    assert!(of(host, &c).nodes.iter().any(|n| n.kind == Some(NodeKind::ImageFromSnapshot)), "the source shows what was made of it");
    assert_clean(host, "every kind");
}

fn undo_id(t: &hoody_state::model::Timeline) -> String {
    t.nodes.iter().find(|n| n.kind == Some(NodeKind::Restore)).unwrap().overwrote.clone().unwrap()
}

#[test]
fn each_operation_leaves_its_node_with_its_parents() {
    let world = MemoryWorld::new();
    let host = world.host();
    let p = furnish(&host);
    every_kind(&host, &p, |c| world.write(c, "state", "new"));
}

#[test]
fn the_same_on_a_real_pool() {
    let real = RealHost::new("timeline-kinds");
    let p = project(real.host(), "web");
    every_kind(real.host(), &p, |c| drop(real.sh(c, "echo new > /state")));
}

#[test]
fn copies_and_moves_between_servers_name_the_server() {
    let net = MemoryNet::new();
    let (a, b) = (MemoryWorld::on(&net, "alpha"), MemoryWorld::on(&net, "beta"));
    let (here, there) = (a.host(), b.host());
    acquaint(&here, "https://alpha", &there, "https://beta");
    let p = furnish(&here);
    let c = container(&here, &p, "agent").unwrap();
    snapshot(&here, &c, "first").unwrap();
    let to_beta = Some(b.server.id.to_string());
    let request = CopyRequest { target_server_id: to_beta.clone(), target_project_id: Some(p.to_string()), name: Some("copy".into()), ..Default::default() };
    let copy = here.copy_container(&me(), &c, request).unwrap().id;
    at_rest(&there);
    let t = of(&there, &copy);
    let begun = only(&t, &copy, NodeKind::Copy);
    let source = begun.source.clone().unwrap();
    assert_eq!((source.server_name.as_deref(), source.server_id.as_ref(), &source.container_id), (Some("alpha"), Some(&a.server.id), &c));
    let received = by_id(&t)[begun.parents[0].as_str()];
    assert_eq!((received.container_id.as_ref(), received.source.as_ref().unwrap().server_name.as_deref()), (Some(&copy), Some("alpha")));
    assert_eq!(from(&t, received), ["first"], "the snapshots that came along grew from each other");
    a.write(&c, "state", "new");
    there.sync_container(&me(), &copy, &SyncRequest::default()).unwrap();
    let t = of(&there, &copy);
    assert_eq!(by_id(&t)[only(&t, &copy, NodeKind::Sync).parents[0].as_str()].source.as_ref().unwrap().server_name.as_deref(), Some("alpha"));

    let request = MoveRequest { target_server_id: to_beta, ..Default::default() };
    let moved = here.move_container(&me(), &c, &request).unwrap();
    at_rest(&here);
    at_rest(&there);
    let t = of(&here, &c);
    let left = only(&t, &c, NodeKind::Move);
    assert_eq!((left.source.as_ref().unwrap().server_name.as_deref(), &left.source.as_ref().unwrap().container_id), (Some("beta"), &moved.target_container_id));
    assert!(left.source.as_ref().unwrap().is_target);
    assert_eq!(from(&t, only(&t, &c, NodeKind::Now)), ["move"]);
    let t = of(&there, &moved.target_container_id);
    let came = only(&t, &moved.target_container_id, NodeKind::Move);
    assert_eq!(came.source.as_ref().unwrap().server_name.as_deref(), Some("alpha"));
    assert_eq!(from(&t, came), ["sync"], "it was brought up to date before it was taken over");
}
