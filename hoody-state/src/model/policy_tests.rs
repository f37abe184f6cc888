#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn policy(schedule: Value) -> SnapshotPolicy {
    serde_json::from_value(json!({ "schedules": [schedule] })).unwrap()
}

fn field_of(error: &Error) -> String {
    error.data().unwrap()["field"].as_str().unwrap().to_owned()
}

#[test]
fn defaults_are_filled_in() {
    let policy = policy(json!({ "name": "daily", "cron": "@daily", "keep": { "daily": 7 } }));
    policy.check_form().unwrap();
    assert_eq!(policy.timezone, "UTC");
    assert_eq!(policy.schedules[0].condition, While::Any);
    let shown = serde_json::to_value(&policy).unwrap();
    assert_eq!(
        shown,
        json!({ "timezone": "UTC", "on": {}, "schedules": [{ "name": "daily", "cron": "@daily", "keep": { "daily": 7 }, "only_if_changed": false, "while": "any" }] })
    );
    assert_eq!(serde_json::from_value::<SnapshotPolicy>(json!({})).unwrap(), SnapshotPolicy::default());
}

#[test]
fn each_field_that_is_wrong_is_named_with_its_schedule() {
    let good = json!({ "name": "daily", "cron": "@daily", "keep": { "daily": 7 } });
    let cases = [
        ("name", json!("Daily"), "schedules[0].name"),
        ("name", json!("-a"), "schedules[0].name"),
        ("name", json!(""), "schedules[0].name"),
        ("name", json!("x".repeat(33)), "schedules[0].name"),
        ("keep", json!({}), "schedules[0].keep"),
        ("keep", json!({ "last": 0, "daily": 0 }), "schedules[0].keep"),
        ("keep", json!({ "daily": 10_001 }), "schedules[0].keep.daily"),
        ("spread", json!("25h"), "schedules[0].spread"),
        ("cron", json!("1,".repeat(200)), "schedules[0].cron"),
        ("alias_pattern", json!(""), "schedules[0].alias_pattern"),
        ("alias_pattern", json!("x".repeat(101)), "schedules[0].alias_pattern"),
    ];
    for (field, value, path) in cases {
        let mut schedule = good.clone();
        schedule[field] = value.clone();
        let error = policy(schedule).check_form().unwrap_err();
        assert_eq!((error.code(), field_of(&error).as_str()), (Code::ValidationError, path), "{field}: {value}");
        assert!(error.message().starts_with(path), "{}", error.message());
    }
    let twice: SnapshotPolicy = serde_json::from_value(json!({ "schedules": [good, good] })).unwrap();
    assert_eq!(field_of(&twice.check_form().unwrap_err()), "schedules[1].name");
    let many: Vec<Value> = (0..17).map(|i| json!({ "name": format!("s{i}"), "cron": "@daily", "keep": { "last": 1 } })).collect();
    let many: SnapshotPolicy = serde_json::from_value(json!({ "schedules": many })).unwrap();
    assert_eq!(field_of(&many.check_form().unwrap_err()), "schedules");
    let on: SnapshotPolicy = serde_json::from_value(json!({ "on": { "oom": { "keep": 0 } } })).unwrap();
    assert_eq!(field_of(&on.check_form().unwrap_err()), "on.oom.keep");
}

#[test]
fn what_is_misspelt_or_of_another_type_is_refused() {
    let schedule = |extra: Value| {
        let mut schedule = json!({ "name": "daily", "cron": "@daily", "keep": { "daily": 7 } });
        schedule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ "schedules": [schedule] })
    };
    for bad in [
        json!({ "time_zone": "UTC" }),
        json!({ "on": { "crash": true } }),
        json!({ "on": { "stop": "yes" } }),
        json!({ "on": { "stop": { "max_age": 7 } } }),
        json!({ "on": { "stop": { "max_age": "0d" } } }),
        json!({ "on": { "stop": { "age": "7d" } } }),
        schedule(json!({ "kept": 7 })),
        schedule(json!({ "keep": { "daily": -1 } })),
        schedule(json!({ "keep": { "dayly": 1 } })),
        schedule(json!({ "while": "stopped" })),
        schedule(json!({ "max_age": "11y" })),
        schedule(json!({ "max_age": "3651d" })),
    ] {
        assert!(serde_json::from_value::<SnapshotPolicy>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn events_have_limits_of_their_own_or_the_defaults() {
    let on: AutomaticSnapshots = serde_json::from_value(json!({
        "stop": true, "oom": { "max_age": "2d" }, "restore": { "max_age": "3d" }, "exec_failure": false
    }))
    .unwrap();
    let limits = |max_age: Option<u64>, keep| Some(AutomaticLimits { max_age: max_age.map(Age::days), keep });
    assert_eq!(on.limits(AutomaticEvent::Stop), limits(Some(7), Some(5)));
    assert_eq!(on.limits(AutomaticEvent::Oom), limits(Some(2), Some(5)));
    assert_eq!(on.limits(AutomaticEvent::Restore), limits(Some(3), None));
    assert_eq!(on.limits(AutomaticEvent::ExecFailure), None);
    assert_eq!(on.limits(AutomaticEvent::BeforeDelete), None);
    let again: AutomaticSnapshots = serde_json::from_value(serde_json::to_value(on).unwrap()).unwrap();
    assert_eq!(again, on);
}
