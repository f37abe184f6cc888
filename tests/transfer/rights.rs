//! What the holder of a replication token tries beyond what the token is for: each is refused, and nothing is changed by it.

use super::{A, B, Two, idle, names, settled};
use hoody_state::Code;
use hoody_state::id::{ContainerId, OperationId, ServerId};
use hoody_state::model::{MoveRequest, NewPeer, Rights, Status, SyncRequest, Token};
use hoody_state::transfer::memory::Fault;
use hoody_state::transfer::{Answer, Request, StreamRequest};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, picture, project, refused, tiny_image};
use serde_json::json;

/// The token by which `asks` is known at `host`.
fn token_of(host: &Host, asks: &Host) -> Token {
    host.tokens().unwrap().into_iter().find(|t| t.peer.as_ref() == Some(&asks.server().id)).unwrap()
}

/// A third server that the target knows and has given a token to.
fn third(two: &Two) -> (MemoryWorld, Host, Token) {
    let world = MemoryWorld::on(&two.net, "c");
    let host = world.host();
    let token = two.there.create_token("for c", None, Rights::Replication).unwrap().1;
    host.add_peer(&Caller::default(), NewPeer { url: B.into(), token, ..Default::default() }).unwrap();
    let back = host.create_token("for b", None, Rights::Replication).unwrap().1;
    two.there.add_peer(&Caller::default(), NewPeer { url: "https://c".into(), token: back, ..Default::default() }).unwrap();
    let token = token_of(&two.there, &host);
    (world, host, token)
}

fn order(copy: &ContainerId, server: &ServerId, source: &ContainerId, project: &str) -> Request {
    serde_json::from_value(json!({
        "call": "copy", "copy": copy, "server": server, "source": source, "snapshot": "first", "project": project, "project_alias": ["taken", "#00ff00"],
        "name": "forged", "ssh_public_key": null, "start": true, "rate_limit": null,
        "spec": { "color": "#00ff00", "image": "tiny", "ai": false, "autostart": false, "ramdisk": false, "ramdisk_scope": "container", "env": {}, "comment": null,
            "source": null, "command": [], "cpu": null, "memory_mib": null, "databases": "project", "filesystem": "btrfs", "network": "none" },
    }))
    .unwrap()
}

/// Everything that may be asked about a copy.
fn words(copy: &ContainerId, handover: &OperationId) -> Vec<Request> {
    let (copy, handover) = (copy.clone(), handover.clone());
    vec![
        Request::Advance { copy: copy.clone(), snapshot: "first".parse().unwrap(), handover: handover.clone() },
        Request::HandOver { copy: copy.clone(), handover: handover.clone(), start: true, identity: None },
        Request::Discard { copy, handover },
    ]
}

/// Everything by which a container is read.
fn reads(container: &ContainerId, copy: &ContainerId) -> [Request; 2] {
    [
        Request::Inventory { container: container.clone(), copy: copy.clone() },
        Request::Fresh { container: container.clone(), copy: copy.clone(), have: Vec::new() },
    ]
}

fn stream(container: &ContainerId, copy: &ContainerId) -> StreamRequest {
    StreamRequest { container: container.clone(), copy: copy.clone(), snapshot: "first".parse().unwrap(), databases: false, base: None }
}

#[test]
fn a_token_belongs_to_the_first_server_that_uses_it() {
    let two = Two::new();
    let (token, _) = two.there.create_token("new", None, Rights::Replication).unwrap();
    let hello = |from: &ServerId| Request::Hello { from: Some(from.clone()) };
    let (first, second) = (ServerId::generate(), ServerId::generate());
    refused(&two.there, Code::TokenNotBound, || two.there.answer_peer(&token, Request::State { copy: two.source.clone() }));
    refused(&two.there, Code::TokenNotBound, || two.there.offer_stream(&token, &stream(&two.source, &two.source)).map(drop));
    // Nobody takes the name of a server that has a token already.
    refused(&two.there, Code::PeerTokenInUse, || two.there.answer_peer(&token, hello(&two.a.server.id)));
    two.there.answer_peer(&token, hello(&first)).unwrap();
    two.there.answer_peer(&token, hello(&first)).unwrap();
    refused(&two.there, Code::InsufficientPermissions, || two.there.answer_peer(&token, hello(&second)));
    assert_eq!(two.there.token(&token.id).unwrap().unwrap().peer, Some(first));
    // One that was made for a server is that server's from the beginning.
    let (token, _) = two.there.create_peer_token("made for it", None, &second).unwrap();
    refused(&two.there, Code::InsufficientPermissions, || two.there.answer_peer(&token, hello(&two.a.server.id)));
    two.there.answer_peer(&token, hello(&second)).unwrap();
    // A revoked one is good for nothing, whoever still holds its row.
    two.there.revoke_token("made for it").unwrap();
    refused(&two.there, Code::InsufficientPermissions, || two.there.answer_peer(&token, hello(&second)));
}

