//! Which runs take a snapshot, for which times, and what is kept of them.

use super::*;
use hoody_state::model::{Automatic, AutomaticSnapshots, NewSnapshot, Verb, While};
use hoody_state_workspace::{assert_clean, snapshot};

#[test]
fn a_run_takes_a_snapshot_at_its_time_and_says_which_it_is() {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(3))]);
    s.pass(HOUR / 3);
    assert!(s.taken().is_empty(), "nothing is due");
    s.pass(HOUR * 2 / 3);
    let one = s.taken().remove(0);
    assert_eq!((one.trigger, one.schedule.as_deref(), one.missed), (Trigger::Schedule, Some("hourly"), None));
    assert_eq!(one.alias.unwrap().as_str(), "hourly-2026-11-02-1100");
    assert_eq!(one.scheduled_for, Some("2026-11-02T11:00:00Z".parse().unwrap()));
    for _ in 0..4 {
        s.pass(HOUR);
    }
    assert_eq!(s.times("hourly"), ["11-02T13:00", "11-02T14:00", "11-02T15:00"], "three are kept");
    s.host.run_due_schedules().unwrap();
    assert_eq!(s.taken().len(), 3, "a run happens once");
    assert_clean(&s.host, "after runs");
    let counts = s.host.schedule_counts().unwrap();
    assert_eq!((counts.taken, counts.pruned, counts.failed, counts.under_way), (5, 2, 0, 0));
    assert_eq!(counts.next_due, Some("2026-11-02T16:00:00Z".parse().unwrap()));
}

/// Nobody asks for the runs here: the runner's thread wakes by itself, again and again.
#[test]
fn the_runner_wakes_for_the_run_after_the_next() {
    let s = Stage::new();
    let minute = Duration::from_secs(60);
    s.clock.advance(minute - Duration::from_millis(500));
    s.schedules(&[("often", "* * * * *", last(10))]);
    for runs in 1..=3 {
        // Half a second before the next run, as the clock of the schedules has it.
        let end = std::time::Instant::now() + Duration::from_secs(20);
        std::thread::sleep(Duration::from_millis(100));
        s.clock.advance(minute);
        while s.taken().len() < runs {
            assert!(std::time::Instant::now() < end, "run {runs} was not started");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn two_schedules_of_one_container_keep_their_own_snapshots() {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(2)), ("daily", "@daily", last(2))]);
    let manual = snapshot(&s.host, &s.container, "mine").unwrap();
    for _ in 0..75 {
        s.pass(HOUR);
    }
    assert_eq!(s.times("hourly"), ["11-05T12:00", "11-05T13:00"]);
    assert_eq!(s.times("daily"), ["11-04T00:00", "11-05T00:00"], "both were due at midnight, and each has its own");
    assert!(s.host.snapshot(&s.container, manual.name.as_str()).is_ok(), "a schedule removes only what it has taken");
    assert_clean(&s.host, "after three days");
}

#[test]
fn ten_missed_runs_are_made_up_for_by_one() {
    let mut s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(100))]);
    s.pass(HOUR);
    s.restart_after(10 * HOUR + Duration::from_secs(300));
    let all = s.taken();
    assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T21:00"], "one snapshot, for the last of them");
    assert_eq!((all[0].missed, all[1].missed), (None, Some(10)));
    s.restart_after(Duration::from_secs(60));
    assert_eq!(s.taken().len(), 2, "once");
    s.pass(HOUR - Duration::from_secs(360));
    assert_eq!((s.times("hourly").len(), s.taken()[2].missed), (3, None), "the next run is on time");
    assert_eq!(s.host.schedule_counts().unwrap().made_up, 0, "of this start of the server");
}

#[test]
fn a_machine_that_was_off_for_two_weeks_loses_nothing() {
    let mut s = Stage::new();
    let keep = Keep { daily: Some(7), weekly: Some(4), ..Default::default() };
    s.schedules(&[("daily", "@daily", keep)]);
    for _ in 0..30 {
        s.pass(DAY);
    }
    let before = s.times("daily");
    s.restart_after(14 * DAY);
    let after = s.times("daily");
    assert_eq!(after.last().unwrap(), "12-16T00:00");
    assert_eq!(s.taken().last().unwrap().missed, Some(14));
    let lost: Vec<_> = before.iter().filter(|t| !after.contains(t)).collect();
    assert!(lost.len() <= 2, "one day and one week came, and each rule gave up one: {lost:?}\n{before:?}\n{after:?}");
    assert!(s.events("container.snapshot.prune_held_back").is_empty());
    assert_clean(&s.host, "after two weeks");
}

