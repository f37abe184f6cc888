//! Promote and reset on a host in memory: what they do, what they refuse, and a crash before each of their steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::host::IdempotencyKey;
use hoody_state::id::ContainerId;
use hoody_state::model::{
    ForkRequest, OperationStatus, PageRequest, Prefer, PromoteConflict, PromoteRequest, Promoted, ResetRequest, ResetTo, RestoreOptions, SideChange, Status,
    Verb,
};
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::{Caller, Code, Error, Host, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};
use std::time::Duration;

const BASE: [(&str, &str); 4] = [("etc/passwd", "root"), ("etc/hosts", "localhost"), ("etc/machine-id", "0123"), ("srv/app", "one")];

/// A running container and a running fork of it. Each has changed files since; they contradict each other nowhere.
fn stage(w: &MemoryWorld) -> (Host, ContainerId, ContainerId) {
    let host = w.host();
    let p = furnish(&host);
    let source = container(&host, &p, "agent").unwrap();
    BASE.iter().for_each(|(path, text)| w.write(&source, path, text));
    let fork = forked(&host, &source, 1)[0].clone();
    w.write(&source, "etc/passwd", "root and more");
    w.write(&source, "var/log", "of the source");
    w.write(&fork, "srv/app", "two");
    w.write(&fork, "srv/new", "made by the fork");
    w.write(&fork, "etc/machine-id", "4567");
    w.store.remove(&Volume::Live(fork.clone()), "etc/hosts").unwrap();
    (host, source, fork)
}

fn forked(host: &Host, source: &ContainerId, count: u32) -> Vec<ContainerId> {
    let prefix = format!("fork-{}", host.containers(&PageRequest::first(), None, None).unwrap().rows.len());
    let request = ForkRequest { count: Some(count), name_prefix: Some(prefix), ..Default::default() };
    let forked = host.fork_container(&Caller::default(), source, &request).unwrap();
    let forks = forked.results.iter().map(|r| r.container.as_ref().unwrap().id.clone()).collect();
    settle(host);
    forks
}

fn settle(host: &Host) {
    for _ in 0..200 {
        let open: Vec<_> = host.operations(&PageRequest::first()).unwrap().rows.into_iter().filter(|o| o.finished_at.is_none()).collect();
        let waiting: Vec<_> = open.iter().map(|o| host.wait_operation(&o.id, Duration::from_millis(50)).unwrap()).collect();
        if waiting.iter().all(|o| o.finished_at.is_some() || o.step.is_none()) {
            return;
        }
    }
}

fn files(w: &MemoryWorld, id: &ContainerId) -> Vec<(String, String)> {
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    w.store
        .content(&Volume::Live(id.clone()))
        .unwrap()
        .into_iter()
        .map(|(p, b)| (p, text(b)))
        .filter(|(p, _)| !p.starts_with("bin") && p != "sbin/init")
        .collect()
}

fn of(all: &[(String, String)], path: &str) -> Option<String> {
    all.iter().find(|(p, _)| p == path).map(|(_, t)| t.clone())
}

fn promote(host: &Host, fork: &ContainerId, prefer: Option<Prefer>) -> Result<Promoted> {
    let caller = Caller { wait: Duration::from_secs(25), ..Caller::default() };
    host.promote_container(&caller, fork, &PromoteRequest { into: None, prefer })
}

fn reset(host: &Host, fork: &ContainerId, to: ResetTo) -> Result<hoody_state::model::ResetAnswer> {
    let caller = Caller { wait: Duration::from_secs(25), ..Caller::default() };
    host.reset_container(&caller, fork, &ResetRequest { to: Some(to), start: None })
}

fn staged(w: &MemoryWorld) -> usize {
    w.store.list(None).unwrap().iter().filter(|v| matches!(v, Volume::Staging(_) | Volume::Next(_))).count()
}

