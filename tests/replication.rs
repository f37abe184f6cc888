//! Two real servers on two real pools, each in a network of its own with a wire between: copies, syncs and moves through cuts and kills of either side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code)]

#[path = "kill/leftovers.rs"]
mod leftovers;
#[path = "kill/rng.rs"]
mod rng;
#[path = "kill/server.rs"]
mod server;
#[path = "replication/wire.rs"]
mod wire;

use rng::Rng;
use serde_json::json;
use std::time::Duration;
use wire::Fleet;

/// Two trees, line by line.
fn same(a: &str, b: &str) {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let differ: Vec<String> =
        a.iter().filter(|l| !b.contains(l)).map(|l| format!("- {l}")).chain(b.iter().filter(|l| !a.contains(l)).map(|l| format!("+ {l}"))).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn a_container_is_copied_synced_and_moved_byte_for_byte() {
    let f = Fleet::new("replication");
    let c = f.container("agent");
    f.a.fill(&c);
    f.a.snapshot(&c, "first");
    f.a.sh(&c, "echo two > /state; rm -r /data/dir-3; mv /data/dir-4 /data/moved; ln -s /nowhere /data/link");
    f.a.snapshot(&c, "second");
    f.a.sh(&c, "echo three > /state; dd if=/dev/urandom of=/log bs=1M count=2 2>/dev/null");
    let copy = f.copy(&c, &json!({ "name": "standby" }));
    f.b.until(&copy, "running");
    for s in ["first", "second"] {
        same(&f.a.tree(&c, &format!("snapshots/{s}")), &f.b.tree(&copy, &format!("snapshots/{s}")));
    }
    assert_eq!(f.b.sh(&copy, "cat /state"), "three\n");
    assert_eq!(f.a.get(&format!("/containers/{copy}"))["status"], "running", "where it was ordered it is known");

    // Nothing changed: nothing goes over.
    f.b.post(&format!("/containers/{copy}/stop"), &json!({}));
    f.b.until(&copy, "stopped");
    let before = f.bytes();
    let nothing = f.b.sync(&copy);
    assert_eq!(nothing["changed"], false, "{nothing}");
    println!("a sync without changes took {} bytes on the wire", f.bytes() - before);
    let before = f.bytes();
    f.b.sync(&copy);
    println!("the next one {} bytes", f.bytes() - before);
    // The file gets a hole, as a log does whose writer goes on at its old place after it was truncated.
    f.a.sh(
        &c,
        "echo four > /state; : > /log; echo line | dd of=/log bs=1M seek=2 conv=notrunc 2>/dev/null; dd if=/dev/urandom of=/data/new bs=1M count=4 2>/dev/null",
    );
    let synced = f.b.sync(&copy);
    assert_eq!((&synced["changed"], &synced["kept"]), (&json!(true), &json!(null)), "{synced}");
    let newest = f.b.newest(&copy);
    same(&f.a.tree(&c, &format!("snapshots/{}", f.a.newest(&c))), &f.b.tree(&copy, &format!("snapshots/{newest}")));
    same(&f.b.tree(&copy, "live"), &f.b.tree(&copy, &format!("snapshots/{newest}")));

    // Whoever is root in the container says of its live volume that it is what both have already, and makes it read-only: it is compared all the same.
    f.a.sh(&c, "echo five > /state");
    let known = f.a.identity(&c, &format!("snapshots/{}", f.a.newest(&c)));
    f.a.forge(&c, Some(known));
    let synced = f.b.sync(&copy);
    assert_eq!(synced["changed"], true, "{synced}");
    same(&f.a.tree(&c, &format!("snapshots/{}", f.a.newest(&c))), &f.b.tree(&copy, "live"));
    assert_eq!(std::fs::read_to_string(f.b.server.pool().join("containers").join(&copy).join("live/state")).unwrap(), "five\n");
    f.a.forge(&c, None);

    let moved = f.a.post_waiting(&format!("/containers/{c}/move"), &json!({ "target_server_id": f.b.id, "name": "moved" }));
    let there = moved["target_container_id"].as_str().unwrap().to_owned();
    println!("moved with a downtime of {} ms", moved["downtime_ms"]);
    f.b.until(&there, "running");
    f.a.until(&c, "stopped");
    assert_eq!(f.b.sh(&there, "cat /state"), "five\n");
    f.clean("after a copy, a sync and a move");
    f.end();
}

#[test]
fn a_network_cut_and_a_killed_server_only_delay_a_copy() {
    let mut f = Fleet::new("replication-cuts");
    let c = f.container("agent");
    f.a.fill(&c);
    for s in ["one", "two", "three"] {
        f.a.sh(&c, "dd if=/dev/urandom of=/data/new bs=1M count=3 2>/dev/null");
        f.a.snapshot(&c, s);
    }
    // Slow enough to be met in the middle.
    let slow = json!({ "name": "standby", "rate_limit": 4 << 20 });
    let copy = f.copy(&c, &slow);
    std::thread::sleep(Duration::from_millis(700));
    f.cut();
    std::thread::sleep(Duration::from_secs(1));
    f.mend();
    std::thread::sleep(Duration::from_millis(700));
    f.b.server.kill();
    f.b.server.start();
    std::thread::sleep(Duration::from_millis(700));
    f.a.server.kill();
    f.a.server.start();
    f.b.until(&copy, "running");
    for s in ["one", "two", "three"] {
        same(&f.a.tree(&c, &format!("snapshots/{s}")), &f.b.tree(&copy, &format!("snapshots/{s}")));
    }
    assert_eq!(f.a.get(&format!("/containers/{c}"))["status"], "running", "the source was not disturbed");
    f.clean("after cuts and kills");
    f.end();
}

/// `HOODY_CUTS=200` for the whole of it.
#[test]
fn random_cuts_and_kills_leave_both_sides_clean() {
    let cuts: u64 = std::env::var("HOODY_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let seed = std::env::var("HOODY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("HOODY_SEED={seed} HOODY_CUTS={cuts}");
    let mut rng = Rng::new(seed);
    let mut f = Fleet::new("replication-random");
    let c = f.container("agent");
    f.a.fill(&c);
    f.a.snapshot(&c, "first");
    let before = f.a.tree(&c, "snapshots/first");
    let mut copy: Option<String> = None;
    for n in 0..cuts {
        f.a.sh(&c, &format!("echo {n} > /state; dd if=/dev/urandom of=/data/new-{} bs=64k count={} 2>/dev/null", n % 5, 1 + rng.below(40)));
        let limit = json!({ "rate_limit": (1 << 20) * (1 + rng.below(8)) });
        match &copy {
            Some(id) => drop(f.b.try_post(&format!("/containers/{id}/sync"), &limit)),
            None => copy = Some(f.copy(&c, &json!({ "name": format!("standby-{n}"), "rate_limit": limit["rate_limit"] }))),
        }
        std::thread::sleep(Duration::from_millis(rng.below(700)));
        match rng.below(4) {
            0 => {
                f.cut();
                std::thread::sleep(Duration::from_millis(rng.below(600)));
                f.mend();
            }
            1 => {
                f.a.server.kill();
                f.a.server.start();
            }
            2 => {
                f.b.server.kill();
                f.b.server.start();
            }
            _ => {
                f.b.server.kill();
                f.a.server.kill();
                f.a.server.start();
                f.b.server.start();
            }
        }
        f.a.idle();
        f.b.idle();
        f.clean(&format!("cut {n}"));
        assert_eq!(f.a.get(&format!("/containers/{c}"))["status"], "running", "cut {n}: the source is untouched");
        if n % 10 == 9 && rng.percent(50) {
            // Another one, from the beginning.
            if let Some(id) = copy.take() {
                f.b.delete(&id);
            }
        }
    }
    assert_eq!(f.a.tree(&c, "snapshots/first"), before, "the source is untouched");
    let id = copy.unwrap_or_else(|| f.copy(&c, &json!({ "name": "last" })));
    f.b.idle();
    // Asked for again, every one ends well.
    f.b.sync(&id);
    f.b.until(&id, "running");
    assert_eq!(f.b.sh(&id, "cat /state"), format!("{}\n", cuts - 1));
    assert_eq!(f.a.tree(&c, "snapshots/first"), f.b.tree(&id, "snapshots/first"));
    f.clean("at the end");
    f.end();
}
