#![allow(clippy::unwrap_used)]
use super::*;
use crate::Code;
use serde_json::json;

fn plan(schedule: serde_json::Value) -> Result<Plan> {
    let mut whole = json!({ "name": "daily", "cron": "@daily", "keep": { "daily": 7 } });
    whole.as_object_mut().unwrap().extend(schedule.as_object().unwrap().clone());
    Plan::new(&serde_json::from_value(json!({ "timezone": "Europe/Berlin", "schedules": [whole] })).unwrap())
}

#[test]
fn a_time_zone_must_be_one_of_the_database() {
    for good in ["UTC", "Europe/Berlin", "europe/berlin", "Etc/GMT+5", "Australia/Lord_Howe"] {
        assert!(Plan::new(&SnapshotPolicy { timezone: good.to_owned(), ..Default::default() }).is_ok(), "{good}");
    }
    for bad in ["", "Berlin", "Europe/Atlantis", "+02:00", "Etc/Unknown", "../../etc/localtime", "local", &"x".repeat(100_000)] {
        let error = Plan::new(&SnapshotPolicy { timezone: bad.to_owned(), ..Default::default() }).unwrap_err();
        assert_eq!((error.code(), error.data().unwrap()["field"].as_str()), (Code::ValidationError, Some("timezone")), "{bad}");
        assert!(error.message().len() < 300);
    }
}

#[test]
fn what_a_schedule_says_wrongly_is_named() {
    for (field, value) in [
        ("cron", json!("0 0 30 2 *")),
        ("cron", json!("* * * * * *")),
        ("alias_pattern", json!("%Y {project}")),
        ("alias_pattern", json!("%")),
        ("alias_pattern", json!("%Q%")),
        ("alias_pattern", json!("   ")),
        ("alias_pattern", json!("a%nb")),
    ] {
        let error = plan(json!({ field: value.clone() })).unwrap_err();
        assert_eq!(error.data().unwrap()["field"], format!("schedules[0].{field}"), "{value}");
        assert!(error.message().contains("\"daily\""), "{}", error.message());
    }
}

#[test]
fn an_alias_is_made_of_names_and_the_time_in_the_zone() {
    let alias = |pattern: Option<&str>| {
        let plan = plan(pattern.map_or(json!({}), |p| json!({ "alias_pattern": p }))).unwrap();
        plan.schedules()[0].alias(&"web-1".parse().unwrap(), "2026-10-25T00:30:00Z".parse().unwrap())
    };
    assert_eq!(alias(None), "daily-2026-10-25-0230");
    assert_eq!(alias(Some("{container}/{schedule} %G-W%V %:z")), "web-1/daily 2026-W43 +02:00");
    assert_eq!(alias(Some(&"ä".repeat(100))).chars().count(), 100);
    assert_eq!(alias(Some(&"%200Y".repeat(20))).chars().count(), 100);
}

#[test]
fn a_container_has_its_own_place_in_the_spread() {
    let plan = plan(json!({ "spread": "10m" })).unwrap();
    let schedule = &plan.schedules()[0];
    let offsets: Vec<i64> = (0..1000).map(|i| schedule.offset(&format!("{i:024x}").parse().unwrap()).as_millis() as i64).collect();
    assert_eq!(offsets[7], schedule.offset(&format!("{:024x}", 7).parse().unwrap()).as_millis() as i64);
    assert!(offsets.iter().all(|ms| (0..600_000).contains(ms)));
    // In each minute about a tenth of them.
    for minute in 0..10 {
        let here = offsets.iter().filter(|ms| **ms / 60_000 == minute).count();
        assert!((60..=140).contains(&here), "{here} of 1000 in minute {minute}");
    }
    // A fixed value: a new version must not move the runs of all containers.
    assert_eq!(schedule.offset(&"65f0c0ffee00000000000002".parse().unwrap()).as_millis(), 514_685);
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let now = "2026-11-29T10:00:00Z".parse().unwrap();
    let warned = |schedule| plan(schedule).unwrap().warnings(now);
    assert!(warned(json!({})).is_empty());
    assert!(warned(json!({ "max_age": "7d", "spread": "1h" })).is_empty());
    assert!(warned(json!({ "max_age": "6d" }))[0].contains("keep.daily = 7"));
    assert!(warned(json!({ "cron": "@hourly", "spread": "1h" }))[0].contains("spread (1h)"));
}

#[test]
fn runs_that_were_missed_are_counted_and_the_last_is_made_up_for() {
    let plan = plan(json!({ "cron": "0 3 * * *" })).unwrap();
    let schedule = &plan.schedules()[0];
    let last_run: Timestamp = "2026-11-19T02:00:00Z".parse().unwrap();
    let back: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
    let runs = schedule.between(last_run, back);
    assert_eq!(runs, Runs { count: 10, last: Some("2026-11-29T02:00:00Z".parse().unwrap()) });
    assert_eq!(schedule.next_after(runs.last.unwrap()), Some("2026-11-30T02:00:00Z".parse().unwrap()));
}