#[test]
fn the_changes_of_both_are_in_the_target_and_the_fork_stays_as_it_is() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    let (before, fork_before) = (files(&w, &source), files(&w, &fork));
    let done = promote(&host, &fork, None).unwrap();
    assert_eq!((done.fork_id.clone(), done.target_id.clone(), done.conflict_count), (fork.clone(), source.clone(), Some(0)));
    assert_eq!(done.changes, Some(3), "one changed, one made, one deleted");
    let now = files(&w, &source);
    for (path, text) in
        [("etc/passwd", Some("root and more")), ("var/log", Some("of the source")), ("srv/app", Some("two")), ("srv/new", Some("made by the fork"))]
    {
        assert_eq!(of(&now, path).as_deref(), text, "{path}");
    }
    assert_eq!(of(&now, "etc/hosts"), None, "the fork deleted it");
    assert_eq!(of(&now, "etc/machine-id").as_deref(), Some("0123"), "the machine is the target's own");
    assert_eq!(files(&w, &fork), fork_before);
    assert_eq!(host.container(&source).unwrap().status, Status::Running);
    assert_eq!(staged(&w), 0);
    assert_clean(&host, "promoted");
    // Once more there is nothing to do.
    let again = promote(&host, &fork, None).unwrap();
    assert_eq!((again.changes, again.undo), (Some(0), None));
    assert_eq!(staged(&w), 0);
    // And it can be undone.
    host.undo(&Caller::default(), &source).unwrap();
    assert_eq!(files(&w, &source), before);
    assert_clean(&host, "undone");
}

fn conflicts(e: &Error) -> (Vec<PromoteConflict>, u64) {
    let data = e.data().unwrap();
    (serde_json::from_value(data["conflicts"].clone()).unwrap(), data["total"].as_u64().unwrap())
}

#[test]
fn what_contradicts_is_listed_and_nothing_is_changed_unless_somebody_is_preferred() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    w.write(&source, "srv/app", "three");
    w.write(&source, "etc/hosts", "changed");
    let (before, snapshots) = (files(&w, &source), host.snapshots(&source).unwrap().snapshots.len());
    let e = promote(&host, &fork, None).unwrap_err();
    assert_eq!(e.code(), Code::PromoteConflicts);
    let (listed, total) = conflicts(&e);
    let found: Vec<_> = listed.iter().map(|c| (c.path.as_str(), c.fork, c.target)).collect();
    assert_eq!(found, [("/etc/hosts", SideChange::Deleted, SideChange::Modified), ("/srv/app", SideChange::Modified, SideChange::Modified)]);
    assert_eq!(total, 2);
    assert_eq!((files(&w, &source), host.snapshots(&source).unwrap().snapshots.len(), staged(&w)), (before, snapshots, 0));
    assert_eq!(host.container(&source).unwrap().status, Status::Running);
    assert_clean(&host, "refused");

    let done = promote(&host, &fork, Some(Prefer::Target)).unwrap();
    assert_eq!((done.conflict_count, done.conflicts.len()), (Some(2), 2));
    let now = files(&w, &source);
    let seen = |now: &[(String, String)]| ["srv/app", "etc/hosts", "srv/new", "etc/passwd", "etc/machine-id"].map(|p| of(now, p).unwrap_or_default());
    assert_eq!(seen(&now), ["three", "changed", "made by the fork", "root and more", "0123"]);
    host.undo(&Caller::default(), &source).unwrap();

    promote(&host, &fork, Some(Prefer::Fork)).unwrap();
    let now = files(&w, &source);
    assert_eq!(seen(&now), ["two", "", "made by the fork", "root and more", "0123"], "the fork's where they differ; the machine is the target's");
    assert_eq!(of(&now, "var/log").as_deref(), Some("of the source"));
    assert_clean(&host, "preferred");
}

#[test]
fn a_list_of_conflicts_is_bounded() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    for n in 0..300 {
        w.write(&source, &format!("many/{n}"), "a");
        w.write(&fork, &format!("many/{n}"), "b");
    }
    let (listed, total) = conflicts(&promote(&host, &fork, None).unwrap_err());
    assert_eq!((listed.len(), total), (100, 300));
}

