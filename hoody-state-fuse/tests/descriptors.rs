//! The daemon's descriptors: connections share them, and what one volume uses up is missing to no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::locked_db::LockedDb as _;
use std::fs::{self, File};
use support::daemon::{Daemon, counter, make, open, value};

fn descriptors(d: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", d.child.id())).unwrap().count()
}

#[test]
fn further_connections_take_no_further_descriptors() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete"] {
        let path = d.at(&format!("{journal}.db"));
        let first = make(path.clone(), journal);
        assert_eq!(value(&first), 0);
        let before = descriptors(&d);
        let more: Vec<_> = (0..50).map(|_| open(path.clone())).collect();
        for c in &more {
            assert_eq!(value(c), 0);
        }
        let taken = descriptors(&d) - before;
        assert!(taken <= 2, "{journal}: {taken} descriptors for 50 connections");
    }
}

#[test]
fn a_volume_that_opens_too_much_is_refused_and_no_other() {
    let d = Daemon::start_with(true, &["--volume-descriptors", "40"]);
    for name in ["greedy", "other"] {
        fs::create_dir(d.dir.path().join(name)).unwrap();
        d.locked_db().add_volume(name, &d.dir.path().join(name)).unwrap();
    }
    let path = |n: usize| d.at(&format!("greedy/{n}"));
    let mut kept = Vec::new();
    let refused = (0..100).map(path).find_map(|p| match File::create(p) {
        Ok(f) => {
            kept.push(f);
            None
        }
        Err(e) => Some(e),
    });
    assert_eq!(refused.and_then(|e| e.raw_os_error()), Some(nix::libc::ENFILE));
    assert_eq!(kept.len(), 40);
    assert!(!path(40).exists(), "what was refused was not made");
    // What is open already can be opened again, and everything can be looked at.
    File::create(path(0)).unwrap();
    assert_eq!(fs::metadata(path(39)).unwrap().len(), 0);
    let status = d.locked_db().status().unwrap();
    assert_eq!((status.open_files["greedy"], status.open_files["other"]), (40, 0));
    assert!(status.counters["refused_descriptors"] > 0 && status.counters["volume_descriptors_limit"] == 40, "{:?}", status.counters);
    let c = make(d.at("other/data.db"), "wal");
    assert_eq!(value(&c), 0);
    d.locked_db().quiesce(&["other"], std::time::Duration::from_secs(1), std::time::Duration::from_secs(1)).unwrap().release().unwrap();
    // It is as before when they are closed.
    drop(kept);
    drop(make(d.at("greedy/data.db"), "wal"));
    assert_eq!(value(&open(d.at("greedy/data.db"))), 0);
}

/// Files that nobody reads or writes, but that somebody keeps known (`O_PATH`), take descriptors too.
#[test]
fn what_is_known_is_counted_and_given_back() {
    let d = Daemon::start(false);
    for n in 0..50 {
        fs::write(d.at(&n.to_string()), b"x").unwrap();
    }
    let count = || counter(&d, "descriptors");
    let script = "import os,sys,time\nfds=[os.open(sys.argv[1]+'/'+str(n),os.O_PATH) for n in range(50)]\nprint('held',flush=True)\ntime.sleep(60)";
    let mut holds = support::daemon::held_by(script, &d.at(""));
    assert!(count() >= 50);
    holds.kill().unwrap();
    holds.wait().unwrap();
    for n in 0..50 {
        fs::remove_file(d.at(&n.to_string())).unwrap();
    }
    let begun = std::time::Instant::now();
    while count() > 10 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{}", count());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
