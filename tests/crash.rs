//! A crash before every step of every operation: count the steps, then crash at each, start again, and compare.
//!
//! After the restart `check` must find nothing, everything acknowledged before must be there, and what was under way must be done or undone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "crash/lifecycle.rs"]
mod lifecycle;

use hoody_state::host::IdempotencyKey;
use hoody_state::id::ContainerId;
use hoody_state::model::{
    DiffKind, DiffLine, DiffRequest, NewSnapshot, OnAliasConflict, OperationStatus, PageRequest, RestoreFiles, RestoreOptions, Status, Verb,
};
use hoody_state::runtime::Runtime;
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::tree::TreePath;
use hoody_state::{Caller, Code, Host, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot, tiny_image};
use std::time::Duration;

/// What stands before each operation: a running container with one snapshot and changes since.
fn stage(w: &MemoryWorld) -> (Host, ContainerId) {
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    w.write(&c, "etc/passwd", "root");
    w.write(&c, "etc/conf.d/a", "root");
    snapshot(&host, &c, "before").unwrap();
    w.write(&c, "etc/passwd", "ruined");
    w.write(&c, "etc/conf.d/a", "ruined");
    w.write(&c, "etc/new", "new");
    (host, c)
}

type Act = fn(&Host, &ContainerId) -> Result<()>;
type Verify = fn(&MemoryWorld, &Host, &ContainerId, bool);

fn enumerate(name: &str, act: Act, verify: Verify) {
    let w = MemoryWorld::new();
    let (host, c) = stage(&w);
    w.crash_at(0);
    act(&host, &c).unwrap();
    let steps = w.steps();
    assert!(steps >= 2, "{name} has {steps} steps: too few to be journalled");
    settle(&host);
    verify(&w, &host, &c, true);
    assert_clean(&host, name);
    for n in 1..=steps {
        let w = MemoryWorld::new();
        let (host, c) = stage(&w);
        w.crash_at(n);
        let out = act(&host, &c);
        if let Err(e) = &out {
            assert_eq!(e.code(), Code::Crashed, "{name} step {n}: {e}");
        }
        settle(&host);
        drop(host);
        w.crash_at(0);
        let host = w.host();
        settle(&host);
        let when = format!("{name}, crashed at step {n} of {steps}");
        assert_clean(&host, &when);
        let open = host.operations(&hoody_state::model::PageRequest::first()).unwrap();
        assert!(open.rows.iter().all(|o| o.finished_at.is_some()), "{when}: an operation is open: {:?}", open.rows);
        verify(&w, &host, &c, out.is_ok());
        // And the container is not left unusable: a snapshot of it can be taken, if it is there.
        if host.container(&c).is_ok_and(|c| c.status != Status::Deleting) {
            snapshot(&host, &c, "afterwards").unwrap_or_else(|e| panic!("{when}: {e}"));
        }
    }
}

/// Waits for background operations.
fn settle(host: &Host) {
    for _ in 0..200 {
        let busy = host.operations(&hoody_state::model::PageRequest::first()).unwrap().rows.into_iter().filter(|o| o.finished_at.is_none());
        let waiting: Vec<_> = busy.map(|o| host.wait_operation(&o.id, Duration::from_millis(50)).unwrap()).collect();
        if waiting.iter().all(|o| o.finished_at.is_some() || o.step.is_none()) {
            return;
        }
    }
}

fn status(host: &Host, c: &ContainerId) -> Status {
    host.container(c).unwrap().status
}

#[test]
fn snapshot_create() {
    enumerate(
        "snapshot.create",
        |h, c| snapshot(h, c, "again").map(|_| ()),
        |_, h, c, acknowledged| {
            assert_eq!(status(h, c), Status::Running);
            assert!(h.snapshot(c, "before").is_ok());
            assert!(!acknowledged || h.snapshot(c, "again").is_ok(), "an acknowledged snapshot is lost");
        },
    );
}