#[test]
fn into_another_fork_and_from_a_fork_of_a_fork() {
    let w = MemoryWorld::new();
    let (host, source, _) = stage(&w);
    let forks = forked(&host, &source, 2);
    w.write(&forks[0], "srv/app", "of the first");
    w.write(&forks[1], "srv/other", "of the second");
    let into =
        |fork: &ContainerId, to: &ContainerId| host.promote_container(&Caller::default(), fork, &PromoteRequest { into: Some(to.to_string()), prefer: None });
    into(&forks[0], &forks[1]).unwrap();
    let now = files(&w, &forks[1]);
    assert_eq!((of(&now, "srv/app").unwrap(), of(&now, "srv/other").unwrap()), ("of the first".into(), "of the second".into()));
    let grandchild = forked(&host, &forks[1], 1)[0].clone();
    w.write(&grandchild, "srv/deep", "of the fork of a fork");
    into(&grandchild, &source).unwrap();
    let now = files(&w, &source);
    assert_eq!(["srv/deep", "srv/app", "srv/other"].map(|p| of(&now, p).unwrap()), ["of the fork of a fork", "of the first", "of the second"]);
    assert_eq!(of(&now, "etc/passwd").as_deref(), Some("root and more"));
    assert_clean(&host, "promoted along the line");
}

#[test]
fn refusals_change_nothing() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    let other = container(&host, &host.container(&source).unwrap().project_id, "other").unwrap();
    let into = |to: &str| host.promote_container(&Caller::default(), &fork, &PromoteRequest { into: Some(to.into()), prefer: None }).unwrap_err().code();
    assert_eq!(promote(&host, &source, None).unwrap_err().code(), Code::NotACopy);
    assert_eq!(into(other.as_str()), Code::NotRelated);
    assert_eq!(into(fork.as_str()), Code::ValidationError);
    assert_eq!(into("nonsense"), Code::InvalidIdFormat);
    assert_eq!(into(ContainerId::generate().as_str()), Code::ContainerNotFound);
    assert_eq!(reset(&host, &source, ResetTo::BranchPoint).unwrap_err().code(), Code::NotACopy);
    assert_eq!(reset(&host, &source, ResetTo::Source).unwrap_err().code(), Code::NotACopy);
    // The fork keeps its own snapshot of the branch point: the source's may go.
    let at = host.snapshots(&source).unwrap().snapshots[0].name.clone();
    host.delete_snapshot(&Caller::default(), &source, at.as_str()).unwrap();
    let before = files(&w, &source);
    promote(&host, &fork, None).unwrap();
    host.undo(&Caller::default(), &source).unwrap();
    host.delete_snapshot(&Caller::default(), &fork, at.as_str()).unwrap();
    assert_eq!(promote(&host, &fork, None).unwrap_err().code(), Code::BranchPointNotFound);
    assert_eq!(reset(&host, &fork, ResetTo::BranchPoint).unwrap_err().code(), Code::BranchPointNotFound);
    assert_eq!(files(&w, &source), before);
    host.delete_container(&Caller::default(), &source).unwrap();
    settle(&host);
    assert_eq!(promote(&host, &fork, None).unwrap_err().code(), Code::SourceContainerNotFound);
    assert_eq!(reset(&host, &fork, ResetTo::Source).unwrap_err().code(), Code::SourceContainerNotFound);
    assert_eq!(staged(&w), 0);
    assert_clean(&host, "refused");
}

#[test]
fn a_path_that_no_program_can_name_is_refused_before_anything_stands_still() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    let before = files(&w, &source);
    w.write(&fork, &format!("srv/{}f", "d/".repeat(2100)), "deep");
    w.crash_at(0);
    let refused = promote(&host, &fork, None).unwrap_err();
    assert_eq!(refused.code(), Code::PathTooLong);
    assert_eq!((files(&w, &source), host.container(&source).unwrap().status, staged(&w)), (before, Status::Running, 0));
    assert_clean(&host, "after a refused promotion");
    // What the fork does not change may be as deep as it likes.
    w.store.remove(&Volume::Live(fork.clone()), &format!("srv/{}f", "d/".repeat(2100))).unwrap();
    w.write(&source, &format!("srv/{}f", "d/".repeat(2100)), "deep");
    assert!(promote(&host, &fork, None).is_ok());
}

#[test]
fn forks_can_be_promoted_into_each_other_when_their_source_is_gone() {
    let w = MemoryWorld::new();
    let (host, source, _) = stage(&w);
    let forks = forked(&host, &source, 2);
    w.write(&forks[0], "srv/app", "of the first");
    host.delete_container(&Caller::default(), &source).unwrap();
    settle(&host);
    let request = PromoteRequest { into: Some(forks[1].to_string()), prefer: None };
    host.promote_container(&Caller::default(), &forks[0], &request).unwrap();
    assert_eq!(of(&files(&w, &forks[1]), "srv/app").as_deref(), Some("of the first"));
}

