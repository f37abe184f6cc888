//! How long the answer of a restore is held: `Prefer: wait`.

use crate::errors::{World, world};
use hoody_state::host::Settings;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A running container with the snapshot `one`: its path.
fn with_snapshot(w: &World) -> String {
    let project = w.s.project("p");
    let base = format!("/api/v1/containers/{}", w.s.container(&project, "box"));
    w.s.call("POST", &format!("{base}/snapshots"), r#"{"alias":"one"}"#).data();
    base
}

#[test]
fn a_restore_with_wait_0_is_answered_at_once_and_goes_on_as_an_operation() {
    let w = world(Settings::default());
    let base = with_snapshot(&w);
    w.faults.hold("snapshot.restore");
    let asked = Instant::now();
    let answer = w.s.request("PATCH", &format!("{base}/snapshots/one")).header("Prefer", "wait=0").send().data();
    assert!(asked.elapsed() < Duration::from_secs(5));
    w.faults.wait_held();
    assert_eq!((&answer["success"], &answer["snapshot"]), (&Value::from(true), &Value::Null), "{answer}");
    let operation = format!("/api/v1/operations/{}", answer["operation_id"].as_str().unwrap());
    assert_eq!(w.s.get(&operation).data()["status"], "running");
    assert!(w.s.get(&format!("{base}/snapshots/one")).data()["snapshot"]["last_used_at"].is_null());
    w.faults.release();
    let ended = w.s.request("GET", &operation).header("Prefer", "wait=20").send().data();
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(w.s.get(&format!("{base}/snapshots/one")).data()["snapshot"]["last_used_at"].is_string());
    assert_eq!(w.s.get(&base).data()["last_used_snapshot"], "one");
}

/// The published clients say nothing about waiting, and read the outcome of the restore from its answer.
#[test]
fn without_prefer_a_restore_and_its_undo_are_answered_when_they_have_ended() {
    let w = world(Settings::default());
    let base = with_snapshot(&w);
    for (method, path) in [("PATCH", "/snapshots/one"), ("POST", "/undo")] {
        std::thread::scope(|scope| {
            w.faults.hold("snapshot.restore");
            let restore = scope.spawn(|| w.s.call(method, &format!("{base}{path}"), "").data());
            w.faults.wait_held();
            // Longer than the answer of other changes is held.
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!restore.is_finished());
            w.faults.release();
            let answer = restore.join().unwrap();
            assert!(answer["snapshot"].is_object() && answer.get("operation_id").is_none(), "{answer}");
        });
    }
}