#[test]
fn nothing_is_taken_of_a_container_that_did_not_change() {
    let s = Stage::new();
    let mut hourly = schedule("hourly", "@hourly", last(10));
    hourly.only_if_changed = true;
    s.set(&SnapshotPolicy { schedules: vec![hourly], ..Default::default() });
    s.pass(HOUR);
    s.pass(HOUR);
    s.pass(HOUR);
    assert_eq!(s.times("hourly"), ["11-02T11:00"]);
    s.write("changed");
    s.pass(HOUR);
    assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T14:00"]);
    // Written again, with the same content.
    s.write("changed");
    s.pass(HOUR);
    assert_eq!(s.times("hourly").len(), 2, "it is compared with the last one");
    let counts = s.host.schedule_counts().unwrap();
    assert_eq!((counts.taken, counts.unchanged), (2, 3));
    assert_clean(&s.host, "after unchanged runs");
}

#[test]
fn a_schedule_for_running_containers_skips_one_that_is_stopped() {
    let s = Stage::new();
    let mut hourly = schedule("hourly", "@hourly", last(10));
    hourly.condition = While::Running;
    s.set(&SnapshotPolicy { schedules: vec![hourly], ..Default::default() });
    s.pass(HOUR);
    s.host.lifecycle(&Caller::default(), &s.container, Verb::Stop, None).unwrap();
    s.pass(HOUR);
    s.pass(HOUR);
    s.host.lifecycle(&Caller::default(), &s.container, Verb::Start, None).unwrap();
    s.pass(HOUR);
    assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T14:00"]);
    assert_eq!(s.taken()[1].missed, None, "a run that was skipped is not missed");
    assert_eq!(s.host.schedule_counts().unwrap().not_running, 2);
}

#[test]
fn aliases_are_numbered_or_roll() {
    let s = Stage::new();
    let mut policy = SnapshotPolicy { timezone: "Europe/Berlin".into(), ..Default::default() };
    let mut rolling = schedule("rolling", "@hourly", last(100));
    rolling.alias_pattern = Some("latest".into());
    policy.schedules = vec![schedule("hourly", "@hourly", last(100)), rolling];
    snapshot(&s.host, &s.container, "hourly-2026-11-02-1200").unwrap();
    s.set(&policy);
    s.pass(HOUR);
    s.pass(HOUR);
    let aliases = |schedule: &str| {
        let own = s.taken().into_iter().filter(|s| s.schedule.as_deref() == Some(schedule));
        own.map(|s| s.alias.map(|a| a.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(aliases("hourly"), [Some("hourly-2026-11-02-1200-2".into()), Some("hourly-2026-11-02-1300".into())]);
    assert_eq!(aliases("rolling"), [None, Some("latest".into())], "the newest has it");
}

#[test]
fn a_spread_puts_off_the_start_by_the_same_time_in_each_run() {
    let s = Stage::new();
    let mut hourly = schedule("hourly", "@hourly", last(10));
    hourly.spread = Some("30m".parse().unwrap());
    s.set(&SnapshotPolicy { schedules: vec![hourly], ..Default::default() });
    let start = s.host.snapshot_policy(&s.target()).unwrap().next_runs[0].at;
    let offset = start.duration_since("2026-11-02T11:00:00Z".parse().unwrap());
    assert!(offset.as_secs() >= 0 && offset.as_secs() < 1800, "{offset}");
    s.pass(HOUR + offset.unsigned_abs() - Duration::from_secs(1));
    assert!(s.taken().is_empty());
    s.pass(Duration::from_secs(1));
    assert_eq!(s.times("hourly"), ["11-02T11:00"]);
    let next = s.host.snapshot_policy(&s.target()).unwrap().next_runs[0].at;
    assert_eq!(next.duration_since(start).as_secs(), 3600);
}

#[test]
fn hour_after_hour_over_the_end_of_summer_time() {
    let s = Stage::new();
    s.clock.set("2026-10-24T21:00:00Z".parse().unwrap());
    let keep = Keep { hourly: Some(24), ..Default::default() };
    s.set(&SnapshotPolicy { timezone: "Europe/Berlin".into(), schedules: vec![schedule("hourly", "@hourly", keep)], ..Default::default() });
    for _ in 0..8 {
        s.pass(HOUR);
    }
    let utc = ["10-24T22:00", "10-24T23:00", "10-25T00:00", "10-25T01:00", "10-25T02:00", "10-25T03:00", "10-25T04:00", "10-25T05:00"];
    assert_eq!(s.times("hourly"), utc, "the repeated hour is two");
    let aliases: Vec<String> = s.taken().into_iter().map(|s| s.alias.unwrap().to_string()).collect();
    assert_eq!(aliases[2..4], ["hourly-2026-10-25-0200", "hourly-2026-10-25-0200-2"]);
}

#[test]
fn a_pinned_snapshot_and_one_that_expires_are_left_alone() {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(1))]);
    let expiring = NewSnapshot { expiry: Some(1.into()), ..Default::default() };
    let expiring = s.host.create_snapshot(&Caller::default(), &s.container, expiring).unwrap().snapshot;
    s.pass(HOUR);
    let first = s.taken().remove(0);
    s.host.pin_snapshot(&Caller::default(), &s.container, first.name.as_str(), Some("release".into())).unwrap();
    for _ in 0..3 {
        s.pass(HOUR);
    }
    assert_eq!(s.times("hourly"), ["11-02T11:00", "11-02T14:00"]);
    assert!(s.host.snapshot(&s.container, expiring.name.as_str()).is_ok());
    // A policy without any schedule takes and removes nothing.
    s.set(&SnapshotPolicy { on: AutomaticSnapshots { stop: Some(Automatic::Switch(false)), ..Default::default() }, ..Default::default() });
    s.pass(DAY);
    assert_eq!(s.taken().len(), 2);
}