#[test]
fn a_third_server_can_neither_change_nor_read_a_copy() {
    let two = Two::new();
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    two.there.import_image(&Caller::default(), "tiny", &mut &tiny_image()[..]).unwrap();
    let p = project(&two.there, "own");
    let own = container(&two.there, &p, "own").unwrap();
    let (_world, c, token) = third(&two);
    let state = Request::State { copy: copy.clone() };
    for request in words(&copy, &OperationId::generate()).into_iter().chain([state]).chain(reads(&copy, &copy)).chain(reads(&own, &own)) {
        let what = format!("{request:?}");
        refused(&two.there, Code::ContainerNotFound, || two.there.answer_peer(&token, request).map(|a| format!("{what}: {a:?}")));
    }
    for id in [&copy, &own] {
        refused(&two.there, Code::ContainerNotFound, || two.there.offer_stream(&token, &stream(id, &copy)).map(drop));
    }
    // Copies of the first server's containers, into any project.
    for project in [p.to_string(), "65f0c0ffee000000000000aa".into()] {
        let forged = order(&ContainerId::generate(), &two.a.server.id, &two.source, &project);
        refused(&two.there, Code::InsufficientPermissions, || two.there.answer_peer(&token, forged));
    }
    // An order under the id of a copy that is another server's tells nothing of it.
    let same = order(&copy, &c.server().id, &two.source, p.as_str());
    refused(&two.there, Code::ContainerNotFound, || two.there.answer_peer(&token, same));
    assert_eq!(two.there.container(&copy).unwrap().status, Status::Running);
    assert_eq!(two.b.read(&copy, "state").as_deref(), Some("three"));
}

#[test]
fn the_source_cannot_roll_back_stop_or_delete_a_standby() {
    let two = Two::new();
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    let token = token_of(&two.there, &two.here);
    for stopped in [false, true] {
        if stopped {
            two.there.lifecycle(&Caller::default(), &copy, hoody_state::model::Verb::Stop, None).unwrap();
        }
        for request in words(&copy, &OperationId::generate()) {
            refused(&two.there, Code::HandoverRefused, || two.there.answer_peer(&token, request));
        }
    }
    assert_eq!(names(&two.there, &copy), names(&two.here, &two.source));
    // Nor any container that is not a copy of its own.
    two.there.import_image(&Caller::default(), "tiny", &mut &tiny_image()[..]).unwrap();
    let p = project(&two.there, "own");
    let own = container(&two.there, &p, "own").unwrap();
    for request in words(&own, &OperationId::generate()) {
        refused(&two.there, Code::ContainerNotFound, || two.there.answer_peer(&token, request));
    }
}

#[test]
fn a_hand_over_is_not_overwritten() {
    let two = Two::new();
    let request = MoveRequest { target_server_id: Some(two.b.server.id.to_string()), ..Default::default() };
    let moved = two.here.move_container(&Caller::default(), &two.source, &request).unwrap();
    let copy = &moved.target_container_id;
    settled(&two.there);
    let token = token_of(&two.there, &two.here);
    let this = &moved.operation_id;
    // Another move does not take it over or call it off.
    for request in words(copy, &OperationId::generate()) {
        refused(&two.there, Code::HandoverRefused, || two.there.answer_peer(&token, request));
    }
    // Nor does the same one, once it was taken.
    let call_off = Request::HandOver { copy: copy.clone(), handover: this.clone(), start: false, identity: None };
    let advance = Request::Advance { copy: copy.clone(), snapshot: "first".parse().unwrap(), handover: this.clone() };
    for request in [call_off.clone(), advance.clone(), Request::Discard { copy: copy.clone(), handover: this.clone() }] {
        refused(&two.there, Code::HandoverTaken, || two.there.answer_peer(&token, request));
    }
    two.there.lifecycle(&Caller::default(), copy, hoody_state::model::Verb::Stop, None).unwrap();
    for request in [call_off, advance, Request::Discard { copy: copy.clone(), handover: this.clone() }] {
        refused(&two.there, Code::HandoverTaken, || two.there.answer_peer(&token, request));
    }
    assert_eq!(two.b.read(copy, "state").as_deref(), Some("three"));
}

