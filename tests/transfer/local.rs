use super::{eventually, idle, names};
use hoody_state::Code;
use hoody_state::host::IdempotencyKey;
use hoody_state::model::{CopyRequest, ForkRequest, Status, SyncRequest, Verb};
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, project, snapshot};

fn staged() -> (MemoryWorld, Host, hoody_state::id::ContainerId) {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    w.write(&c, "state", "one");
    snapshot(&host, &c, "first").unwrap();
    w.write(&c, "state", "two");
    snapshot(&host, &c, "second").unwrap();
    w.write(&c, "state", "three");
    (w, host, c)
}

fn to(host: &Host, c: &hoody_state::id::ContainerId, name: &str) -> CopyRequest {
    CopyRequest { target_project_id: Some(host.container(c).unwrap().project_id.to_string()), name: Some(name.into()), ..Default::default() }
}

/// Waits for what the upkeep does behind.
#[test]
fn a_copy_is_the_live_state_with_all_snapshots() {
    let (w, host, c) = staged();
    let me = Caller::default();
    let copy = host.copy_container(&me, &c, to(&host, &c, "copy")).unwrap();
    assert_eq!((copy.status, copy.source_container_id.as_ref()), (Status::Running, Some(&c)));
    assert_eq!(w.read(&copy.id, "state").as_deref(), Some("three"));
    let mine = names(&host, &c);
    assert_eq!(names(&host, &copy.id), mine, "all of them, and the one it began from");
    assert_eq!(mine.len(), 3);
    let detail = host.container_detail(&copy.id).unwrap();
    assert_eq!(detail.lineage.source_container_id, Some(c.clone()));
    assert_eq!(detail.lineage.snapshot.unwrap().as_str(), mine[2]);
    host.restore(&me, &copy.id, "first", Default::default()).unwrap();
    assert_eq!(w.read(&copy.id, "state").as_deref(), Some("one"));
    assert_eq!(w.read(&c, "state").as_deref(), Some("three"), "the source is as it was");
    assert_clean(&host, "a copy");
}

#[test]
fn a_copy_of_a_snapshot_is_that_state_in_any_project() {
    let (w, host, c) = staged();
    let other = project(&host, "other");
    let request = CopyRequest { source_snapshot: Some("first".into()), target_project_id: Some(other.to_string()), start: Some(false), ..Default::default() };
    let copy = host.copy_container(&Caller::default(), &c, request).unwrap();
    assert_eq!((copy.status, &copy.project_id), (Status::Stopped, &other));
    assert_eq!(w.read(&copy.id, "state").as_deref(), Some("one"));
    assert_eq!(names(&host, &c), ["first", "second"], "no snapshot was taken for it");
    host.delete_container(&Caller::default(), &c).unwrap();
    super::settled(&host);
    assert_eq!(w.read(&copy.id, "state").as_deref(), Some("one"), "it needs its source no more");
    assert_clean(&host, "after the source went");
}

#[test]
fn a_copy_that_cannot_be_made_is_refused_and_leaves_nothing() {
    let (w, host, c) = staged();
    let volumes = w.store.list(None).unwrap();
    let code = |r: CopyRequest| host.copy_container(&Caller::default(), &c, r).unwrap_err().code();
    let good = || CopyRequest { source_snapshot: Some("first".into()), ..to(&host, &c, "copy") };
    assert_eq!(code(CopyRequest { target_project_id: None, ..good() }), Code::ValidationError);
    assert_eq!(code(CopyRequest { target_project_id: Some("65f0c0ffee00000000000001".into()), ..good() }), Code::ProjectNotFound);
    assert_eq!(code(CopyRequest { target_project_id: Some("x".into()), ..good() }), Code::InvalidIdFormat);
    assert_eq!(code(CopyRequest { target_server_id: Some("65f0c0ffee00000000000001".into()), ..good() }), Code::UnknownServer);
    assert_eq!(code(CopyRequest { source_snapshot: Some("none".into()), ..good() }), Code::SnapshotNotFound);
    assert_eq!(code(CopyRequest { name: Some("agent".into()), ..good() }), Code::ContainerNameInUse);
    assert_eq!(code(CopyRequest { name: Some("a/b".into()), ..good() }), Code::InvalidContainerName);
    let none = "65f0c0ffee00000000000001".parse().unwrap();
    assert_eq!(host.copy_container(&Caller::default(), &none, good()).unwrap_err().code(), Code::SourceContainerNotFound);
    let e = host.sync_container(&Caller::default(), &c, &SyncRequest::default()).unwrap_err();
    assert_eq!(e.code(), Code::NotACopy);
    super::settled(&host);
    assert_eq!(w.store.list(None).unwrap(), volumes);
    assert_clean(&host, "nothing was made");
}

