//! A kill before every step of a scheduled snapshot, which no request asks for: the server starts, and finds that it is due.

use crate::server::Request;
use crate::steps::on;
use crate::world::World;
use serde_json::{Value, json};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How long a run may take after the start of the server.
const LONGEST_RUN: Duration = Duration::from_secs(20);

/// The snapshots of schedules, by name.
fn taken(w: &World, c: &str) -> Vec<(String, Value)> {
    let list = w.get(&format!("/containers/{c}/snapshots"));
    let own = list["snapshots"].as_array().unwrap().iter().filter(|s| s["trigger"] == "schedule");
    own.map(|s| (s["name"].as_str().unwrap().to_owned(), s.clone())).collect()
}

/// Makes the run that was due at `due_ms` the next one. No server may run.
fn make_due(w: &World, due_ms: u64) {
    let catalog = rusqlite::Connection::open(w.server.pool().join("catalog/catalog.sqlite")).unwrap();
    let changed = catalog.execute("UPDATE schedules SET due_ms = ?1, next_due_ms = ?1", [due_ms]).unwrap();
    assert_eq!(changed, 1, "one schedule of one container");
}

/// Waits until the run is over, with nothing left to remove; false when the server dies meanwhile.
fn outlives_the_run(w: &mut World, c: &str, before: &[(String, Value)]) -> bool {
    let end = Instant::now() + LONGEST_RUN;
    while w.settle() {
        let now = taken(w, c);
        if now.len() == 1 && before.iter().all(|(name, _)| *name != now[0].0) && w.settle() {
            return true;
        }
        assert!(Instant::now() < end, "the run does not end: {now:?}\n{}", w.server.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

pub fn scheduled(w: &mut World, c: &str) {
    // Half an hour ago, and not again within the next half.
    let minutes = UNIX_EPOCH.elapsed().unwrap().as_secs() / 60;
    let due_ms = (minutes - 30) * 60_000;
    let schedule = json!({ "name": "hourly", "cron": format!("{} * * * *", (minutes - 30) % 60), "keep": { "last": 1 } });
    w.must(&on(c, "PUT", "/snapshot-policy").json(&json!({ "schedules": [schedule] })));
    for n in 0.. {
        assert!(n < 40, "the run has no end of steps");
        w.write(c, &format!("run {n}"));
        let before = taken(w, c);
        w.server.end();
        make_due(w, due_ms);
        // In round 0 the steps are only counted: it makes the first snapshot, which the others remove.
        std::fs::write(w.server.arm(), format!("{n}\n")).unwrap();
        w.server.spawn();
        let survived = outlives_the_run(w, c, &before);
        let steps = std::fs::read_to_string(w.server.arm()).unwrap();
        std::fs::remove_file(w.server.arm()).unwrap();
        let steps: Vec<&str> = steps.lines().skip(1).collect();
        let when = format!("the run, {} step {n} ({steps:?})", if survived { "not killed at" } else { "killed before" });
        println!("{when}");
        if !survived {
            w.server.kill();
            w.server.start();
            let end = Instant::now() + LONGEST_RUN;
            while taken(w, c).iter().all(|s| before.contains(s)) {
                assert!(Instant::now() < end, "{when}: the run is lost\n{}", w.server.log_tail());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        w.sound();
        let new: Vec<_> = taken(w, c).into_iter().filter(|s| !before.contains(s)).collect();
        assert_eq!(new.len(), 1, "{when}: one snapshot for the run: {new:?}");
        let (name, snapshot) = &new[0];
        assert_eq!((&snapshot["schedule"], &snapshot["missed"]), (&json!("hourly"), &json!(1)), "{when}");
        assert_eq!(w.view(c).unwrap().snapshots[name].1, format!("run {n}"), "{when}");
        w.works(c);
        // What the killed run did not remove is left to the next one: that is not in an hour here.
        for (left, _) in taken(w, c).iter().filter(|(left, _)| left != name) {
            w.must(&Request::new("DELETE", format!("/containers/{c}/snapshots/{left}")));
        }
        if survived && n > 0 {
            assert!(steps.len() >= 5, "a snapshot and a deletion have more steps than {steps:?}");
            return;
        }
    }
}
