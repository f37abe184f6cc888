//! Processes that use a database in the backing directory: they and users of the mount wait for each other, as natively.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use rusqlite::Connection;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::daemon::{Daemon, holder, make, open, value};

/// A process that adds one, so many times, as natively: it waits for a lock for up to 30 s.
fn adder(path: &Path, times: u32, timeout: u32) -> Child {
    let code = "import sqlite3,sys\nsys.excepthook=lambda t,e,b:print(e,getattr(e,'sqlite_errorname',''),sys.argv[1],file=sys.stderr)\nc=sqlite3.connect(sys.argv[1],timeout=int(sys.argv[3]),isolation_level=None)\nfor _ in range(int(sys.argv[2])):\n c.execute('begin immediate'); c.execute('update t set v=v+1'); c.execute('commit')";
    Command::new("python3").args(["-c", code]).arg(path).args([times.to_string(), timeout.to_string()]).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeeds(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_ok(c: &Connection) {
    assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
}

/// 900 commits were acknowledged and the value was 2.
#[test]
fn no_commit_is_lost_between_writers_on_the_mount_and_beside_it() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete"] {
        let (name, times) = (format!("{journal}.db"), 150);
        drop(make(d.at(&name), journal));
        let beside = d.dir.path().join("back").join(&name);
        let all = [adder(&d.at(&name), times, 60), adder(&beside, times, 60), adder(&d.at(&name), times, 60), adder(&beside, times, 60)];
        all.into_iter().for_each(succeeds);
        for path in [d.at(&name), beside] {
            let c = open(path);
            assert_eq!(value(&c), i64::from(4 * times), "{journal}");
            is_ok(&c);
        }
    }
    assert!(d.locked_db_is_idle(), "no lock is left");
}

#[test]
fn a_writer_beside_the_mount_is_waited_for_and_is_refused_as_natively() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete"] {
        let name = format!("{journal}.db");
        let c = make(d.at(&name), journal);
        let beside = d.dir.path().join("back").join(&name);
        // It is refused while a user of the mount writes.
        c.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = adder(&beside, 1, 0).wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("locked"), "{journal}: {refused:?}");
        c.execute_batch("COMMIT").unwrap();
        // And a user of the mount waits for it.
        let mut other = holder(&beside);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                let c = open(d.at(&name));
                c.execute("UPDATE t SET v = v + 10", []).unwrap();
                Instant::now()
            });
            std::thread::sleep(Duration::from_millis(300));
            assert!(!waiter.is_finished(), "{journal}: it waits");
            other.kill().unwrap();
            let killed = Instant::now();
            other.wait().unwrap();
            let waited = waiter.join().unwrap().saturating_duration_since(killed);
            assert!(waited < Duration::from_secs(2), "{journal}: {waited:?}");
        });
        assert_eq!(value(&c), 10, "{journal}");
        is_ok(&c);
    }
}

/// The daemon moves a read mark for its users, but never one that a reader in the backing directory holds.
#[test]
fn a_reader_beside_the_mount_keeps_its_snapshot() {
    let d = Daemon::start(false);
    let c = make(d.at("a.db"), "wal");
    let reader = Connection::open(d.dir.path().join("back/a.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(value(&reader), 0);
    std::thread::scope(|s| {
        s.spawn(|| {
            let c = open(d.at("a.db"));
            for _ in 0..200 {
                c.execute("UPDATE t SET v = v + 1", []).unwrap();
            }
            // As far as it may while somebody reads.
            c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        });
    });
    assert_eq!(value(&reader), 0, "it still reads what it read");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!((value(&reader), value(&c)), (200, 200));
    is_ok(&reader);
}

/// Without passthrough the mount's users and others do not see one wal-index: only one side at a time may have it.
#[test]
fn without_passthrough_a_log_is_not_shared_with_who_is_beside_the_mount() {
    let d = Daemon::start_with(false, &["--no-passthrough"]);
    let c = make(d.at("a.db"), "wal");
    let beside = d.dir.path().join("back/a.db");
    let refused = adder(&beside, 1, 0).wait_with_output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    c.execute("UPDATE t SET v = v + 1", []).unwrap();
    drop(c);
    succeeds(adder(&beside, 1, 0));
    let c = open(d.at("a.db"));
    assert_eq!(value(&c), 2);
    is_ok(&c);
}
