#![allow(clippy::unwrap_used)]
use super::super::{Stamp, decide};
use super::*;
use crate::Code;
use crate::model::{Action, SnapshotPolicy};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn plan(zone: &str, schedules: Value) -> Plan {
    let policy: SnapshotPolicy = serde_json::from_value(json!({ "timezone": zone, "schedules": schedules })).unwrap();
    Plan::new(&policy).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn container() -> ContainerId {
    "65f0c0ffee00000000000002".parse().unwrap()
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

#[test]
fn each_day_shows_what_would_exist_at_its_end() {
    let plan = plan("Europe/Berlin", json!([{ "name": "daily", "cron": "0 3 * * *", "keep": { "daily": 3 } }]));
    let now = at("2026-11-29T10:00:00Z");
    let existing = [
        stamp("old", "daily", at("2026-11-01T02:00:00Z")),
        Stamp { trigger: Trigger::Manual, schedule: None, ..stamp("by-hand", "", at("2026-11-02T00:00:00Z")) },
        Stamp { trigger: Trigger::Stop, schedule: None, expires_at: Some(at("2026-12-01T12:00:00Z")), ..stamp("stopped", "", at("2026-11-24T12:00:00Z")) },
        Stamp { pinned: true, ..stamp("pinned", "daily", at("2026-11-02T02:00:00Z")) },
    ];
    let days = simulate(&existing, &plan, &container(), now, 5).unwrap();
    let shown: Vec<String> = days
        .iter()
        .map(|d| {
            let names = d.snapshots.iter().map(|s| s.name.as_ref().map_or_else(|| s.taken_at.strftime("%d").to_string(), ToString::to_string));
            format!("{} +{} -{} {} others: {}", d.date, d.taken, d.removed, d.others, names.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "2026-11-29 +0 -0 2 others: pinned old",
            "2026-11-30 +1 -0 2 others: 30 pinned old",
            "2026-12-01 +1 -1 1 others: 01 30 pinned",
            "2026-12-02 +1 -0 1 others: 02 01 30 pinned",
            "2026-12-03 +1 -1 1 others: 03 02 01 pinned",
        ]
    );
}

/// The same with `decide` alone, run by run.
fn step_by_step(mut stamps: Vec<Stamp>, plan: &Plan, now: Timestamp, end: Timestamp) -> BTreeSet<(String, Timestamp)> {
    let mut starts: Vec<(Timestamp, &str)> = Vec::new();
    for schedule in plan.schedules() {
        let delay = schedule.offset(&container());
        let times = std::iter::successors(schedule.next_after(now - delay), |t| schedule.next_after(*t));
        starts.extend(times.map(|t| (t + delay, schedule.name())).take_while(|(t, _)| *t < end));
    }
    starts.sort();
    for (i, (t, schedule)) in starts.into_iter().enumerate() {
        stamps.push(stamp(&format!("new-{i}"), schedule, t));
        let mut decisions = decide(&stamps, plan, t).into_iter();
        // A run prunes its own schedule's snapshots; the others' are pruned by theirs.
        stamps.retain(|s| decisions.next().unwrap().action == Action::Keep || s.schedule.as_deref() != Some(schedule));
    }
    stamps.into_iter().map(|s| (s.schedule.unwrap(), s.taken)).collect()
}

#[test]
fn the_days_are_those_of_one_run_after_another() {
    let schedules = json!([
        { "name": "often", "cron": "*/20 * * * *", "keep": { "last": 2, "hourly": 5, "daily": 2 }, "spread": "19m" },
        { "name": "daily", "cron": "30 2 * * *", "keep": { "daily": 3, "weekly": 2, "monthly": 1 }, "max_age": "20d", "spread": "6h" },
    ]);
    for (zone, now) in [
        ("Europe/Berlin", "2026-10-20T09:10:00Z"),
        ("Australia/Lord_Howe", "2026-03-30T09:10:00Z"),
        ("Pacific/Apia", "2011-12-20T09:10:00Z"),
        ("UTC", "2026-12-28T23:59:59Z"),
    ] {
        let plan = plan(zone, schedules.clone());
        let now = at(now);
        let before = |hours: i64| now - SignedDuration::from_hours(hours);
        let mut stamps: Vec<Stamp> = (1..40).map(|i| stamp(&format!("d{i}"), "daily", before(i * 24))).collect();
        stamps.extend((1..50).map(|i| stamp(&format!("o{i}"), "often", before(i))));
        stamps.push(stamp("ahead", "often", now + SignedDuration::from_hours(30)));
        let days = simulate(&stamps, &plan, &container(), now, 24).unwrap();
        let mut date = plan.time_zone().to_datetime(now).date();
        for day in days {
            let (next, end) = end_of_day(plan.time_zone(), date).unwrap();
            let simulated: BTreeSet<(String, Timestamp)> = day.snapshots.iter().map(|s| (s.schedule.clone(), s.taken_at)).collect();
            assert_eq!(simulated, step_by_step(stamps.clone(), &plan, now, end), "{zone} {}", day.date);
            date = next;
        }
    }
}

#[test]
fn a_simulation_has_bounds_that_its_error_names() {
    let plan = plan("UTC", json!([{ "name": "often", "cron": "0 */6 * * *", "keep": { "last": 5000 } }]));
    let now = at("2026-11-29T10:00:00Z");
    for days in [0, 401, u32::MAX] {
        assert_eq!(simulate(&[], &plan, &container(), now, days).unwrap_err().code(), Code::ValidationError);
    }
    let error = simulate(&[], &plan, &container(), now, 400).unwrap_err();
    assert_eq!(error.data().unwrap()["field"], "simulate_days");
    let possible: u32 = error.message().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..400).contains(&possible), "{}", error.message());
    assert_eq!(simulate(&[], &plan, &container(), now, possible).unwrap().len(), possible as usize);
    assert!(simulate(&[], &plan, &container(), now, possible + 1).is_err());
}