#[test]
fn many_containers_with_three_schedules_are_all_done() {
    let s = Stage::new();
    let names = ["five", "ten", "sixty"];
    let schedules = ["*/5 * * * *", "*/10 * * * *", "@hourly"].iter().zip(names).map(|(cron, name)| schedule(name, cron, last(2))).collect();
    let server = hoody_state::model::PolicyTarget::Server;
    s.host.set_snapshot_policy(&Caller::default(), &server, &SnapshotPolicy { schedules, ..Default::default() }).unwrap();
    let all: Vec<ContainerId> = (0..40).map(|n| container(&s.host, &s.project, &format!("box{n}")).unwrap()).collect();
    s.pass(HOUR);
    for c in &all {
        let mut own: Vec<String> = taken(&s.host, c).into_iter().map(|s| s.schedule.unwrap()).collect();
        own.sort();
        assert_eq!(own, ["five", "sixty", "ten"], "{c}");
    }
    let counts = s.host.schedule_counts().unwrap();
    assert_eq!((counts.taken, counts.failed, counts.under_way, counts.waiting), (41 * 3, 0, 0, 0));
    assert_clean(&s.host, "after many runs");
}

#[test]
fn the_runner_knows_the_run_after_the_one_that_it_has_just_begun() {
    let s = Stage::new();
    s.clock.set("2026-11-02T10:59:59.9Z".parse().unwrap());
    let (at, go_on) = s.world.stop_at("snapshot.schedule");
    s.schedules(&[("minutely", "* * * * *", last(9))]);
    // The runner's own thread does it all: it wakes at the time that it was asked for.
    s.clock.advance(Duration::from_millis(100));
    at.recv_timeout(Duration::from_secs(20)).expect("the first run does not begin");
    s.clock.advance(Duration::from_millis(59_500));
    go_on.send(()).unwrap();
    let has = |n: usize| {
        (0..400).any(|_| {
            s.taken().len() >= n || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        })
    };
    assert!(has(1), "the first run does not end");
    s.clock.advance(Duration::from_millis(500));
    assert!(has(2), "nothing wakes the runner for the second run");
    assert_eq!(s.times("minutely"), ["11-02T11:00", "11-02T11:01"]);
}
