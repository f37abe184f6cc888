use super::{A, B, Two, idle, names, settled, sync_when_free};
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::host::IdempotencyKey;
use hoody_state::model::{CopyRequest, NewContainer, NewPeer, NewSnapshot, Rights, Status, SyncRequest};
use hoody_state::runtime::Network;
use hoody_state::snapshot::Transferable as _;
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::transfer::memory::Fault;
use hoody_state_workspace::{MemoryWorld, assert_clean, snapshot};
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_copy_on_a_peer_has_everything_and_boots() {
    let two = Two::new();
    let copy = two.here.copy_container(&Caller::default(), &two.source, two.request()).unwrap();
    assert_eq!((copy.source_container_id.as_ref(), copy.server_id.clone()), (Some(&two.source), two.b.server.id.clone()));
    let there = idle(&two.there, &copy.id);
    assert_eq!((there.status, there.project_alias.as_str()), (Status::Running, two.here.container(&two.source).unwrap().project_alias.as_str()));
    assert_eq!(two.b.read(&copy.id, "state").as_deref(), Some("three"));
    assert_eq!(names(&two.there, &copy.id), names(&two.here, &two.source));
    for s in two.here.snapshots(&two.source).unwrap().snapshots {
        let theirs = two.there.snapshot(&copy.id, s.name.as_str()).unwrap().snapshot;
        assert_eq!((theirs.created_at, theirs.parent, theirs.size), (s.created_at, s.parent, s.size));
        let (a, b) = (Volume::Snapshot(two.source.clone(), s.name.clone()), Volume::Snapshot(copy.id.clone(), s.name));
        assert_eq!(two.a.store.content(&a).unwrap(), two.b.store.content(&b).unwrap());
        assert_eq!(two.a.store.identity(&a).unwrap(), two.b.store.identity(&b).unwrap());
    }
    // Whoever asks where it was ordered is told how it is.
    assert_eq!(two.here.container_elsewhere(&copy.id).unwrap().unwrap().status, Status::Running);
    assert!(two.here.container_elsewhere(&two.source).unwrap().is_none());
    assert_clean(&two.here, "the source");
    assert_clean(&two.there, "the target");
}

#[test]
fn a_sync_from_a_peer_sends_what_changed_and_nothing_when_nothing_did() {
    let two = Two::new();
    let me = Caller::default();
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    let streams = std::sync::Arc::new(AtomicU64::new(0));
    let counted = streams.clone();
    two.net.set_fault(move |_, what| {
        counted.fetch_add(u64::from(what == "stream"), Ordering::SeqCst);
        None
    });
    let nothing = two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!((nothing.changed, streams.load(Ordering::SeqCst)), (Some(false), 0));
    two.a.write(&two.source, "state", "four");
    let synced = two.there.sync_container(&me, &copy, &SyncRequest { force: Some(false), ..Default::default() }).unwrap();
    assert_eq!((synced.changed, synced.status, streams.load(Ordering::SeqCst)), (Some(true), Status::Running, 1));
    assert_eq!(two.b.read(&copy, "state").as_deref(), Some("four"));
    let op = two.there.operation(&synced.operation_id).unwrap();
    assert_eq!(op.kind, "container.sync");
    // The base is found by what it is, not by its name.
    two.b.write(&copy, "own", "mine");
    two.a.write(&two.source, "state", "five");
    snapshot(&two.here, &two.source, "by-hand").unwrap();
    let synced = two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert!(synced.kept.is_some());
    assert_eq!((two.b.read(&copy, "state").as_deref(), two.b.read(&copy, "own")), (Some("five"), None));
    // All that both had is deleted at the source: the next one is a whole one.
    for s in names(&two.here, &two.source) {
        two.here.delete_snapshot(&me, &two.source, &s).unwrap();
    }
    two.a.write(&two.source, "state", "six");
    two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!(two.b.read(&copy, "state").as_deref(), Some("six"));
    assert_clean(&two.here, "the source");
    assert_clean(&two.there, "the target");
}

