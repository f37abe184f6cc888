//! The server is killed before each step of a run, and starts again: no run is repeated, none is lost.

use super::*;
use hoody_state::model::PageRequest;
use hoody_state_workspace::{assert_clean, at_rest};

/// Two schedules are due, and one has a snapshot to remove.
fn stage() -> Stage {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(1)), ("other", "@hourly", last(9))]);
    s.pass(HOUR);
    s.write("changed");
    s.clock.advance(HOUR);
    s
}

fn verify(s: &Stage, when: &str) {
    assert_clean(&s.host, when);
    assert_eq!(s.times("hourly"), ["11-02T12:00"], "{when}");
    assert_eq!(s.times("other"), ["11-02T11:00", "11-02T12:00"], "{when}");
    let open = s.host.operations(&PageRequest::first()).unwrap().rows.into_iter().filter(|o| o.finished_at.is_none()).count();
    assert_eq!(open, 0, "{when}");
    let next: Vec<String> = s.host.snapshot_policy(&s.target()).unwrap().next_runs.into_iter().map(|r| r.at.to_string()).collect();
    assert_eq!(next, ["2026-11-02T13:00:00Z"; 2], "{when}");
}

#[test]
fn a_crash_at_any_step_neither_repeats_a_run_nor_loses_one() {
    let s = stage();
    s.world.crash_at(0);
    s.host.run_due_schedules().unwrap();
    let steps = s.world.steps();
    assert!(steps >= 8, "two snapshots and a deletion have {steps} steps");
    verify(&s, "without a crash");
    for n in 1..=steps {
        let mut s = stage();
        s.world.crash_at(n);
        let _ = s.host.run_due_schedules();
        drop(s.host);
        s.world.crash_at(0);
        s.host = s.world.host();
        at_rest(&s.host);
        s.host.run_due_schedules().unwrap();
        at_rest(&s.host);
        let when = format!("crashed at step {n} of {steps}");
        // What was not removed before the crash is removed by the next run at the latest.
        if s.times("hourly").len() == 2 {
            assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T12:00"], "{when}");
            s.pass(HOUR);
            assert_eq!(s.times("hourly"), ["11-02T13:00"], "{when}");
            assert_eq!(s.times("other"), ["11-02T11:00", "11-02T12:00", "11-02T13:00"], "{when}");
            assert_clean(&s.host, &when);
            continue;
        }
        verify(&s, &when);
    }
}

#[test]
fn a_failure_at_any_step_is_tried_again() {
    let s = stage();
    s.world.crash_at(0);
    s.host.run_due_schedules().unwrap();
    let steps = s.world.steps();
    for n in 1..=steps {
        let s = stage();
        s.world.fail_at(n);
        s.host.run_due_schedules().unwrap();
        at_rest(&s.host);
        s.pass(Duration::from_secs(30));
        at_rest(&s.host);
        let when = format!("failed at step {n} of {steps}");
        assert_clean(&s.host, &when);
        assert_eq!(s.times("other"), ["11-02T11:00", "11-02T12:00"], "{when}");
        assert_eq!(s.times("hourly").last().unwrap(), "11-02T12:00", "{when}");
    }
}

#[test]
fn a_restart_in_the_middle_of_a_run_ends_it_once() {
    let mut s = stage();
    // The volume is there, the catalog does not know it yet.
    s.world.crash_at(3);
    let _ = s.host.run_due_schedules();
    drop(s.host);
    s.world.crash_at(0);
    s.clock.advance(5 * HOUR);
    s.host = s.world.host();
    s.host.run_due_schedules().unwrap();
    at_rest(&s.host);
    let hourly = s.times("hourly");
    assert_eq!(hourly.last().unwrap(), "11-02T17:00", "{hourly:?}");
    assert_eq!(
        s.times("other"),
        ["11-02T11:00", "11-02T12:00", "11-02T17:00"].into_iter().filter(|t| s.times("other").iter().any(|o| o == t)).collect::<Vec<_>>()
    );
    assert_eq!(s.taken().iter().filter(|s| s.missed.is_some()).count(), 2, "each schedule makes up for what it missed, once");
    assert_clean(&s.host, "restarted in the middle");
}

#[test]
fn a_crash_at_any_step_of_an_unchanged_run_leaves_no_snapshot() {
    let stage = || {
        let s = Stage::new();
        let mut hourly = schedule("hourly", "@hourly", last(9));
        hourly.only_if_changed = true;
        s.set(&SnapshotPolicy { schedules: vec![hourly], ..Default::default() });
        s.write("same");
        s.pass(HOUR);
        s.write("same");
        s.clock.advance(HOUR);
        s.world.crash_at(0);
        s
    };
    let s = stage();
    s.host.run_due_schedules().unwrap();
    let steps = s.world.steps();
    assert!(steps >= 4, "a snapshot that is taken to compare and deleted has {steps} steps");
    for n in 1..=steps {
        let mut s = stage();
        s.world.crash_at(n);
        let _ = s.host.run_due_schedules();
        drop(s.host);
        s.world.crash_at(0);
        s.host = s.world.host();
        s.host.run_due_schedules().unwrap();
        at_rest(&s.host);
        let when = format!("crashed at step {n} of {steps}");
        assert_eq!(s.times("hourly"), ["11-02T11:00"], "{when}");
        assert_eq!(s.host.schedule_counts().unwrap().next_due, Some("2026-11-02T13:00:00Z".parse().unwrap()), "{when}");
        assert_clean(&s.host, &when);
    }
}