#[test]
fn snapshot_create_that_replaces() {
    enumerate(
        "snapshot.create replace",
        |h, c| {
            let new = NewSnapshot { alias: Some("before".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() };
            h.create_snapshot(&Caller::default(), c, new).map(|_| ())
        },
        |_, h, c, acknowledged| {
            let list = h.snapshots(c).unwrap().snapshots;
            assert_eq!(list.len(), 1, "exactly one has the alias: {list:?}");
            assert_eq!(list[0].alias.as_ref().unwrap().as_str(), "before");
            assert!(!acknowledged || list[0].name.as_str() != "before");
        },
    );
}

#[test]
fn diff_with_the_present_state() {
    enumerate(
        "snapshot.diff",
        |h, c| {
            let mut paths = Vec::new();
            let request = DiffRequest { to: "live".into(), ..DiffRequest::default() };
            let summary = h.diff(c, "before", &request, &|| false, &mut |line| {
                if let DiffLine::Record(r) = line {
                    paths.push((r.kind, r.path));
                }
                Ok(())
            })?;
            // As the stage has changed them since that snapshot.
            let wanted = [(DiffKind::Modified, "/etc/conf.d/a"), (DiffKind::Added, "/etc/new"), (DiffKind::Modified, "/etc/passwd")];
            assert_eq!(paths, wanted.map(|(kind, path)| (kind, path.to_owned())));
            assert_eq!((summary.records, summary.to.snapshot), (3, None));
            Ok(())
        },
        |w, h, c, _| {
            assert_eq!(status(h, c), Status::Running);
            assert_eq!(h.snapshots(c).unwrap().snapshot_count, 1, "the temporary snapshot is in no list");
            let staging = w.store.list(None).unwrap().into_iter().filter(|v| matches!(v, Volume::Staging(_)));
            assert_eq!(staging.count(), 0, "and is gone");
        },
    );
}

/// The temporary snapshots, and the copies in which rows are counted, are gone.
fn nothing_temporary(w: &MemoryWorld, h: &Host, c: &ContainerId, _: bool) {
    assert_eq!(status(h, c), Status::Running);
    assert_eq!(h.snapshots(c).unwrap().snapshot_count, 1, "what is temporary is in no list");
    let staging = w.store.list(None).unwrap().into_iter().filter(|v| matches!(v, Volume::Staging(_)));
    assert_eq!(staging.count(), 0, "and is gone");
}

#[test]
fn diff_with_rows_of_databases() {
    enumerate(
        "snapshot.diff databases",
        |h, c| {
            let request = DiffRequest { to: "live".into(), databases: true, ..DiffRequest::default() };
            h.diff(c, "before", &request, &|| false, &mut |_| Ok(())).map(drop)
        },
        nothing_temporary,
    );
}

#[test]
fn archive_of_the_present_state() {
    enumerate(
        "files.archive",
        |h, c| match h.archive(c, "live", &TreePath::root(), false) {
            // Files in memory cannot be opened; the snapshot is taken before that is found, and must go all the same.
            Err(e) if e.code() == Code::FilesUnsupported => Ok(()),
            other => other.map(drop),
        },
        nothing_temporary,
    );
}

#[test]
fn snapshot_delete() {
    enumerate(
        "snapshot.delete",
        |h, c| h.delete_snapshot(&Caller::default(), c, "before").map(|_| ()),
        |_, h, c, acknowledged| assert!(!acknowledged || h.snapshot(c, "before").is_err(), "a deleted snapshot is back"),
    );
}

#[test]
fn restore_of_a_running_container() {
    enumerate(
        "snapshot.restore",
        |h, c| h.restore(&Caller::default(), c, "before", RestoreOptions::default()).map(|_| ()),
        |w, h, c, acknowledged| {
            assert_eq!(status(h, c), Status::Running, "it ran before and must run now");
            let text = w.read(c, "etc/passwd").unwrap();
            let undo = h.snapshots(c).unwrap().snapshots.iter().filter(|s| s.name.as_str().starts_with("undo-")).count();
            match text.as_str() {
                "root" => assert_eq!(undo, 1, "restored, and the state before is kept"),
                "ruined" => assert!(!acknowledged && undo == 0, "undone entirely"),
                other => panic!("{other:?} is neither state"),
            }
            assert!(h.snapshot(c, "before").is_ok(), "the snapshot itself is untouched");
        },
    );
}

#[test]
fn restore_of_a_stopped_container() {
    enumerate(
        "snapshot.restore stopped",
        |h, c| {
            h.lifecycle(&Caller::default(), c, Verb::ForceStop, None)?;
            h.restore(&Caller::default(), c, "before", RestoreOptions { keep_current: Some("kept".into()), ..Default::default() }).map(|_| ())
        },
        |w, h, c, acknowledged| {
            let text = w.read(c, "etc/passwd").unwrap();
            assert_eq!(text == "root", h.snapshot(c, "kept").is_ok());
            assert!(!acknowledged || (text == "root" && status(h, c) == Status::Stopped), "a stopped one stays stopped");
        },
    );
}

/// Each path is before or after, and the undo snapshot is there if anything may have changed.
fn files_restored(w: &MemoryWorld, h: &Host, c: &ContainerId, acknowledged: bool) {
    assert_eq!(status(h, c), Status::Running, "it runs on");
    assert_eq!(w.read(c, "etc/new").as_deref(), Some("new"), "what is new stays");
    let undo: Vec<_> = h.snapshots(c).unwrap().snapshots.into_iter().filter(|s| s.name.as_str().starts_with("undo-")).collect();
    let states = ["etc/passwd", "etc/conf.d/a"].map(|path| w.read(c, path));
    for state in &states {
        assert!(matches!(state.as_deref(), Some("root" | "ruined")), "{state:?} is neither state");
    }
    if states.iter().any(|s| s.as_deref() == Some("root")) {
        assert_eq!(undo.len(), 1, "something is restored, and the state before is kept");
        let kept = w.store.read(&Volume::Snapshot(c.clone(), undo[0].name.clone()), "etc/passwd").unwrap();
        assert_eq!(kept.as_deref(), Some(&b"ruined"[..]));
    }
    assert!(!acknowledged || states.iter().all(|s| s.as_deref() == Some("root")), "an acknowledged restore is lost: {states:?}");
}

#[test]
fn restore_of_files() {
    enumerate(
        "files.restore",
        |h, c| {
            let files = RestoreFiles { paths: vec!["/etc/passwd".into(), "/etc/conf.d".into()], ..Default::default() };
            let done = h.restore_files(&Caller::default(), c, "before", files)?;
            assert_eq!((done.restored.len(), done.failed.len()), (2, 0), "{done:?}");
            Ok(())
        },
        files_restored,
    );
}

#[test]
fn restore_of_files_of_which_none_can_be_restored() {
    enumerate(
        "files.restore of nothing",
        |h, c| {
            let files = RestoreFiles { paths: vec!["/nowhere".into(), "/nor/here".into()], ..Default::default() };
            match h.restore_files(&Caller::default(), c, "before", files) {
                Err(e) if e.code() == Code::FileNotFound => Ok(()),
                other => other.map(drop),
            }
        },
        |w, h, c, acknowledged| {
            assert_eq!(w.read(c, "etc/passwd").as_deref(), Some("ruined"));
            let undo = h.snapshots(c).unwrap().snapshots.iter().filter(|s| s.name.as_str().starts_with("undo-")).count();
            assert!(undo == 0 || (!acknowledged && undo == 1), "a snapshot of nothing is left");
        },
    );
}

#[test]
fn container_create() {
    enumerate(
        "container.create",
        |h, c| {
            let p = h.container(c)?.project_id;
            container(h, &p, "second").map(|_| ())
        },
        |_, h, c, acknowledged| {
            let all = h.containers(&hoody_state::model::PageRequest::first(), None, None).unwrap().rows;
            assert!(!acknowledged || all.len() == 2, "an acknowledged container is lost");
            assert!(all.iter().all(|c| c.status == Status::Running), "{all:?}");
            assert_eq!(status(h, c), Status::Running);
        },
    );
}

#[test]
fn container_delete() {
    enumerate(
        "container.delete",
        |h, c| {
            h.delete_container(&Caller::default(), c)?;
            settle(h);
            Ok(())
        },
        |_, h, c, acknowledged| {
            settle(h);
            assert!(!acknowledged || h.container(c).is_err(), "a deleted container is back");
        },
    );
}

#[test]
fn project_delete() {
    enumerate(
        "project.delete",
        |h, c| {
            let p = h.container(c)?.project_id;
            h.delete_project(&Caller::default(), &p, true)?;
            settle(h);
            Ok(())
        },
        |_, h, c, acknowledged| assert!(!acknowledged || h.container(c).is_err()),
    );
}

#[test]
fn stop_start_restart_pause_resume() {
    enumerate(
        "lifecycle",
        |h, c| {
            for v in [Verb::Pause, Verb::Resume, Verb::Restart, Verb::Stop, Verb::Start] {
                h.lifecycle(&Caller::default(), c, v, None)?;
            }
            Ok(())
        },
        |_, h, c, acknowledged| {
            let s = status(h, c);
            assert!(matches!(s, Status::Running | Status::Paused | Status::Stopped), "{s}");
            assert!(!acknowledged || s == Status::Running);
        },
    );
}

#[test]
fn image_import_from_snapshot_and_delete() {
    enumerate(
        "images",
        |h, c| {
            let caller = Caller::default();
            h.import_image(&caller, "second", &mut &tiny_image()[..])?;
            h.image_from_snapshot(&caller, "third", c, "before")?;
            h.delete_image(&caller, "second")
        },
        |_, h, _, acknowledged| {
            assert!(!acknowledged || (h.image("second").is_err() && h.image("third").is_ok()));
            assert!(h.image("tiny").unwrap().is_default);
        },
    );
}

#[test]
fn merging_equal_data() {
    enumerate(
        "pool.dedupe",
        |h, _| {
            let merged = h.dedupe_pool(&Caller::default(), &Default::default())?;
            assert!(merged.result.is_some());
            Ok(())
        },
        |w, h, c, acknowledged| {
            assert_eq!(w.read(c, "etc/passwd").as_deref(), Some("ruined"));
            assert_eq!(status(h, c), Status::Running);
            assert_eq!(h.last_dedupe(None).unwrap().last.is_some(), acknowledged, "what is acknowledged is known, and nothing else");
        },
    );
}

#[test]
fn a_failure_before_any_step_changes_nothing() {
    let acts: [(&str, Act); 7] = [
        ("restore of files", |h, c| {
            let files = RestoreFiles { paths: vec!["/etc/passwd".into(), "/etc/conf.d".into()], ..Default::default() };
            h.restore_files(&Caller::default(), c, "before", files).map(drop)
        }),
        ("snapshot", |h, c| snapshot(h, c, "again").map(drop)),
        ("replace", |h, c| {
            let new = NewSnapshot { alias: Some("before".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() };
            h.create_snapshot(&Caller::default(), c, new).map(drop)
        }),
        ("restore", |h, c| h.restore(&Caller::default(), c, "before", RestoreOptions::default()).map(drop)),
        ("create", |h, c| container(h, &h.container(c)?.project_id, "second").map(drop)),
        ("import", |h, _| h.import_image(&Caller::default(), "second", &mut &tiny_image()[..]).map(drop)),
        ("restart", |h, c| h.lifecycle(&Caller::default(), c, Verb::Restart, None).map(drop)),
    ];
    for (name, act) in acts {
        for n in 1.. {
            let w = MemoryWorld::new();
            let (host, c) = stage(&w);
            w.fail_at(n);
            let _ = act(&host, &c);
            settle(&host);
            let over = w.steps() < n;
            w.crash_at(0);
            let when = format!("{name}, failed at step {n}");
            assert_clean(&host, &when);
            let snapshots = host.snapshots(&c).unwrap().snapshots;
            assert!(snapshots.iter().any(|s| s.alias.as_ref().is_some_and(|a| a.as_str() == "before")), "{when}: {snapshots:?}");
            drop(host);
            let host = w.host();
            settle(&host);
            assert_clean(&host, &format!("{when}, after a restart"));
            snapshot(&host, &c, "afterwards").unwrap_or_else(|e| panic!("{when}: {e}"));
            if over {
                break;
            }
        }
    }
}
