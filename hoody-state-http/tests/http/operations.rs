//! The list of operations, as tokens of one project see it.

use crate::errors::world;
use crate::support::Server;
use hoody_state::host::{Caller, Settings};
use hoody_state::model::Verb;
use std::time::{Duration, Instant};

/// Operations of the other project: more than the catalog keeps for good, and far more than a page.
const OTHERS: usize = 10_050;

fn pause_and_resume(s: &Server, container: &str, operations: usize) {
    let container = container.parse().unwrap();
    for verb in [Verb::Pause, Verb::Resume].into_iter().cycle().take(operations) {
        s.host.lifecycle(&Caller::default(), &container, verb, None).unwrap();
    }
}

#[test]
fn a_token_of_one_project_lists_its_operations_without_reading_those_of_others() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let my_container = s.container(&mine, "box");
    let other_container = s.container(&other, "box");
    pause_and_resume(&s, &other_container, OTHERS);
    let token = s.scoped(&mine, true);
    let timed = |token: &str| {
        let started = Instant::now();
        let page = s.with_token(token, "GET", "/api/v1/operations?limit=50").send().data();
        (page, started.elapsed())
    };
    timed(&token);
    let (all, of_all) = timed(&s.token);
    let (scoped, of_scoped) = timed(&token);
    assert!(all["pagination"]["total"].as_u64().unwrap() > 9_000, "{}", all["pagination"]);
    let rows = scoped["operations"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|o| [&mine, &my_container].iter().any(|id| o["resource_id"] == id.as_str())), "{scoped}");
    assert_eq!(scoped["pagination"]["total"], rows.len());
    // Reading all of them, page by page, takes more than a hundred times as long as one page does.
    assert!(of_scoped < of_all * 10 + Duration::from_millis(20), "all: {of_all:?}, of one project: {of_scoped:?}");
}

#[test]
fn the_metrics_count_a_running_operation_behind_a_hundred_newer_ones() {
    let w = world(Settings::default());
    let project = w.s.project("p");
    let (held, other) = (w.s.container(&project, "held"), w.s.container(&project, "other"));
    std::thread::scope(|scope| {
        w.faults.hold("snapshot.create");
        let snapshot = scope.spawn(|| w.s.call("POST", &format!("/api/v1/containers/{held}/snapshots"), ""));
        w.faults.wait_held();
        pause_and_resume(&w.s, &other, 151);
        let text = w.s.bare("GET", "/metrics").send().text();
        w.faults.release();
        assert_eq!(snapshot.join().unwrap().status, 200);
        assert!(text.contains("hoody_state_operations_running 1\n"), "{text}");
        for (status, count) in [("running", 1), ("paused", 1)] {
            assert!(text.contains(&format!("hoody_state_containers{{status=\"{status}\"}} {count}\n")), "{text}");
        }
    });
}