#[test]
fn a_move_that_was_called_off_is_never_taken_over() {
    let two = Two::new();
    // The source calls it off: the target cannot be told to start.
    two.b.runtime.fail_next_start();
    let request = MoveRequest { target_server_id: Some(two.b.server.id.to_string()), ..Default::default() };
    two.net.set_fault(|_, what| (what == "discard").then_some(Fault::Unreachable));
    two.here.move_container(&Caller::default(), &two.source, &request).unwrap_err();
    settled(&two.there);
    let page = hoody_state::model::PageRequest::first();
    let copy = two.there.containers(&page, None, None).unwrap().rows[0].id.clone();
    let this = two.here.operations(&page).unwrap().rows.iter().find(|o| o.kind == "container.move").unwrap().id.clone();
    let token = token_of(&two.there, &two.here);
    let start = Request::HandOver { copy: copy.clone(), handover: this.clone(), start: true, identity: None };
    let e = two.there.answer_peer(&token, start).unwrap_err();
    assert!([Code::HandoverRefused, Code::OperationStateConflict].contains(&e.code()), "{e}");
    let advance = Request::Advance { copy: copy.clone(), snapshot: "first".parse().unwrap(), handover: this.clone() };
    refused(&two.there, Code::HandoverRefused, || two.there.answer_peer(&token, advance));
    // That move may still take its copy away; what was taken for it is gone here.
    two.there.answer_peer(&token, Request::Discard { copy: copy.clone(), handover: this }).unwrap();
    settled(&two.there);
    assert!(two.there.container(&copy).unwrap_err().is_not_found());
    assert_eq!(names(&two.here, &two.source).len(), 2, "the snapshots that were taken for the move");
    assert_clean(&two.here, "after a move that was called off");
}

#[test]
fn a_server_reads_the_containers_of_which_it_has_copies_and_no_others() {
    let two = Two::new();
    let p = two.here.container(&two.source).unwrap().project_id;
    let private = container(&two.here, &p, "private").unwrap();
    let token = token_of(&two.here, &two.there);
    for id in [&private, &two.source] {
        for request in reads(id, &ContainerId::generate()) {
            refused(&two.here, Code::ContainerNotFound, || two.here.answer_peer(&token, request));
        }
        refused(&two.here, Code::ContainerNotFound, || two.here.offer_stream(&token, &stream(id, id)).map(drop));
    }
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    // The copy is a key to its source alone.
    for request in reads(&private, &copy) {
        refused(&two.here, Code::ContainerNotFound, || two.here.answer_peer(&token, request));
    }
    assert!(matches!(two.here.answer_peer(&token, reads(&two.source, &copy)[0].clone()).unwrap(), Answer::Inventory { .. }));
    // Forgetting the peer ends it.
    two.here.remove_peer("b").unwrap();
    let before = picture(&two.here);
    assert_eq!(two.here.answer_peer(&token, reads(&two.source, &copy)[0].clone()).unwrap_err().code(), Code::UnknownServer);
    assert_eq!(two.here.offer_stream(&token, &stream(&two.source, &copy)).map(drop).unwrap_err().code(), Code::UnknownServer);
    assert_eq!(picture(&two.here), before);
}

#[test]
fn a_token_reaches_the_projects_that_it_lists() {
    let two = Two::new();
    let (p, q) = (project(&two.there, "open"), project(&two.there, "closed"));
    two.there.revoke_token("for a").unwrap();
    let (token, secret) = two.there.create_peer_token("listed", Some(vec![p.clone()]), &two.a.server.id).unwrap();
    two.here.add_peer(&Caller::default(), NewPeer { url: B.into(), token: secret, ..Default::default() }).unwrap();
    let to = |project: &str| order(&ContainerId::generate(), &two.a.server.id, &two.source, project);
    for project in [q.to_string(), "65f0c0ffee000000000000aa".into()] {
        refused(&two.there, Code::InsufficientPermissions, || two.there.answer_peer(&token, to(&project)));
    }
    let before = picture(&two.here);
    let request = |project: &str| hoody_state::model::CopyRequest { target_project_id: Some(project.into()), ..two.request() };
    let e = two.here.copy_container(&Caller::default(), &two.source, request(q.as_str())).unwrap_err();
    assert!(e.code() == Code::PeerRefused && e.message().contains("does not reach project"), "{e}");
    assert_eq!(picture(&two.here), before, "a refused copy leaves nothing at its source");
    let copy = two.copy(request(p.as_str()));
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
}

/// A pool of the version before: tokens belong to nobody, and of the copies elsewhere the source is not known.
#[test]
fn tokens_and_copies_of_the_version_before_are_bound_by_their_next_use() {
    let two = Two::new();
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    for world in [&two.a, &two.b] {
        let catalog = rusqlite::Connection::open(world.catalog_file()).unwrap();
        catalog.execute_batch("UPDATE tokens SET peer_server_id = NULL; UPDATE copies_elsewhere SET source_id = NULL").unwrap();
    }
    two.a.write(&two.source, "state", "four");
    let synced = two.there.sync_container(&Caller::default(), &copy, &SyncRequest::default()).unwrap();
    assert_eq!((synced.changed, two.b.read(&copy, "state").as_deref()), (Some(true), Some("four")));
    let token = token_of(&two.here, &two.there);
    let p = two.here.container(&two.source).unwrap().project_id;
    let private = container(&two.here, &p, "private").unwrap();
    for request in reads(&private, &copy) {
        refused(&two.here, Code::ContainerNotFound, || two.here.answer_peer(&token, request));
    }
    // The other way round it is bound by an order.
    let request = MoveRequest { target_server_id: Some(two.b.server.id.to_string()), ..Default::default() };
    two.here.move_container(&Caller::default(), &two.source, &request).unwrap();
    token_of(&two.there, &two.here);
    let _ = A;
}