#[test]
fn reset_to_the_branch_point_and_to_the_source() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    let (before, source_now) = (files(&w, &fork), files(&w, &source));
    let done = reset(&host, &fork, ResetTo::BranchPoint).unwrap();
    let own = BASE.map(|(p, t)| (p.to_owned(), t.to_owned()));
    assert!(own.iter().all(|f| files(&w, &fork).contains(f)), "{:?}", files(&w, &fork));
    assert_eq!(of(&files(&w, &fork), "srv/new"), None);
    assert!(done.undo.is_some() && done.snapshot.is_some());
    assert_eq!(host.container(&fork).unwrap().status, Status::Running);
    host.undo(&Caller::default(), &fork).unwrap();
    assert_eq!(files(&w, &fork), before);
    host.lifecycle(&Caller::default(), &fork, Verb::ForceStop, None).unwrap();
    reset(&host, &fork, ResetTo::Source).unwrap();
    assert_eq!(files(&w, &fork), source_now);
    assert_eq!(host.container(&fork).unwrap().status, Status::Stopped, "a stopped one stays stopped");
    // From now on it branches off there.
    w.write(&fork, "srv/app", "four");
    assert_eq!(promote(&host, &fork, None).unwrap().changes, Some(1));
    assert_eq!(of(&files(&w, &source), "srv/app").as_deref(), Some("four"));
    assert_clean(&host, "reset");
}

#[test]
fn a_key_gives_the_first_answer_again() {
    let w = MemoryWorld::new();
    let (host, source, fork) = stage(&w);
    let keyed = |key: &str| Caller {
        idempotency: Some(IdempotencyKey { scope: "t".into(), key: key.into(), fingerprint: [1; 32] }),
        wait: Duration::from_secs(25),
        ..Caller::default()
    };
    let first = host.promote_container(&keyed("p"), &fork, &PromoteRequest::default()).unwrap();
    let after = host.snapshots(&source).unwrap().snapshots.len();
    assert_eq!(host.promote_container(&keyed("p"), &fork, &PromoteRequest::default()).unwrap(), first);
    assert_eq!(host.snapshots(&source).unwrap().snapshots.len(), after);
    let first = host.reset_container(&keyed("r"), &fork, &ResetRequest::default()).unwrap();
    assert_eq!(host.reset_container(&keyed("r"), &fork, &ResetRequest::default()).unwrap(), first);
}

/// Crashes before each step of `act`, starts again, and has `verify` look at it. `verify` is told whether the change was acknowledged.
fn enumerate(name: &str, act: fn(&Host, &ContainerId) -> Result<()>, verify: fn(&MemoryWorld, &Host, &ContainerId, &ContainerId, bool)) {
    for failing in [false, true] {
        for n in 1.. {
            let w = MemoryWorld::new();
            let (host, source, fork) = stage(&w);
            let fork_before = files(&w, &fork);
            if failing {
                w.fail_at(n)
            } else {
                w.crash_at(n)
            };
            let out = act(&host, &fork);
            settle(&host);
            let over = w.steps() < n;
            w.crash_at(0);
            let when = format!("{name}, step {n}, failing: {failing}");
            if failing {
                assert_clean(&host, &when);
            }
            drop(host);
            let host = w.host();
            settle(&host);
            assert_clean(&host, &when);
            let open = host.operations(&PageRequest::first()).unwrap().rows;
            assert!(open.iter().all(|o| o.finished_at.is_some()), "{when}: {open:?}");
            assert_eq!(staged(&w), 0, "{when}: a temporary volume is left");
            for id in [&source, &fork] {
                assert_eq!(host.container(id).unwrap().status, Status::Running, "{when}");
                snapshot(&host, id, "afterwards").unwrap_or_else(|e| panic!("{when}: {e}"));
            }
            if name.starts_with("promote") {
                assert_eq!(files(&w, &fork), fork_before, "{when}: the fork stays as it is");
            }
            verify(&w, &host, &source, &fork, out.is_ok());
            if over {
                assert!(n > 8, "{name} has {n} steps: too few to be journalled");
                break;
            }
        }
    }
}

