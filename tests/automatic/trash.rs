//! Deleted containers in the trash.

use crate::{crash_at_each_step, eventually, policy, settle, stage};
use hoody_state::id::ContainerId;
use hoody_state::model::{DeleteOptions, NewContainer, NewSnapshot, PageRequest, RecoverRequest, Status, TimelineRequest, TrashedContainer, Verb};
use hoody_state::snapshot::SnapshotStore;
use hoody_state::{Caller, Code, Host};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, project, snapshot};
use std::time::Duration;

const KEEPS: &str = r#"{"before_delete":{"max_age":"7d"}}"#;

fn all() -> TimelineRequest {
    TimelineRequest { limit: 100, ..TimelineRequest::default() }
}

fn trash(host: &Host) -> Vec<TrashedContainer> {
    host.trash(&PageRequest::first(), None).unwrap().containers
}

fn delete(host: &Host, c: &ContainerId) {
    host.delete_container(&Caller::default(), c).unwrap();
    settle(host);
}

fn recover(host: &Host, c: &ContainerId) -> hoody_state::Result<hoody_state::model::Recovered> {
    host.recover_trashed(&Caller::default(), c, RecoverRequest::default())
}

/// All of a recovered container is what it was.
fn is_back(w: &MemoryWorld, host: &Host, c: &ContainerId) {
    assert_eq!(host.container(c).unwrap().status, Status::Stopped);
    assert_eq!(w.read(c, "etc/passwd").as_deref(), Some("changed"), "its disk is as it was");
    let before = host.snapshot(c, "before").unwrap().snapshot;
    let content = w.store.read(&hoody_state::snapshot::Volume::Snapshot(c.clone(), before.name), "etc/passwd").unwrap();
    assert_eq!(content.as_deref(), Some(&b"root"[..]));
}

#[test]
fn a_deleted_container_is_gone_everywhere_and_comes_back_whole() {
    let (w, host, c) = stage(KEEPS);
    let p = host.container(&c).unwrap().project_id;
    let before = host.snapshots(&c).unwrap().snapshots;
    let timeline = host.container_timeline(&c, &all(), None).unwrap().nodes.len();
    delete(&host, &c);
    assert!(host.container(&c).is_err() && host.snapshots(&c).is_err());
    assert!(host.containers(&PageRequest::first(), None, None).unwrap().rows.is_empty());
    assert!(host.project_timeline(&p, &all(), None).unwrap().nodes.iter().all(|n| n.container_id.is_none()), "in no timeline");
    let there = trash(&host);
    assert_eq!((there.len(), there[0].id.clone(), there[0].snapshot_count), (1, c.clone(), 1));
    assert!((604_000..=604_800).contains(&there[0].expires_at.duration_since(there[0].deleted_at).as_secs()));
    let second = container(&host, &p, "agent").expect("its name is free at once");
    assert_clean(&host, "in the trash");
    let e = recover(&host, &c).unwrap_err();
    assert!(e.code() == Code::ContainerNameInUse && e.message().contains("`name`"), "{e}");
    assert_eq!(trash(&host).len(), 1, "a refused recovery changes nothing");
    let back = host.recover_trashed(&Caller::default(), &c, RecoverRequest { name: Some("back".into()), project_id: None }).unwrap();
    assert_eq!((back.container.id.clone(), back.container.name.to_string(), back.snapshot_count), (c.clone(), "back".to_owned(), 1));
    is_back(&w, &host, &c);
    assert_eq!(host.snapshots(&c).unwrap().snapshots, before);
    assert_eq!(host.container_timeline(&c, &all(), None).unwrap().nodes.len(), timeline);
    assert!(trash(&host).is_empty() && host.container(&second).is_ok());
    host.lifecycle(&Caller::default(), &c, Verb::Start, None).unwrap();
    snapshot(&host, &c, "afterwards").unwrap();
    assert_clean(&host, "recovered");
    assert!(host.status_logs(&c, &PageRequest::first()).unwrap().rows.len() > 3, "its log goes on");
    delete(&host, &c);
    recover(&host, &c).unwrap();
    assert_clean(&host, "recovered twice");
}