#[test]
fn a_lost_answer_and_the_same_key_make_one_copy() {
    let two = Two::new();
    let key = IdempotencyKey { scope: "t".into(), key: "k".into(), fingerprint: [1; 32] };
    let me = Caller { idempotency: Some(key), ..Caller::default() };
    let request = || CopyRequest { source_snapshot: Some("first".into()), ..two.request() };
    two.net.set_fault(|url, what| (url == B && what == "copy").then_some(Fault::AnswerLost));
    let e = two.here.copy_container(&me, &two.source, request()).unwrap_err();
    assert_eq!(e.code(), Code::PeerUnreachable);
    two.net.set_fault(|_, _| None);
    let copy = two.here.copy_container(&me, &two.source, request()).unwrap();
    let all = two.there.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap();
    assert_eq!(all.rows.len(), 1);
    assert_eq!(all.rows[0].id, copy.id);
    assert_eq!(two.here.copy_container(&me, &two.source, request()).unwrap().id, copy.id);
}

#[test]
fn a_copy_continues_after_cuts_and_damage_and_skips_what_has_arrived() {
    let two = Two::new();
    let mut n = 0;
    two.net.set_fault(move |_, what| {
        if what != "stream" {
            return None;
        }
        n += 1;
        match n {
            1 => Some(Fault::Cut(0)),
            2 => Some(Fault::Cut(40)),
            3 => Some(Fault::Damage(30)),
            5 => Some(Fault::Unreachable),
            _ => None,
        }
    });
    let copy = two.copy(two.request());
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
    assert_eq!(names(&two.there, &copy), names(&two.here, &two.source));
    assert_clean(&two.there, "after cuts");
}

#[test]
fn a_copy_that_cannot_continue_fails_and_a_sync_finishes_it() {
    let two = Two::new();
    let mut whole = 0;
    two.net.set_fault(move |_, what| {
        whole += u32::from(what == "stream");
        (what == "stream" && whole > 1).then_some(Fault::Cut(10))
    });
    let copy = two.copy(two.request());
    let c = idle(&two.there, &copy);
    assert_eq!((c.status, c.snapshot_count), (Status::Failed, 1));
    assert!(c.status_message.unwrap().contains("sync goes on"));
    assert_clean(&two.there, "an unfinished copy");
    let me = Caller::default();
    for e in [
        two.there.lifecycle(&me, &copy, hoody_state::model::Verb::Start, None).map(drop),
        two.there.create_snapshot(&me, &copy, NewSnapshot::default()).map(drop),
        two.there.restore(&me, &copy, "first", Default::default()).map(drop),
        two.there.copy_container(&me, &copy, two.request()).map(drop),
    ] {
        assert_eq!(e.unwrap_err().code(), Code::OperationStateConflict);
    }
    two.net.set_fault(|_, _| None);
    two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
    assert_eq!(names(&two.there, &copy), names(&two.here, &two.source));
    assert_eq!(two.b.read(&copy, "state").as_deref(), Some("three"));
    assert_clean(&two.there, "a finished copy");
}

#[test]
fn a_full_target_keeps_nothing_incomplete_and_reports_it() {
    let two = Two::new();
    two.there.project(&two.here.container(&two.source).unwrap().project_id).unwrap_err();
    two.b.store.set_capacity(hoody_state::units::Bytes(10_000));
    let copy = two.here.copy_container(&Caller::default(), &two.source, two.request());
    match copy {
        Err(e) => assert_eq!(e.kind(), hoody_state::Kind::NoSpace, "{e}"),
        Ok(c) => {
            let c = idle(&two.there, &c.id);
            assert_eq!((c.status, c.snapshot_count), (Status::Failed, 0));
            two.there.delete_container(&Caller::default(), &c.id).unwrap();
        }
    }
    settled(&two.there);
    assert_clean(&two.there, "a full target");
    assert_clean(&two.here, "the source of a full target");
}

