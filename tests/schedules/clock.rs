//! Clocks that are set.

use super::*;
use hoody_state_workspace::assert_clean;

/// Hourly snapshots of ten days, of which those of the last days are kept.
fn stage() -> Stage {
    let s = Stage::new();
    let mut hourly = schedule("hourly", "@hourly", last(100));
    hourly.max_age = Some("2d".parse().unwrap());
    s.set(&SnapshotPolicy { schedules: vec![hourly], ..Default::default() });
    for _ in 0..24 {
        s.pass(HOUR);
    }
    s
}

#[test]
fn under_a_clock_that_jumped_nothing_is_removed() {
    let s = stage();
    let before = s.times("hourly");
    assert_eq!(before.len(), 24);
    s.clock.set("2042-01-01T00:30:00Z".parse().unwrap());
    s.host.run_due_schedules().unwrap();
    assert_eq!(s.taken().len(), 25, "the run takes its snapshot, and removes none");
    s.pass(HOUR);
    let held = s.events("container.snapshot.prune_held_back");
    assert_eq!(held.len(), 1, "it is said once");
    assert!(held[0]["would_remove"].as_u64().unwrap() > 20 && held[0]["clock_moved_seconds"].as_i64().unwrap() > 400_000_000, "{held:?}");
    assert_eq!(s.host.schedule_counts().unwrap().held_back, 2);
    // Set right: what is dated in the future is ignored, and the schedule goes on at the present time.
    s.clock.set("2026-11-03T12:30:00Z".parse().unwrap());
    s.host.run_due_schedules().unwrap();
    s.pass(HOUR);
    let times = s.times("hourly");
    assert!(before.iter().all(|t| times.contains(t)), "{times:?}");
    assert_eq!(s.taken().iter().filter(|s| s.created_at.to_string().starts_with("2042")).count(), 2);
    assert!(times.contains(&"11-03T13:00".to_owned()), "it does not sleep until 2042: {times:?}");
    assert_clean(&s.host, "after the clock was set");
}

#[test]
fn a_clock_that_stays_where_it_was_set_is_believed_after_a_day() {
    let s = stage();
    s.clock.set("2026-12-24T00:30:00Z".parse().unwrap());
    for _ in 0..25 {
        s.pass(HOUR);
    }
    assert_eq!(s.events("container.snapshot.prune_held_back").len(), 1);
    assert!(s.taken().iter().all(|s| s.created_at.to_string().starts_with("2026-12-2")), "from then on the policy applies: {:?}", s.times("hourly"));
}

#[test]
fn a_guard_outlives_the_server() {
    let mut s = stage();
    s.host.close();
    s.clock.set("2042-01-01T00:30:00Z".parse().unwrap());
    s.host = s.world.host();
    s.host.run_due_schedules().unwrap();
    assert_eq!(s.taken().len(), 25, "the clock was set while no server ran");
    assert_eq!(s.events("container.snapshot.prune_held_back").len(), 1);
}

#[test]
fn a_clock_that_goes_back_a_little_repeats_no_run() {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(100))]);
    s.pass(HOUR);
    s.clock.set("2026-11-02T10:50:00Z".parse().unwrap());
    s.host.run_due_schedules().unwrap();
    s.pass(HOUR / 3);
    assert_eq!(s.times("hourly"), ["11-02T11:00"]);
    s.pass(HOUR);
    assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T12:00"]);
}
