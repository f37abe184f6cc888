//! Snapshots that nobody asked for, the trash, and rolling slots, on a host in memory: what they do, and a crash before every step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod events;
mod rolling;
mod trash;

use hoody_state::id::ContainerId;
use hoody_state::model::{PageRequest, Snapshot, Trigger};
use hoody_state::{Code, Host, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};
use std::time::{Duration, Instant};

/// A running container with one snapshot and changes since, under a policy.
fn stage(on: &str) -> (MemoryWorld, Host, ContainerId) {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    w.write(&c, "etc/passwd", "root");
    snapshot(&host, &c, "before").unwrap();
    w.write(&c, "etc/passwd", "changed");
    policy(&w, &c, on);
    (w, host, c)
}

/// Sets what the container's own policy says of events.
fn policy(w: &MemoryWorld, c: &ContainerId, on: &str) {
    let db = rusqlite::Connection::open(w.catalog_file()).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    let text = format!(r#"{{"timezone":"UTC","schedules":[],"on":{on}}}"#);
    db.execute("INSERT OR REPLACE INTO policies(scope, id, policy, updated_ms) VALUES('container', ?1, ?2, 0)", [c.as_str(), &text]).unwrap();
}

/// Waits for background operations.
fn settle(host: &Host) {
    let end = Instant::now() + Duration::from_secs(20);
    while host.operations(&PageRequest::first()).unwrap().rows.iter().any(|o| o.finished_at.is_none() && o.step.is_some()) {
        assert!(Instant::now() < end, "an operation does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something holds, which comes about in the background.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn of_trigger(host: &Host, c: &ContainerId, trigger: Trigger) -> Vec<Snapshot> {
    host.snapshots(c).unwrap().snapshots.into_iter().filter(|s| s.trigger == trigger).collect()
}

type Act = fn(&MemoryWorld, &Host, &ContainerId) -> Result<()>;
type Prepare = fn(&MemoryWorld, &Host, &ContainerId);
type Verify = fn(&MemoryWorld, &Host, &ContainerId, bool);

/// Crashes before each step of `act`, starts again and looks. The last argument of `verify`: whether the caller was given a result.
fn crash_at_each_step(name: &str, on: &str, prepare: Prepare, act: Act, verify: Verify) {
    let (w, host, c) = stage(on);
    prepare(&w, &host, &c);
    w.crash_at(0);
    act(&w, &host, &c).unwrap();
    settle(&host);
    let steps = w.steps();
    assert!(steps >= 2, "{name} has {steps} steps: too few to be journalled");
    verify(&w, &host, &c, true);
    assert_clean(&host, name);
    for n in 1..=steps {
        let (w, host, c) = stage(on);
        prepare(&w, &host, &c);
        w.crash_at(n);
        let out = act(&w, &host, &c);
        if let Err(e) = &out {
            assert_eq!(e.code(), Code::Crashed, "{name} step {n}: {e}");
        }
        settle(&host);
        drop(host);
        w.crash_at(0);
        let host = w.host();
        settle(&host);
        let when = format!("{name}, crashed at step {n} of {steps}");
        assert_clean(&host, &when);
        let open = host.operations(&PageRequest::first()).unwrap();
        assert!(open.rows.iter().all(|o| o.finished_at.is_some()), "{when}: an operation is open: {:?}", open.rows);
        verify(&w, &host, &c, out.is_ok());
    }
}