#[test]
fn a_copy_can_be_cancelled_and_leaves_nothing() {
    let two = Two::new();
    let request = CopyRequest { rate_limit: Some(hoody_state::units::Bytes(20)), ..two.request() };
    let copy = two.copy(request);
    let op = two.there.container(&copy).unwrap().operation_id.unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while two.there.operation(&op).unwrap().sent.unwrap_or(0) == 0 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let o = two.there.operation(&op).unwrap();
    assert!(o.total.unwrap() > 20_000 && o.total_is_estimate == Some(true), "{o:?}");
    two.there.cancel_operation(&op).unwrap();
    settled(&two.there);
    assert!(two.there.container(&copy).unwrap_err().is_not_found());
    assert!(two.b.store.list(None).unwrap().is_empty());
    assert_clean(&two.there, "a cancelled copy");
}

#[test]
fn a_peer_is_known_by_what_it_says_of_itself() {
    let two = Two::new();
    let peers = two.here.peers().unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].name.as_str(), &peers[0].server_id), ("b", &two.b.server.id));
    assert_eq!(two.here.servers().unwrap().len(), 2);
    let me = Caller::default();
    let add = |url: &str, token: &str| two.here.add_peer(&me, NewPeer { url: url.into(), token: token.into(), ..Default::default() }).unwrap_err().code();
    let own = two.here.create_token("own", None, Rights::Replication).unwrap().1;
    assert_eq!(add(A, &own), Code::PeerIsSelf);
    assert_eq!(add("https://nobody", &own), Code::PeerUnreachable);
    assert_eq!(add(B, &own), Code::PeerRefused);
    assert_eq!(add("http://10.0.0.1", &own), Code::ValidationError);
    assert_eq!(add(B, "x"), Code::ValidationError);
    let full = two.there.create_token("full", None, Rights::Full).unwrap().1;
    assert_eq!(add(B, &full), Code::PeerRefused, "a token for people is none for servers");
    // Known anew: another name, still one entry.
    let token = two.there.create_peer_token("again", None, &two.a.server.id).unwrap().1;
    let again = two.here.add_peer(&me, NewPeer { name: Some("bee".into()), url: B.into(), token: token.clone(), ca: None }).unwrap();
    // Who claims to be a server that is known does not take its place by that alone.
    two.net.add("https://elsewhere", two.there.clone());
    let claim = NewPeer { name: Some("other".into()), url: "https://elsewhere".into(), token, ca: None };
    assert_eq!(two.here.add_peer(&me, claim).unwrap_err().code(), Code::PeerNameInUse);
    assert_eq!((again.name.as_str(), two.here.peers().unwrap().len()), ("bee", 1));
    two.here.remove_peer("bee").unwrap();
    assert_eq!(two.here.remove_peer("bee").unwrap_err().code(), Code::PeerNotFound);
    assert_eq!(two.here.copy_container(&me, &two.source, two.request()).unwrap_err().code(), Code::UnknownServer);
}

#[test]
fn a_target_that_does_not_know_the_source_refuses() {
    let two = Two::new();
    two.there.remove_peer(two.a.server.id.as_str()).unwrap();
    let e = two.here.copy_container(&Caller::default(), &two.source, two.request()).unwrap_err();
    assert_eq!(e.code(), Code::UnknownServer);
    assert!(two.b.store.list(None).unwrap().is_empty());
    let _ = MemoryWorld::default();
}