#[test]
fn without_a_policy_or_permanently_it_is_deleted_for_good() {
    for (on, options) in
        [("{}", DeleteOptions::default()), (r#"{"before_delete":false}"#, DeleteOptions::default()), (KEEPS, DeleteOptions { permanently: true })]
    {
        let (_w, host, c) = stage(on);
        host.delete_container_with(&Caller::default(), &c, options).unwrap();
        settle(&host);
        assert!(trash(&host).is_empty(), "{on} {options:?}");
        assert_eq!(recover(&host, &c).unwrap_err().code(), Code::TrashNotFound);
    }
}

#[test]
fn what_expires_in_the_trash_is_deleted_for_good() {
    let (w, host, c) = stage(r#"{"before_delete":{"max_age":"1s"}}"#);
    delete(&host, &c);
    assert_eq!(trash(&host).len(), 1);
    let next = host.expire_due().unwrap().expect("the upkeep knows when it is due");
    assert!(next <= Duration::from_secs(1), "{next:?}");
    eventually("the end of its time", || {
        host.expire_due().unwrap();
        trash(&host).is_empty()
    });
    settle(&host);
    eventually("the end of its volumes", || w.store.trash().unwrap().is_empty());
    assert_clean(&host, "expired");
    assert_eq!(recover(&host, &c).unwrap_err().code(), Code::TrashNotFound);
}

#[test]
fn only_so_many_of_a_project_are_kept() {
    let (w, host, c) = stage(r#"{"before_delete":{"max_age":"7d","keep":2}}"#);
    let p = host.container(&c).unwrap().project_id;
    let other = container(&host, &project(&host, "other"), "other").unwrap();
    policy(&w, &other, KEEPS);
    delete(&host, &other);
    delete(&host, &c);
    for name in ["second", "third"] {
        let next = container(&host, &p, name).unwrap();
        policy(&w, &next, r#"{"before_delete":{"max_age":"7d","keep":2}}"#);
        delete(&host, &next);
    }
    eventually("the end of the first", || {
        host.expire_due().unwrap();
        trash(&host).len() == 3
    });
    let mut names: Vec<String> = trash(&host).iter().map(|t| t.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["other", "second", "third"], "other projects do not count");
}

#[test]
fn a_deleted_projects_containers_come_back_into_another() {
    let (w, host, c) = stage(KEEPS);
    let p = host.container(&c).unwrap().project_id;
    let other = project(&host, "other");
    assert_eq!(host.delete_project(&Caller::default(), &p, false).unwrap().deleted.containers, 1);
    settle(&host);
    eventually("its place in the trash", || trash(&host).len() == 1);
    let e = recover(&host, &c).unwrap_err();
    assert!(e.code() == Code::ProjectNotFound && e.message().contains("project_id"), "{e}");
    let back = host.recover_trashed(&Caller::default(), &c, RecoverRequest { name: None, project_id: Some(other.clone()) }).unwrap();
    assert_eq!(back.container.project_id, other);
    assert!(back.not_recovered.iter().any(|l| l.contains("databases")), "{:?}", back.not_recovered);
    is_back(&w, &host, &c);
    assert!(host.project_timeline(&other, &all(), None).unwrap().nodes.iter().any(|n| n.container_id.as_ref() == Some(&c)));
    assert_clean(&host, "recovered into another project");
}

#[test]
fn the_time_in_the_trash_does_not_count_for_expiring_snapshots() {
    let (_w, host, c) = stage(KEEPS);
    let new = NewSnapshot { alias: Some("short".into()), expires_in: Some("2s".parse().unwrap()), ..NewSnapshot::default() };
    let expires = host.create_snapshot(&Caller::default(), &c, new).unwrap().snapshot.expires_at.unwrap();
    delete(&host, &c);
    std::thread::sleep(Duration::from_millis(500));
    recover(&host, &c).unwrap();
    let later = host.snapshot(&c, "short").unwrap().snapshot.expires_at.unwrap();
    assert!(later.duration_since(expires).as_millis() >= 500);
}

#[test]
fn a_full_pool_takes_the_oldest_of_the_trash_of_the_project_and_of_no_other() {
    let (w, host, c) = stage(KEEPS);
    let p = host.container(&c).unwrap().project_id;
    let other = container(&host, &project(&host, "other"), "other").unwrap();
    policy(&w, &other, KEEPS);
    delete(&host, &other);
    std::thread::sleep(Duration::from_millis(5));
    delete(&host, &c);
    std::thread::sleep(Duration::from_millis(5));
    let second = container(&host, &p, "second").unwrap();
    policy(&w, &second, KEEPS);
    delete(&host, &second);
    let third = container(&host, &p, "third").unwrap();
    w.store.set_capacity(hoody_state::units::Bytes(1));
    let in_trash = || trash(&host).iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    let inside = Caller { inside: true, ..Caller::default() };
    assert_eq!(host.create_snapshot(&inside, &third, NewSnapshot::default()).unwrap_err().code(), Code::PoolFull);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(in_trash(), [second.clone(), c.clone(), other.clone()], "a container's own socket costs nothing in the trash");
    for left in [vec![second.clone(), other.clone()], vec![other.clone()]] {
        assert_eq!(snapshot(&host, &third, "too much").unwrap_err().code(), Code::PoolFull);
        eventually("room", || in_trash() == left);
        settle(&host);
    }
    assert_eq!(snapshot(&host, &third, "too much").unwrap_err().code(), Code::PoolFull);
    let new = NewContainer { name: Some("fourth".into()), ..NewContainer::default() };
    assert_eq!(host.create_container(&Caller::default(), &p, new).unwrap_err().code(), Code::PoolFull);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(in_trash(), [other], "the trash of another project stays");
    assert_clean(&host, "after room was made");
}

fn is_in_trash_or_there(w: &MemoryWorld, h: &Host, c: &ContainerId, acknowledged: bool) {
    let there = trash(h).iter().any(|t| t.id == *c);
    assert!(there != h.container(c).is_ok(), "it is in one of the two places");
    assert!(!acknowledged || there, "an acknowledged deletion");
    if there {
        recover(h, c).unwrap();
        is_back(w, h, c);
    }
    snapshot(h, c, "afterwards").unwrap();
    assert_clean(h, "a deletion that was cut short, recovered");
}

#[test]
fn crashes_on_the_way_into_the_trash() {
    crash_at_each_step(
        "container.delete to the trash",
        KEEPS,
        |_, _, _| {},
        |_, h, c| {
            h.delete_container(&Caller::default(), c)?;
            settle(h);
            Ok(())
        },
        is_in_trash_or_there,
    );
}

#[test]
fn crashes_on_the_way_back() {
    crash_at_each_step(
        "trash.recover",
        KEEPS,
        |_, h, c| delete(h, c),
        |_, h, c| recover(h, c).map(drop),
        |w, h, c, acknowledged| {
            let there = trash(h).iter().any(|t| t.id == *c);
            assert!(there != h.container(c).is_ok(), "it is in one of the two places");
            assert!(!acknowledged || !there);
            if there {
                recover(h, c).unwrap();
            }
            is_back(w, h, c);
            assert_clean(h, "a recovery that was cut short");
        },
    );
}

#[test]
fn crashes_of_a_deletion_for_good() {
    crash_at_each_step(
        "trash.delete",
        KEEPS,
        |_, h, c| delete(h, c),
        |_, h, c| {
            h.delete_trashed(&Caller::default(), c)?;
            // It goes on in the background, where it has no step at first. One that has crashed has none any more.
            let begun = |h: &Host| h.operations(&PageRequest::first()).unwrap().rows.iter().all(|o| o.finished_at.is_some() || o.step.is_some());
            let end = std::time::Instant::now() + Duration::from_secs(2);
            while !begun(h) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            settle(h);
            Ok(())
        },
        |w, h, c, acknowledged| {
            let there = trash(h).iter().any(|t| t.id == *c);
            assert!(!acknowledged || !there);
            assert_eq!(there, !w.store.trash().unwrap().is_empty(), "its volumes are there as long as it can be recovered");
            if there {
                recover(h, c).unwrap();
                is_back(w, h, c);
            }
        },
    );
}

#[test]
fn what_fails_on_the_way_is_done_later() {
    for n in 1..12 {
        let (w, host, c) = stage(KEEPS);
        w.fail_at(n);
        let _ = host.delete_container(&Caller::default(), &c);
        eventually("the deletion", || trash(&host).len() == 1 || host.container(&c).is_ok_and(|c| c.status == Status::Running));
        w.crash_at(0);
        settle(&host);
        assert_clean(&host, &format!("a deletion, failed at step {n}"));
        if trash(&host).is_empty() {
            continue;
        }
        w.fail_at(n);
        let _ = recover(&host, &c);
        eventually("the recovery", || trash(&host).len() == 1 || host.container(&c).is_ok_and(|c| c.status == Status::Stopped));
        w.crash_at(0);
        settle(&host);
        assert_clean(&host, &format!("a recovery, failed at step {n}"));
    }
}