#[test]
fn promote_cut_short_at_any_step_is_done_or_undone() {
    let verify = |w: &MemoryWorld, host: &Host, source: &ContainerId, _: &ContainerId, acknowledged: bool| {
        let now = files(w, source);
        let undo = host.snapshots(source).unwrap().snapshots.iter().filter(|s| s.name.as_str().starts_with("undo-")).count();
        match of(&now, "srv/app").as_deref() {
            Some("two") => {
                assert_eq!((of(&now, "srv/new").is_some(), of(&now, "etc/hosts"), undo), (true, None, 1), "all of it, and the state before is kept");
                let done = host.operations(&PageRequest::first()).unwrap().rows.into_iter().find(|o| o.kind == "container.promote").unwrap();
                assert_eq!(done.status, OperationStatus::Succeeded);
            }
            Some("one") => {
                assert!(!acknowledged, "an acknowledged promotion is lost");
                assert_eq!((of(&now, "srv/new"), of(&now, "etc/hosts").is_some(), undo), (None, true, 0), "nothing of it");
            }
            other => panic!("{other:?} is neither state"),
        }
        assert_eq!(of(&now, "etc/passwd").as_deref(), Some("root and more"));
    };
    enumerate("promote", |h, fork| promote(h, fork, None).map(drop), verify);
    enumerate("promote, the fork preferred", |h, fork| promote(h, fork, Some(Prefer::Fork)).map(drop), verify);
}

#[test]
fn reset_cut_short_at_any_step_is_done_or_undone() {
    enumerate(
        "reset",
        |h, fork| reset(h, fork, ResetTo::BranchPoint).map(drop),
        |w, _, _, fork, acknowledged| {
            let now = files(w, fork);
            let is_reset = of(&now, "srv/app").as_deref() == Some("one");
            assert_eq!(of(&now, "srv/new").is_none(), is_reset);
            assert!(is_reset || !acknowledged);
        },
    );
    enumerate(
        "reset to the source",
        |h, fork| reset(h, fork, ResetTo::Source).map(drop),
        |w, _, source, fork, acknowledged| {
            let (now, theirs) = (files(w, fork), files(w, source));
            let is_reset = now == theirs;
            assert!(is_reset || of(&now, "srv/new").is_some(), "neither state: {now:?}");
            assert!(is_reset || !acknowledged);
        },
    );
}

#[test]
fn two_promotions_at_once_and_a_deletion_of_the_fork_meanwhile() {
    let w = MemoryWorld::new();
    let (host, source, first) = stage(&w);
    let second = forked(&host, &source, 1)[0].clone();
    w.write(&second, "srv/second", "too");
    let results: Vec<_> = std::thread::scope(|s| {
        let run = |fork: ContainerId| {
            let host = host.clone();
            s.spawn(move || promote(&host, &fork, None).map(drop))
        };
        let deletion = {
            let (host, second) = (host.clone(), second.clone());
            s.spawn(move || host.delete_container(&Caller::default(), &second))
        };
        let handles = [run(first.clone()), run(second.clone()), deletion];
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    settle(&host);
    for e in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(e.code(), Code::OperationInProgress | Code::ContainerNotFound | Code::OperationStateConflict), "{e}");
    }
    let now = files(&w, &source);
    assert_eq!(of(&now, "srv/new").is_some(), results[0].is_ok());
    assert_eq!(of(&now, "srv/second").is_some(), results[1].is_ok());
    assert_eq!(staged(&w), 0);
    assert_clean(&host, "at once");
}

#[test]
fn a_restore_of_the_target_before_the_branch_point_is_a_change_like_any_other() {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let source = container(&host, &p, "agent").unwrap();
    w.write(&source, "a", "one");
    snapshot(&host, &source, "early").unwrap();
    w.write(&source, "b", "one");
    let fork = forked(&host, &source, 1)[0].clone();
    w.write(&fork, "a", "two");
    host.restore(&Caller::default(), &source, "early", RestoreOptions::default()).unwrap();
    promote(&host, &fork, None).unwrap();
    let now = files(&w, &source);
    assert_eq!((of(&now, "a").as_deref(), of(&now, "b")), (Some("two"), None), "the target's restore took b away");
}
