//! Faults of a whole machine: a disk that fails, and a clock that jumps.

use crate::disk::Cache;
use crate::guest::Agent;
use crate::load::{View, waiting};
use crate::server::{Host, POOL, Storage, get, must, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A machine with one container that has a snapshot, on a thread of its own: a machine's network is a thread's.
fn on_a_machine(name: &'static str, storage: Storage, test: fn(Host, String)) {
    let run = move || {
        let host = Host::new(name, storage);
        host.import("busybox");
        let project = must("POST", "/projects", &json!({ "alias": "p" }))["id"].as_str().unwrap().to_owned();
        let new = json!({ "name": "agent", "command": waiting() });
        let id = must("POST", &format!("/projects/{project}/containers"), &new)["id"].as_str().unwrap().to_owned();
        host.await_status(&id, "running");
        write(&id, "first");
        snapshot(&id, &json!({ "alias": "first" }));
        test(host, id);
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn write(id: &str, text: &str) {
    Agent::connect().unwrap().write(&format!("{POOL}/containers/{id}/live/state"), text).unwrap();
}

fn snapshot(id: &str, new: &Value) {
    must("POST", &format!("/containers/{id}/snapshots"), new);
}

fn aliases(id: &str) -> Vec<String> {
    get(&format!("/containers/{id}/snapshots"))["snapshots"].as_array().unwrap().iter().filter_map(|s| s["alias"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_disk_that_fails_under_an_image() {
    on_a_machine("failing-image", Storage::Image, |host, id| a_disk_fails(host, &id));
}

#[test]
fn a_disk_that_fails_under_a_pool() {
    on_a_machine("failing-device", Storage::Device, |host, id| a_disk_fails(host, &id));
}

/// Every write and every flush is answered with EIO. Changes are refused with an error that says so, reads go on; on a sound disk, after the machine was
/// switched off and on, everything that was acknowledged is there.
fn a_disk_fails(mut host: Host, id: &str) {
    host.settle();
    host.machine.fail_writes(true);
    let mut refused = 0;
    let mut acknowledged = vec!["first".to_owned()];
    let end = Instant::now() + Duration::from_secs(90);
    for n in 0.. {
        if refused >= 5 {
            break;
        }
        assert!(Instant::now() < end, "changes are still acknowledged on a disk that fails: {acknowledged:?}");
        let alias = format!("failing-{n}");
        let answer = send("POST", &format!("/containers/{id}/snapshots"), json!({ "alias": alias }).to_string().as_bytes()).expect("the server answers");
        if answer.status < 300 {
            acknowledged.push(alias);
        } else if !answer.is_busy() {
            let (code, message) = (answer.body["code"].as_str().unwrap_or_default(), answer.body["message"].as_str().unwrap_or_default());
            assert!(answer.status >= 500 && !code.is_empty() && message.len() > 15, "{} {}", answer.status, answer.body);
            assert_ne!(code, "internal", "{message}");
            refused += 1;
            println!("{} {code}: {message}", answer.status);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    // What the kernel could not write it may forget, the catalog's newest pages among it: reads may fail as well, and say so.
    for path in ["/pool", "/containers", &format!("/containers/{id}/snapshots")] {
        let answer = send("GET", path, b"").expect("the server answers");
        assert!([200, 500].contains(&answer.status), "{path}: {}", answer.body);
    }
    assert!(!host.machine.console_tail().contains("panicked at"), "something panicked:\n{}", host.machine.console_tail());
    host.machine.kill();
    println!("{}", host.cut(Cache::Lost));
    host.machine.fail_writes(false);
    host.boot();
    host.serve();
    host.settle();
    host.check();
    let there = aliases(id);
    assert!(acknowledged.iter().all(|a| there.contains(a)), "acknowledged {acknowledged:?}, found {there:?}");
    host.await_status(id, "running");
    assert_eq!(host.exec(id, "cat /state"), (0, "first".into()));
    snapshot(id, &json!({ "alias": "afterwards" }));
}

#[test]
fn a_clock_that_jumps() {
    on_a_machine("clock", Storage::Image, |host, id| {
        let jump = |by: &str| drop(Agent::connect().unwrap().sh(&format!("date -s '{by}'")));
        let goes = |alias: &str| {
            let end = Instant::now() + Duration::from_secs(60);
            while aliases(&id).iter().any(|a| a == alias) {
                assert!(Instant::now() < end, "{alias} has expired and is still there");
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        // Forward: what has expired goes at once, and nothing else does.
        snapshot(&id, &json!({ "alias": "a-day", "expiry": 1 }));
        snapshot(&id, &json!({ "alias": "ten-days", "expiry": 10 }));
        jump("+3 days");
        goes("a-day");
        assert_eq!(aliases(&id).iter().filter(|a| *a == "first" || *a == "ten-days").count(), 2);

        // Back: what is done then is done, in its order, and nothing waits for the old time to come again.
        let began = Instant::now();
        jump("-20 days");
        for n in 0..3 {
            write(&id, &format!("back {n}"));
            snapshot(&id, &json!({ "alias": format!("back-{n}") }));
        }
        must("PATCH", &format!("/containers/{id}/snapshots/back-1"), &Value::Null);
        assert_eq!(View::of(&id).unwrap().state, "back 1");
        let (code, _) = host.exec(&id, "sleep 1");
        assert_eq!(code, 0);
        host.settle();
        assert!(began.elapsed() < Duration::from_secs(60), "operations wait for the clock: {:?}", began.elapsed());

        // In the middle of a command, both ways.
        for by in ["+400 days", "-400 days"] {
            let began = Instant::now();
            std::thread::scope(|s| {
                let command = s.spawn(|| host.exec(&id, "sleep 2; echo done"));
                std::thread::sleep(Duration::from_secs(1));
                jump(by);
                assert_eq!(command.join().unwrap(), (0, "done\n".into()), "{by}");
            });
            assert!(began.elapsed() < Duration::from_secs(60), "{by}: {:?}", began.elapsed());
        }
        // Ten days after a time that is past again, or not: it was made before both jumps, and the clock stood beyond its end for a moment.
        assert!(aliases(&id).iter().any(|a| a == "first"), "a snapshot without an expiry never goes");
        snapshot(&id, &json!({ "alias": "short", "expiry": 1 }));
        jump("+2 days");
        goes("short");
        host.settle();
        host.check();
        assert!(!host.machine.console_tail().contains("panicked at"), "something panicked:\n{}", host.machine.console_tail());
    });
}