#[test]
fn the_same_key_makes_one_copy() {
    let (_w, host, c) = staged();
    let key = IdempotencyKey { scope: "t".into(), key: "k".into(), fingerprint: [1; 32] };
    let me = Caller { idempotency: Some(key), ..Caller::default() };
    let request = || CopyRequest { source_snapshot: Some("first".into()), ..to(&host, &c, "copy") };
    let one = host.copy_container(&me, &c, request()).unwrap();
    let two = host.copy_container(&me, &c, request()).unwrap();
    assert_eq!(one.id, two.id);
}

#[test]
fn each_fork_has_its_own_result() {
    let (w, host, c) = staged();
    let p = host.container(&c).unwrap().project_id;
    container(&host, &p, "try-3").unwrap();
    let request = ForkRequest { count: Some(5), name_prefix: Some("try".into()), source_snapshot: Some("second".into()), ..ForkRequest::default() };
    let forked = host.fork_container(&Caller::default(), &c, &request).unwrap();
    assert_eq!(forked.results.len(), 5);
    for (i, r) in forked.results.iter().enumerate() {
        assert_eq!(r.name, format!("try-{}", i + 1));
        if i == 2 {
            assert_eq!(r.error.as_ref().unwrap().code, "container_name_in_use");
            continue;
        }
        let id = &r.container.as_ref().unwrap().id;
        assert_eq!(idle(&host, id).status, Status::Running);
        assert_eq!(w.read(id, "state").as_deref(), Some("two"));
        assert_eq!(names(&host, id), ["first", "second"]);
    }
    assert_clean(&host, "forks");
    for count in [None, Some(0), Some(101)] {
        assert_eq!(host.fork_container(&Caller::default(), &c, &ForkRequest { count, ..request.clone() }).unwrap_err().code(), Code::ValidationError);
    }
}

#[test]
fn a_sync_sends_what_changed_and_keeps_what_the_copy_changed() {
    let (w, host, c) = staged();
    let me = Caller::default();
    let copy = host.copy_container(&me, &c, to(&host, &c, "copy")).unwrap().id;
    let nothing = host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!((nothing.changed, nothing.status, &nothing.kept), (Some(false), Status::Running, &None));
    assert_eq!(names(&host, &c).len(), 3, "nothing is left of the look");

    w.write(&c, "state", "four");
    let synced = host.sync_container(&me, &copy, &SyncRequest { force: Some(false), ..Default::default() }).unwrap();
    assert_eq!((synced.changed, &synced.kept), (Some(true), &None));
    assert_eq!(w.read(&copy, "state").as_deref(), Some("four"));

    w.write(&copy, "own", "mine");
    w.write(&c, "state", "five");
    let e = host.sync_container(&me, &copy, &SyncRequest { force: Some(false), ..Default::default() }).unwrap_err();
    assert_eq!(e.code(), Code::CopyHasChanges);
    assert_eq!(w.read(&copy, "own").as_deref(), Some("mine"), "left alone");
    let synced = host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    let kept = synced.kept.unwrap();
    assert_eq!((w.read(&copy, "state").as_deref(), w.read(&copy, "own")), (Some("five"), None));
    assert_eq!(w.store.read(&Volume::Snapshot(copy.clone(), kept), "own").unwrap().as_deref(), Some(&b"mine"[..]));
    // The source has what it had and the newest that both have; earlier ones are gone.
    eventually(|| names(&host, &c).len() <= 5);
    // With nothing new at the source what the copy changed is taken back all the same.
    w.write(&copy, "own", "again");
    let back = host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!((back.changed, back.kept.is_some(), w.read(&copy, "own")), (Some(false), true, None));
    host.lifecycle(&me, &copy, Verb::Stop, None).unwrap();
    w.write(&c, "state", "six");
    let stopped = host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    assert_eq!((stopped.status, w.read(&copy, "state").as_deref()), (Status::Stopped, Some("six")));
    for _ in 0..5 {
        w.write(&c, "state", "more");
        host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    }
    eventually(|| names(&host, &c).len() <= 5 && names(&host, &copy).len() <= 8);
    assert_clean(&host, "syncs");
    host.delete_container(&me, &c).unwrap();
    super::settled(&host);
    assert_eq!(host.sync_container(&me, &copy, &SyncRequest::default()).unwrap_err().code(), Code::SourceContainerNotFound);
}

