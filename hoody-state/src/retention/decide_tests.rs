#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::SnapshotPolicy;
use jiff::SignedDuration;
use serde_json::{Value, json};

fn plan(zone: &str, schedules: Value) -> Plan {
    let policy: SnapshotPolicy = serde_json::from_value(json!({ "timezone": zone, "schedules": schedules })).unwrap();
    Plan::new(&policy).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn stamp(name: &str, schedule: &str, taken: Timestamp) -> Stamp {
    Stamp {
        name: name.parse().unwrap(),
        taken,
        trigger: Trigger::Schedule,
        schedule: Some(schedule.to_owned()),
        pinned: false,
        expires_at: None,
        is_base: false,
        complete: true,
    }
}

/// Snapshots of a schedule, one for each time by its cron text.
fn taken_by(plan: &Plan, schedule: &str, from: &str, until: &str) -> Vec<Stamp> {
    let schedule = plan.schedule(schedule).unwrap();
    let times = std::iter::successors(schedule.next_after(at(from)), |t| schedule.next_after(*t)).take_while(|t| *t <= at(until));
    times.map(|t| stamp(&format!("{}-{}", schedule.name(), t.as_second()), schedule.name(), t)).collect()
}

/// What is left after a run at `now`: for each snapshot its time in the zone and why it is there.
fn left(stamps: &mut Vec<Stamp>, plan: &Plan, now: &str) -> Vec<String> {
    let decisions = decide(stamps, plan, at(now));
    let mut kept = Vec::new();
    let mut places = decisions.iter();
    stamps.retain(|s| {
        let decision = places.next().unwrap();
        let because: Vec<String> =
            decision.reasons.iter().map(|r| format!("{} {} {}{}", r.tier.as_str(), r.nth, r.bucket, if r.oldest { " oldest" } else { "" })).collect();
        let line = format!("{}: {}", s.name, because.join(", "));
        if decision.action == Action::Keep {
            kept.push(decision.protected_by.map_or_else(|| line.clone(), |p| format!("{line} ({p:?})")));
        }
        decision.action == Action::Keep
    });
    kept
}

fn names(stamps: &[Stamp]) -> Vec<&str> {
    stamps.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn a_machine_that_was_off_for_two_weeks_loses_nothing() {
    let plan = plan("Europe/Berlin", json!([{ "name": "daily", "cron": "0 3 * * *", "keep": { "daily": 7 } }]));
    let mut stamps = taken_by(&plan, "daily", "2026-11-01T00:00:00Z", "2026-11-08T00:00:00Z");
    left(&mut stamps, &plan, "2026-11-08T00:00:00Z");
    assert_eq!(stamps.len(), 7);
    // Two weeks later nothing has gone; the run that is made up for is one more day, so exactly the oldest day goes.
    let before: Vec<String> = names(&stamps).iter().map(ToString::to_string).collect();
    left(&mut stamps, &plan, "2026-11-22T09:00:00Z");
    assert_eq!(names(&stamps), before);
    stamps.push(stamp("made-up", "daily", at("2026-11-22T09:00:00Z")));
    left(&mut stamps, &plan, "2026-11-22T09:00:00Z");
    let expected: Vec<&str> = before[1..].iter().map(String::as_str).chain(["made-up"]).collect();
    assert_eq!(names(&stamps), expected);
}

#[test]
fn at_the_end_of_summer_time_the_repeated_hour_is_two_buckets() {
    let plan = plan("Europe/Berlin", json!([{ "name": "hourly", "cron": "@hourly", "keep": { "hourly": 24, "daily": 2 } }]));
    // 01:00 to 04:00 on the clock are four hours and five snapshots.
    let mut stamps = taken_by(&plan, "hourly", "2026-10-24T22:59:59Z", "2026-10-25T03:00:00Z");
    assert_eq!(stamps.len(), 5);
    let kept = left(&mut stamps, &plan, "2026-10-25T03:00:00Z");
    assert_eq!(kept.len(), 5);
    assert!(kept[1].contains("hourly 4 2026-10-25T02+02:00") && kept[2].contains("hourly 3 2026-10-25T02+01:00"), "{kept:#?}");
    // The day of 25 hours is one day.
    let mut stamps = taken_by(&plan, "hourly", "2026-10-24T21:59:59Z", "2026-10-26T22:59:59Z");
    assert_eq!(stamps.len(), 25 + 24);
    let kept = left(&mut stamps, &plan, "2026-10-26T22:59:59Z");
    assert!(kept[0].contains("daily 2 2026-10-25"), "{kept:#?}");
    assert_eq!(kept.len(), 24 + 1);
}

#[test]
fn two_schedules_on_one_container_decide_about_their_own_snapshots_alone() {
    let plan =
        plan("UTC", json!([{ "name": "hourly", "cron": "@hourly", "keep": { "last": 3 } }, { "name": "daily", "cron": "@daily", "keep": { "daily": 2 } }]));
    let mut stamps = taken_by(&plan, "hourly", "2026-11-27T23:00:00Z", "2026-11-29T12:00:00Z");
    stamps.extend(taken_by(&plan, "daily", "2026-11-24T23:00:00Z", "2026-11-29T12:00:00Z"));
    stamps.push(stamp("of-another-policy", "weekly", at("2020-01-01T00:00:00Z")));
    let kept = left(&mut stamps, &plan, "2026-11-29T12:00:00Z");
    assert_eq!(
        kept,
        [
            "hourly-1795946400: last 3 2026-11-29T10:00:00+00:00",
            "hourly-1795950000: last 2 2026-11-29T11:00:00+00:00",
            "hourly-1795953600: last 1 2026-11-29T12:00:00+00:00 (Newest)",
            "daily-1795824000: daily 2 2026-11-28",
            "daily-1795910400: daily 1 2026-11-29 (Newest)",
            "of-another-policy:  (OtherSchedule)",
        ]
    );
}

#[test]
fn a_snapshot_dated_2042_is_ignored_and_reported() {
    let plan = plan("UTC", json!([{ "name": "daily", "cron": "@daily", "keep": { "daily": 2 }, "max_age": "3d" }]));
    let mut stamps = taken_by(&plan, "daily", "2026-11-20T12:00:00Z", "2026-11-29T12:00:00Z");
    stamps.push(stamp("future", "daily", at("2042-01-01T00:00:00Z")));
    let kept = left(&mut stamps, &plan, "2026-11-29T12:00:00Z");
    assert_eq!(kept, ["daily-1795824000: daily 2 2026-11-28", "daily-1795910400: daily 1 2026-11-29 (Newest)", "future:  (Future)"]);
    // It does not stand in for the newest when all others are too old.
    let kept = left(&mut stamps, &plan, "2026-12-20T12:00:00Z");
    assert_eq!(kept, ["daily-1795910400:  (Newest)", "future:  (Future)"]);
}

#[test]
fn nothing_that_is_protected_is_removed() {
    let plan = plan("UTC", json!([{ "name": "daily", "cron": "@daily", "keep": { "last": 1 }, "max_age": "1d" }]));
    let old = at("2020-01-01T00:00:00Z");
    let mut stamps: Vec<Stamp> =
        Trigger::ALL.iter().filter(|t| **t != Trigger::Schedule).map(|t| Stamp { trigger: *t, schedule: None, ..stamp(&format!("of-{t}"), "", old) }).collect();
    stamps.push(Stamp { pinned: true, ..stamp("pinned", "daily", old) });
    stamps.push(Stamp { is_base: true, ..stamp("base", "daily", old) });
    stamps.push(Stamp { complete: false, ..stamp("incomplete", "daily", old) });
    stamps.push(stamp("plain", "daily", old));
    stamps.push(stamp("newest", "daily", old + SignedDuration::from_hours(1)));
    // A manual snapshot may have the name of a schedule in it, and is still not the schedule's.
    stamps.push(Stamp { trigger: Trigger::Manual, ..stamp("by-hand", "daily", old) });
    let before = stamps.len();
    let kept = left(&mut stamps, &plan, "2026-11-29T12:00:00Z");
    assert_eq!(stamps.len(), before - 1);
    assert!(!names(&stamps).contains(&"plain"), "{kept:?}");
    for (name, why) in [
        ("of-restore", "Undo"),
        ("of-stop", "Event"),
        ("of-manual", "Manual"),
        ("pinned", "Pinned"),
        ("base", "Base"),
        ("incomplete", "Incomplete"),
        ("newest", "Newest"),
    ] {
        assert!(kept.iter().any(|k| k.starts_with(&format!("{name}:")) && k.ends_with(&format!("({why})"))), "{name}: {kept:#?}");
    }
}

#[test]
fn the_oldest_is_kept_while_a_rule_is_not_full() {
    let plan = plan("UTC", json!([{ "name": "s", "cron": "@hourly", "keep": { "monthly": 2 } }]));
    let mut stamps = taken_by(&plan, "s", "2026-11-01T23:30:00Z", "2026-11-03T12:00:00Z");
    assert_eq!(left(&mut stamps, &plan, "2026-11-03T12:00:00Z"), ["s-1793577600: monthly 2 2026-11 oldest", "s-1793707200: monthly 1 2026-11 (Newest)"]);
    // A second month fills the rule: the oldest is no longer needed.
    stamps.push(stamp("december", "s", at("2026-12-01T00:00:00Z")));
    assert_eq!(left(&mut stamps, &plan, "2026-12-01T00:00:00Z"), ["s-1793707200: monthly 2 2026-11", "december: monthly 1 2026-12 (Newest)"]);
}

#[test]
fn weeks_are_iso_weeks_and_days_are_those_of_the_zone() {
    let weekly = |zone: &str| plan(zone, json!([{ "name": "s", "cron": "@daily", "keep": { "weekly": 9 } }]));
    let days = ["2020-12-27T12:00:00Z", "2020-12-28T12:00:00Z", "2021-01-03T12:00:00Z", "2021-01-04T12:00:00Z"];
    let stamps: Vec<Stamp> = days.iter().enumerate().map(|(i, t)| stamp(&format!("s{i}"), "s", at(t))).collect();
    let kept = left(&mut stamps.clone(), &weekly("UTC"), "2021-02-01T00:00:00Z");
    assert_eq!(kept, ["s0: weekly 3 2020-W52", "s2: weekly 2 2020-W53", "s3: weekly 1 2021-W01 (Newest)"]);
    // In Auckland it is Monday already.
    let kept = left(&mut stamps.clone(), &weekly("Pacific/Auckland"), "2021-02-01T00:00:00Z");
    assert_eq!(kept, ["s0: weekly 3 2020-W53 oldest", "s1: weekly 2 2020-W53", "s3: weekly 1 2021-W01 (Newest)"]);
}
