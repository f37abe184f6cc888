//! Runs that fail or must wait: each for itself.

use super::*;
use hoody_state::model::{PolicyTarget, RestoreOptions};
use hoody_state::snapshot::SnapshotStore;
use hoody_state_workspace::{Failing, assert_clean, snapshot};

#[test]
fn a_container_that_fails_stops_no_other_and_says_so() {
    let s = Stage::new();
    let policy = SnapshotPolicy { schedules: vec![schedule("hourly", "@hourly", last(5))], ..Default::default() };
    s.host.set_snapshot_policy(&Caller::default(), &PolicyTarget::Server, &policy).unwrap();
    let others: Vec<ContainerId> = (0..5).map(|n| container(&s.host, &s.project, &format!("box{n}")).unwrap()).collect();
    // Its volume is gone.
    s.world.store.delete(&hoody_state::snapshot::Volume::Live(s.container.clone())).unwrap();
    s.pass(HOUR);
    assert!(others.iter().all(|c| taken(&s.host, c).len() == 1), "all others have their snapshot");
    let failed = s.events("container.snapshot.schedule_failed");
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0]["container_id"].as_str(), failed[0]["schedule"].as_str()), (Some(s.container.as_str()), Some("hourly")));
    assert_eq!(failed[0]["error"]["code"], "volume_not_found");
    let counts = s.host.schedule_counts().unwrap();
    assert_eq!((counts.taken, counts.failed, counts.failing), (5, 1, 1));
    // Pauses grow, and the next run ends them at the latest.
    let mut tries = Vec::new();
    for _ in 0..9 {
        let next = s.host.run_due_schedules().unwrap().unwrap();
        tries.push(next.as_secs());
        s.clock.advance(next);
    }
    assert_eq!(tries, [10, 20, 40, 80, 160, 320, 640, 1280, 1050], "until the next hour");
    assert_eq!(s.events("container.snapshot.schedule_failed").len(), 1, "one event for a run, however often it is tried");
}

#[test]
fn a_failed_run_is_done_once_its_cause_has_gone() {
    let s = Stage::new();
    s.schedules(&[("daily", "0 11 * * *", last(5))]);
    s.world.fail_with(1, nix::libc::EIO, Failing::FromThenOn);
    s.pass(HOUR);
    assert!(s.taken().is_empty());
    s.world.crash_at(0);
    s.pass(Duration::from_secs(9));
    assert!(s.taken().is_empty(), "it pauses");
    s.pass(Duration::from_secs(1));
    assert_eq!(s.times("daily"), ["11-02T11:00"]);
    assert_eq!((s.taken()[0].missed, s.host.schedule_counts().unwrap().failing), (None, 0), "it was not missed: the server was there");
    assert_clean(&s.host, "after a failure");
}

#[test]
fn a_run_waits_for_another_operation_without_keeping_others_waiting() {
    let s = Stage::new();
    let other = container(&s.host, &s.project, "other").unwrap();
    let policy = SnapshotPolicy { schedules: vec![schedule("hourly", "@hourly", last(5))], ..Default::default() };
    s.host.set_snapshot_policy(&Caller::default(), &PolicyTarget::Server, &policy).unwrap();
    snapshot(&s.host, &s.container, "before").unwrap();
    // A restore stands still in the middle, with the container's lock.
    let (at, go_on) = s.world.stop_at("snapshot.restore");
    let (host, id) = (s.host.clone(), s.container.clone());
    let restore = std::thread::spawn(move || host.restore(&Caller::default(), &id, "before", RestoreOptions::default()).map(drop));
    at.recv_timeout(Duration::from_secs(20)).expect("the restore does not begin");
    s.pass(HOUR);
    assert_eq!((taken(&s.host, &other).len(), s.taken().len()), (1, 0));
    assert_eq!(s.host.schedule_counts().unwrap().waiting, 1);
    assert!(s.events("container.snapshot.schedule_failed").is_empty(), "to wait is not to fail");
    go_on.send(()).unwrap();
    restore.join().unwrap().unwrap();
    for _ in 0..200 {
        if !s.taken().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(s.times("hourly"), ["11-02T11:00"], "the runner is woken by the end of the restore");
    assert_eq!(s.taken()[0].missed, None);
}

#[test]
fn a_limit_of_snapshots_is_kept_by_removing_what_no_rule_keeps() {
    let mut s = Stage::new();
    s.world.max_snapshots = Some(3);
    s.host.close();
    s.host = s.world.host();
    s.schedules(&[("hourly", "@hourly", last(3))]);
    for _ in 0..3 {
        s.pass(HOUR);
    }
    s.schedules(&[("hourly", "@hourly", last(2))]);
    s.pass(HOUR);
    assert_eq!(s.times("hourly"), ["11-02T13:00", "11-02T14:00"], "the oldest makes room for the new one");
    let counts = s.host.schedule_counts().unwrap();
    assert_eq!((counts.failed, counts.pruned), (0, 2));
}