#[test]
fn what_a_running_copy_writes_while_a_sync_is_under_way_is_kept() {
    let two = Two::new();
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    let (store, id) = (two.b.store.clone(), copy.clone());
    // Written between the first look and the exchange.
    let write = move |_: &str, what: &str| {
        if what == "stream" {
            store.write(&Volume::Live(id.clone()), "own", b"late").unwrap();
        }
        None
    };
    two.net.set_fault(write.clone());
    two.a.write(&two.source, "state", "four");
    let me = Caller::default();
    let e = sync_when_free(&two.there, &copy, &SyncRequest { force: Some(false), ..Default::default() }).unwrap_err();
    assert_eq!(e.code(), Code::CopyHasChanges);
    assert_eq!(two.there.container(&copy).unwrap().status, Status::Running);
    assert_eq!(two.b.read(&copy, "own").as_deref(), Some("late"), "left alone");
    assert_clean(&two.there, "a sync that was refused late");
    two.b.store.remove(&Volume::Live(copy.clone()), "own").unwrap();
    two.a.write(&two.source, "state", "five");
    let synced = two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    let kept = synced.kept.expect("it was changed meanwhile");
    assert_eq!(two.b.store.read(&Volume::Snapshot(copy.clone(), kept), "own").unwrap().as_deref(), Some(&b"late"[..]));
    assert_eq!((two.b.read(&copy, "state").as_deref(), two.b.read(&copy, "own")), (Some("five"), None));
}

#[test]
fn a_base_deleted_at_the_source_costs_a_larger_stream_and_no_snapshot() {
    let two = Two::new();
    let (here, source, mut n) = (two.here.clone(), two.source.clone(), 0);
    two.net.set_fault(move |_, what| {
        n += u32::from(what == "stream");
        if n == 2 {
            n += 1;
            here.delete_snapshot(&Caller::default(), &source, "first").unwrap();
        }
        None
    });
    let copy = two.copy(two.request());
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
    let mine = names(&two.there, &copy);
    assert!(mine.contains(&"second".to_owned()) && mine.len() == 3, "{mine:?}");
    assert_clean(&two.there, "a base that went");
}

#[test]
fn an_increment_that_cannot_be_applied_is_replaced_by_the_whole_snapshot() {
    let two = Two::new();
    two.b.store.refuse_increments();
    let copy = two.copy(two.request());
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
    assert_eq!(names(&two.there, &copy), names(&two.here, &two.source));
    two.a.write(&two.source, "state", "four");
    let synced = sync_when_free(&two.there, &copy, &SyncRequest::default()).unwrap();
    assert_eq!((synced.changed, two.b.read(&copy, "state").as_deref()), (Some(true), Some("four")));
    assert_clean(&two.there, "after whole snapshots");
}

#[test]
fn a_cancelled_sync_of_an_unfinished_copy_keeps_what_is_there() {
    let two = Two::new();
    let mut whole = 0;
    two.net.set_fault(move |_, what| {
        whole += u32::from(what == "stream");
        (what == "stream" && whole > 1).then_some(Fault::Cut(10))
    });
    let copy = two.copy(two.request());
    assert_eq!(idle(&two.there, &copy).status, Status::Failed);
    two.net.set_fault(|_, _| None);
    let me = Caller { wait: std::time::Duration::ZERO, ..Caller::default() };
    let slow = SyncRequest { rate_limit: Some(hoody_state::units::Bytes(5)), ..Default::default() };
    let op = two.there.sync_container(&me, &copy, &slow).unwrap().operation_id;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while two.there.operation(&op).unwrap().sent.unwrap_or(0) == 0 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    two.there.cancel_operation(&op).unwrap();
    settled(&two.there);
    assert_eq!(two.there.container(&copy).unwrap().snapshot_count, 1);
    sync_when_free(&two.there, &copy, &SyncRequest::default()).unwrap();
    assert_eq!(idle(&two.there, &copy).status, Status::Running);
    assert_clean(&two.there, "a copy that was finished after all");
}

#[test]
fn a_server_refuses_containers_with_the_hosts_network_from_another() {
    let two = Two::new();
    let me = Caller::default();
    let project = two.here.container(&two.source).unwrap().project_id;
    let new = NewContainer { name: Some("open".into()), network: Some(Network::Host), ..Default::default() };
    let open = idle(&two.here, &two.here.create_container(&me, &project, new).unwrap().id);
    let e = two.here.copy_container(&me, &open.id, two.request()).unwrap_err();
    assert_eq!(e.code(), Code::HostNetworkDenied, "{}", e.message());
    assert_clean(&two.there, "the target");
}
