//! While no run of a schedule is due, its runner sleeps. A program of its own: threads of other tests would be counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::Caller;
use hoody_state::model::{PolicyTarget, SnapshotPolicy};
use hoody_state_workspace::{MemoryWorld, container, furnish};
use std::time::Duration;

/// How often the threads of this name have been put to sleep.
fn sleeps(name: &str) -> u64 {
    let of = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
        (field("Name:")? == name).then(|| field("voluntary_ctxt_switches:")?.parse::<u64>().ok())?
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(|t| of(t.ok()?)).sum()
}

#[test]
fn nothing_wakes_before_the_next_run() {
    let world = MemoryWorld::new();
    let host = world.host();
    let project = furnish(&host);
    for n in 0..20 {
        let id = container(&host, &project, &format!("box{n}")).unwrap();
        let policy: SnapshotPolicy = serde_json::from_value(serde_json::json!({ "schedules": [
            { "name": "leap-day", "cron": "0 0 29 2 *", "keep": { "last": 1 } }, { "name": "monthly", "cron": "17 3 3 * *", "keep": { "last": 1 } },
        ]}))
        .unwrap();
        host.set_snapshot_policy(&Caller::default(), &PolicyTarget::Container(id), &policy).unwrap();
    }
    host.run_due_schedules().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = sleeps("schedules");
    assert!(before > 0, "the runner's thread sleeps");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sleeps("schedules"), before, "it woke although nothing is due");
    assert_eq!(sleeps("schedule"), 0, "its workers have ended");
}
