//! A snapshot policy as a client sends it: the first line of the input is a cron text, the rest is the JSON of a policy whose first schedule gets that text.
//!
//! Whatever comes, it is refused with an error that names a field, or it can be asked when it runs and what it keeps; nothing that is protected is removed.
#![no_main]

use hoody_state::jiff::{SignedDuration, Timestamp};
use hoody_state::model::{Action, SnapshotPolicy, Trigger};
use hoody_state::retention::{Plan, Stamp, decide, simulate};
use libfuzzer_sys::fuzz_target;

fn stamps(plan: &Plan, now: Timestamp) -> Vec<Stamp> {
    let names = plan.schedules().iter().map(|s| Some(s.name().to_owned())).chain([None]);
    let mut stamps = Vec::new();
    for schedule in names {
        for i in -1i64..20 {
            stamps.push(Stamp {
                name: format!("s{}", stamps.len()).parse().expect("a name"),
                taken: now - SignedDuration::from_mins(i * i * i * 97),
                trigger: if schedule.is_some() { Trigger::Schedule } else { Trigger::Manual },
                schedule: schedule.clone(),
                pinned: i == 7,
                expires_at: None,
                is_base: i == 9,
                complete: i != 0,
            });
        }
    }
    stamps
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (cron, policy) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(mut policy) = serde_json::from_str::<SnapshotPolicy>(policy) else { return };
    if let Some(first) = policy.schedules.first_mut() {
        first.cron = cron.to_owned();
    }
    let plan = match Plan::new(&policy) {
        Ok(plan) => plan,
        Err(e) => {
            assert!(e.data().is_some_and(|d| d["field"].is_string()), "{e:?}");
            return;
        }
    };
    let now: Timestamp = "2026-10-25T00:30:00Z".parse().expect("a time");
    let container = "65f0c0ffee00000000000002".parse().expect("an id");
    assert!(plan.warnings(now).len() <= 2 * plan.schedules().len());
    for schedule in plan.schedules() {
        let next = schedule.next_after(now).expect("a cron text that never runs was accepted");
        assert!(next > now);
        let runs = schedule.between(now, next);
        assert_eq!((runs.count, runs.last), (1, Some(next)));
        assert!(schedule.alias(&"web".parse().expect("a name"), next).chars().count() <= 100);
        assert!(schedule.offset(&container) <= SignedDuration::from_hours(24));
    }
    let stamps = stamps(&plan, now);
    for (s, d) in stamps.iter().zip(decide(&stamps, &plan, now)) {
        let protected = s.pinned || s.is_base || !s.complete || s.taken > now || s.trigger == Trigger::Manual;
        assert!(d.action == Action::Keep || !protected, "{s:?}");
    }
    let _ = simulate(&stamps, &plan, &container, now, 3);
    let again: SnapshotPolicy = serde_json::from_value(serde_json::to_value(&policy).expect("JSON")).expect("what was written is read");
    assert_eq!(again, policy);
});