#[test]
fn a_copy_whose_base_was_deleted_can_still_be_synced() {
    let (w, host, c) = staged();
    let me = Caller::default();
    let copy = host.copy_container(&me, &c, to(&host, &c, "copy")).unwrap().id;
    let base = names(&host, &copy).pop().unwrap();
    host.delete_snapshot(&me, &copy, &base).unwrap();
    for _ in 0..2 {
        host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
        assert_eq!(host.container(&copy).unwrap().status, Status::Running);
        assert_eq!(w.read(&copy, "state").as_deref(), Some("three"));
    }
    assert_clean(&host, "a deleted base");
}

#[test]
fn the_base_of_a_copy_does_not_expire_with_that_of_its_source() {
    let (_w, host, c) = staged();
    let copy = host.copy_container(&Caller::default(), &c, to(&host, &c, "copy")).unwrap().id;
    let base = names(&host, &copy).pop().unwrap();
    let expires = |c| host.snapshot(c, &base).unwrap().snapshot.expires_at;
    assert!(expires(&c).is_some() && expires(&copy).is_none());
}

#[test]
fn a_restored_state_counts_as_a_change_of_the_copy_after_its_snapshot_is_deleted() {
    let (w, host, c) = staged();
    let me = Caller::default();
    let copy = host.copy_container(&me, &c, to(&host, &c, "copy")).unwrap().id;
    host.lifecycle(&me, &copy, Verb::Stop, None).unwrap();
    w.write(&copy, "own", "mine");
    snapshot(&host, &copy, "z").unwrap();
    host.restore(&me, &copy, "z", Default::default()).unwrap();
    host.delete_snapshot(&me, &copy, "z").unwrap();
    let synced = host.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    let kept = synced.kept.expect("it differs from the source");
    assert_eq!(w.store.read(&Volume::Snapshot(copy, kept), "own").unwrap().as_deref(), Some(&b"mine"[..]));
}

/// The server ends between the clone and its answer: the key is answered by whoever finishes the copy.
#[test]
fn an_idempotency_key_has_its_answer_after_recovery_finished_the_copy() {
    for n in 1..=9 {
        let (w, host, c) = staged();
        let me = Caller { idempotency: Some(IdempotencyKey { scope: "t".into(), key: "k".into(), fingerprint: [1; 32] }), ..Caller::default() };
        let request = || CopyRequest { source_snapshot: Some("first".into()), ..to(&host, &c, "copy") };
        let asked = request();
        w.crash_at(n);
        let _ = host.copy_container(&me, &c, asked);
        let again = request();
        drop(host);
        w.crash_at(0);
        let host = w.host();
        super::settled(&host);
        let made = host.copy_container(&me, &c, again).unwrap();
        assert_eq!(idle(&host, &made.id).status, Status::Running, "step {n}");
        let all = host.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows;
        assert_eq!(all.len(), 2, "step {n}");
    }
}
