//! Each step of each operation fails with an error of the disk, once or from then on. The operation is then failed and undone, or finished; nothing is left
//! over, no lock is kept, and the container can be used.

use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, ForkRequest, NewSnapshot, OnAliasConflict, Operation, PageRequest, RestoreOptions, SyncRequest, Verb};
use hoody_state::{Caller, Code, Host, Result};
use hoody_state_workspace::{Failing, MemoryWorld, assert_clean, container, furnish, snapshot, tiny_image};
use nix::libc::{EDQUOT, EIO, ENOSPC, EROFS};
use std::time::{Duration, Instant};

type Act = fn(&Host, &ContainerId) -> Result<()>;

fn me() -> Caller {
    Caller::default()
}

fn copy(h: &Host, c: &ContainerId, name: &str) -> Result<ContainerId> {
    let project = h.container(c)?.project_id;
    let request = CopyRequest { target_project_id: Some(project.to_string()), name: Some(name.into()), ..Default::default() };
    h.copy_container(&me(), c, request).map(|c| c.id)
}

const ACTS: [(&str, Act); 15] = [
    ("snapshot", |h, c| snapshot(h, c, "again").map(drop)),
    ("snapshot that replaces", |h, c| {
        let new = NewSnapshot { alias: Some("before".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() };
        h.create_snapshot(&me(), c, new).map(drop)
    }),
    ("snapshot delete", |h, c| h.delete_snapshot(&me(), c, "other").map(drop)),
    ("restore", |h, c| h.restore(&me(), c, "before", RestoreOptions::default()).map(drop)),
    ("restore, kept under a name", |h, c| h.restore(&me(), c, "before", RestoreOptions { keep_current: Some("kept".into()), ..Default::default() }).map(drop)),
    ("create", |h, c| container(h, &h.container(c)?.project_id, "second").map(drop)),
    ("delete", |h, c| h.delete_container(&me(), c).map(drop)),
    ("stop", |h, c| h.lifecycle(&me(), c, Verb::Stop, None).map(drop)),
    ("restart", |h, c| h.lifecycle(&me(), c, Verb::Restart, None).map(drop)),
    ("pause", |h, c| h.lifecycle(&me(), c, Verb::Pause, None).map(drop)),
    ("import", |h, _| h.import_image(&me(), "second", &mut &tiny_image()[..]).map(drop)),
    ("image from a snapshot", |h, c| h.image_from_snapshot(&me(), "third", c, "before").map(drop)),
    ("copy", |h, c| copy(h, c, "copy").map(drop)),
    ("fork", |h, c| h.fork_container(&me(), c, &ForkRequest { count: Some(2), name_prefix: Some("fork".into()), ..Default::default() }).map(drop)),
    ("sync", |h, _| {
        let all = h.containers(&PageRequest::first(), None, None)?.rows;
        let standby = all.iter().find(|c| c.name.as_str() == "standby").expect("the stage has one");
        h.sync_container(&me(), &standby.id, &SyncRequest::default()).map(drop)
    }),
];

/// A container with snapshots, a copy of it, and changes since.
fn stage(w: &MemoryWorld) -> (Host, ContainerId) {
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    w.write(&c, "etc/passwd", "root");
    for alias in ["before", "other"] {
        snapshot(&host, &c, alias).unwrap();
    }
    copy(&host, &c, "standby").unwrap();
    at_rest(&host, "the stage");
    w.write(&c, "etc/passwd", "ruined");
    (host, c)
}

/// Waits until every operation has ended. What has left a list and could not be deleted is deleted by the upkeep, which has no thread of its own here.
fn at_rest(host: &Host, when: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let open = open(host);
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{when}: operations do not end: {open:?}");
        open.iter().for_each(|o| drop(host.wait_operation(&o.id, Duration::from_millis(20)).unwrap()));
        host.expire_due().unwrap_or_else(|e| panic!("{when}: {e}"));
    }
}

/// Waits until nothing works on an operation any more, whether it has ended or not.
fn idle(host: &Host) {
    while open(host).iter().any(|o| o.step.is_some()) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open(host: &Host) -> Vec<Operation> {
    let all = host.operations(&PageRequest::first()).unwrap().rows.into_iter().filter(|o| o.finished_at.is_none());
    all.map(|o| host.wait_operation(&o.id, Duration::ZERO).unwrap()).filter(|o| o.finished_at.is_none()).collect()
}

/// What holds of a host on a sound disk, whatever failed before.
fn sound(host: &Host, c: &ContainerId, when: &str) {
    at_rest(host, when);
    assert_clean(host, when);
    let Ok(row) = host.container(c) else { return };
    let names: Vec<String> = host.snapshots(c).unwrap().snapshots.iter().filter_map(|s| s.alias.as_ref().map(ToString::to_string)).collect();
    assert!(names.iter().any(|n| n == "before"), "{when}: the snapshot that was there before is lost: {names:?}");
    if matches!(row.status.to_string().as_str(), "stopped" | "failed") {
        host.lifecycle(&me(), c, Verb::Start, None).unwrap_or_else(|e| panic!("{when}: it cannot be started: {e}"));
    }
    snapshot(host, c, "afterwards").unwrap_or_else(|e| panic!("{when}: no snapshot can be taken: {e}"));
    host.restore(&me(), c, "afterwards", RestoreOptions::default()).unwrap_or_else(|e| panic!("{when}: it cannot be restored: {e}"));
    at_rest(host, when);
    assert_clean(host, &format!("{when}, and used since"));
}

#[test]
fn an_operation_whose_step_fails_once_is_undone_or_finished() {
    let (mut failed, mut ended) = (0, 0);
    for (name, act) in ACTS {
        for errno in [EIO, ENOSPC, EDQUOT, EROFS] {
            for n in 1.. {
                let w = MemoryWorld::new();
                let (host, c) = stage(&w);
                w.fail_with(n, errno, Failing::Once);
                let out = act(&host, &c);
                let when = format!("{name}, step {n} failed with {}", std::io::Error::from_raw_os_error(errno));
                if let Err(e) = &out {
                    let wanted = match errno {
                        ENOSPC => Code::PoolFull,
                        EDQUOT => Code::DiskLimitReached,
                        _ => Code::Io,
                    };
                    assert_eq!(e.code(), wanted, "{when}: {e:?}");
                    failed += 1;
                } else {
                    ended += 1;
                }
                idle(&host);
                let over = w.steps() < n;
                w.crash_at(0);
                sound(&host, &c, &when);
                if over {
                    break;
                }
            }
        }
    }
    println!("{failed} operations failed and were undone, {ended} ended all the same");
    assert!(failed > 100, "{failed}");
}

#[test]
fn what_a_failing_disk_leaves_is_settled_once_the_disk_works() {
    for (name, act) in ACTS {
        for errno in [EIO, EROFS] {
            for n in 1.. {
                let w = MemoryWorld::new();
                let (host, c) = stage(&w);
                w.fail_with(n, errno, Failing::FromThenOn);
                let out = act(&host, &c);
                let when = format!("{name}, steps from {n} on failed with {}", std::io::Error::from_raw_os_error(errno));
                // The background operation comes to that step as well, if it has one.
                while w.steps() < n && !open(&host).is_empty() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let over = out.is_ok() && w.steps() < n;
                // A delete is tried again by itself; for the others the server is started again on a disk that works.
                if name == "delete" {
                    w.crash_at(0);
                    at_rest(&host, &when);
                }
                idle(&host);
                drop(host);
                w.crash_at(0);
                let host = w.host();
                sound(&host, &c, &when);
                if over {
                    break;
                }
            }
        }
    }
}
