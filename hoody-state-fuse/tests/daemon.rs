//! The daemon as a process: waits, kills, control, databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::Code;
use hoody_state::locked_db::{LockedDb as _, restore_database};
use rusqlite::Connection;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::daemon::{DAEMON, Daemon, counter, holder, make, open, value};

#[test]
fn threads_and_connections_of_one_process_write_without_a_busy_timeout() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete", "truncate", "persist"] {
        let name = format!("{journal}.db");
        drop(make(d.at(&name), journal));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let c = open(d.at(&name));
                    for _ in 0..50 {
                        c.execute_batch("BEGIN").unwrap();
                        let v = value(&c);
                        c.execute("UPDATE t SET v = ?1", [v + 1]).unwrap();
                        c.execute_batch("COMMIT").unwrap();
                    }
                });
            }
        });
        let c = open(d.at(&name));
        assert_eq!(value(&c), 200, "{journal}");
        drop(c);
        assert!(!d.at(&format!("{name}-wal")).exists(), "the last connection takes the WAL away");
        assert!(!d.at(&format!("{name}-shm")).exists());
    }
    assert!(d.locked_db().status().unwrap().files.is_empty(), "no lock is left");
}

/// SQLite's own tests found it: `mptest` counts the warning "file renamed while open".
#[test]
fn a_connection_that_opens_and_closes_finds_its_own_file_under_its_name() {
    use std::os::unix::fs::MetadataExt as _;
    let d = Daemon::start(false);
    drop(make(d.at("a.db"), "wal"));
    for _ in 0..3 {
        let file = std::fs::File::open(d.at("a.db")).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), std::fs::metadata(d.at("a.db")).unwrap().ino());
    }
    // SQLite asks right after it has opened a file, and then whenever it uses that connection.
    let one = std::fs::File::open(d.at("a.db")).unwrap();
    let first = one.metadata().unwrap().ino();
    let two = std::fs::File::open(d.at("a.db")).unwrap();
    let second = two.metadata().unwrap().ino();
    assert_ne!(first, second, "two connections are two files");
    assert_eq!(std::fs::metadata(d.at("a.db")).unwrap().ino(), second);
    let lock = nix::libc::flock { l_type: 0, l_whence: 0, l_start: 0x4000_0002, l_len: 510, l_pid: 0 };
    nix::fcntl::fcntl(&one, nix::fcntl::FcntlArg::F_SETLK(&lock)).unwrap();
    assert_eq!(std::fs::metadata(d.at("a.db")).unwrap().ino(), first);
}

/// SQLite opens the `-shm` of a read-only connection for writing: it was taken for a possible writer, and such connections read one at a time.
#[test]
fn connections_that_were_opened_read_only_read_at_the_same_time_in_wal_mode() {
    let d = Daemon::start(false);
    let writer = make(d.at("a.db"), "wal");
    let read = |c: &Connection| {
        c.execute_batch("BEGIN").unwrap();
        value(c)
    };
    let only = || Connection::open_with_flags(d.at("a.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let first = only();
    assert_eq!(read(&first), 0);
    writer.execute("UPDATE t SET v = 1", []).unwrap();
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| assert_eq!(read(&only()), 1));
        }
    });
    assert_eq!((value(&first), counter(&d, "waits")), (0, 0), "nobody waited for the first, which still reads");
    // A connection that can write does not count as a reader, even if a reader was opened just before it.
    first.execute_batch("COMMIT").unwrap();
    let second = open(d.at("a.db"));
    assert_eq!(read(&second), 1);
    assert!(d.locked_db().status().unwrap().files.iter().any(|f| f.class == "shm" && f.intent.is_some()), "it may be a writer");
    second.execute("UPDATE t SET v = 2", []).unwrap();
    second.execute_batch("COMMIT").unwrap();
}

/// The connection for which a thread opens a `-shm` follows from what the thread did before; if that is uncertain, it counts as a writer.
#[test]
fn nobody_is_taken_for_a_reader_while_a_writer_of_its_process_has_no_shm_yet() {
    let d = Daemon::start(false);
    let _keeps_the_log = make(d.at("a.db"), "wal");
    let only = || Connection::open_with_flags(d.at("a.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let intents = || d.locked_db().status().unwrap().files.iter().filter(|f| f.class == "shm" && f.intent.is_some()).count();
    // As SQLite holds a database before it opens the -shm.
    let raw = std::fs::OpenOptions::new().read(true).write(true).open(d.at("a.db")).unwrap();
    let lock = nix::libc::flock { l_type: 0, l_whence: 0, l_start: 0x4000_0002, l_len: 510, l_pid: 0 };
    nix::fcntl::fcntl(&raw, nix::fcntl::FcntlArg::F_SETLK(&lock)).unwrap();
    let in_doubt = only();
    in_doubt.execute_batch("BEGIN").unwrap();
    assert_eq!((value(&in_doubt), intents()), (0, 1));
    in_doubt.execute_batch("COMMIT").unwrap();
    drop(raw);
    let reader = only();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!((value(&reader), intents()), (0, 0));
}

/// SQLite compares the numbers that it is shown right after it has opened each file.
#[test]
fn connections_that_are_opened_at_the_same_time_are_never_one_file() {
    use std::os::unix::fs::MetadataExt as _;
    let d = Daemon::start(false);
    drop(make(d.at("a.db"), "wal"));
    let all = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                for _ in 0..50 {
                    std::fs::metadata(d.at("a.db")).unwrap();
                    let file = std::fs::File::open(d.at("a.db")).unwrap();
                    let number = file.metadata().unwrap().ino();
                    all.lock().unwrap().push((file, number));
                }
            });
        }
    });
    let open = all.into_inner().unwrap();
    let numbers: std::collections::HashSet<u64> = open.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers.len(), open.len());
}

#[test]
fn a_stopped_holder_is_waited_for() {
    use nix::sys::signal::{Signal, kill};
    let d = Daemon::start(false);
    let c = make(d.at("a.db"), "wal");
    let mut holder = holder(&d.at("a.db"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(holder.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::scope(|s| {
        let waiter = s.spawn(|| open(d.at("a.db")).execute("UPDATE t SET v = v + 10", []).unwrap());
        // Longer than a read-phase intent is left to its holder, and longer than a doubtful wait.
        std::thread::sleep(Duration::from_millis(900));
        assert!(!waiter.is_finished(), "a write transaction is open, stopped or not");
        kill(pid, Signal::SIGCONT).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(value(&c), 10);
}

#[test]
fn a_transaction_costs_no_more_requests_than_it_must() {
    let d = Daemon::start(false);
    let requests = || {
        let counters = d.locked_db().status().unwrap().counters;
        counters.into_iter().filter(|(n, _)| n.starts_with("requests_") && n != "requests_forget").map(|(_, n)| n).sum::<u64>()
    };
    for (journal, most) in [("wal", 6), ("delete", 34)] {
        let c = make(d.at(&format!("{journal}.db")), journal);
        c.execute("UPDATE t SET v = 1", []).unwrap();
        let before = requests();
        for _ in 0..20 {
            c.execute("UPDATE t SET v = v + 1", []).unwrap();
        }
        let each = (requests() - before) / 20;
        assert!(each <= most, "{journal}: {each} requests a transaction");
    }
}

#[test]
fn a_place_is_free_when_unmount_returns() {
    let mut d = Daemon::start(false);
    for _ in 0..3 {
        let unmounted = Command::new(DAEMON).arg("unmount").arg(d.dir.path().join("mnt")).arg("--control").arg(d.dir.path().join("sock")).status().unwrap();
        assert!(unmounted.success());
        let next = Daemon::spawn(&d.dir, false);
        d.child.wait().unwrap();
        d.child = next;
    }
}

#[test]
fn a_dead_holder_hands_on_and_what_it_had_begun_is_undone() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete"] {
        let name = format!("{journal}.db");
        let c = make(d.at(&name), journal);
        let mut holder = holder(&d.at(&name));
        let waiting = std::thread::scope(|s| {
            let waiter = s.spawn(move || {
                c.execute("UPDATE t SET v = v + 10", []).unwrap();
                Instant::now()
            });
            std::thread::sleep(Duration::from_millis(200));
            assert!(!waiter.is_finished(), "it waits");
            holder.kill().unwrap();
            let killed = Instant::now();
            holder.wait().unwrap();
            waiter.join().unwrap().saturating_duration_since(killed)
        });
        assert!(waiting < Duration::from_secs(5));
        let v: i64 = open(d.at(&name)).query_row("SELECT v FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(v, 10, "{journal}");
    }
}

#[test]
fn a_killed_waiter_is_gone_soon() {
    let d = Daemon::start(false);
    drop(make(d.at("a.db"), "wal"));
    let mut first = holder(&d.at("a.db"));
    let mut second = Command::new("python3")
        .arg("-c")
        .arg("import sqlite3,sys\nsqlite3.connect(sys.argv[1],timeout=0,isolation_level=None).execute('begin immediate')")
        .arg(d.at("a.db"))
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.try_wait().unwrap().is_none(), "it waits");
    let killed = Instant::now();
    second.kill().unwrap();
    second.wait().unwrap();
    // Not a measurement: otherwise it would wait until the first releases its lock.
    assert!(killed.elapsed() < Duration::from_secs(5));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_second_connection_of_one_thread_is_answered_at_once() {
    let d = Daemon::start(false);
    let a = make(d.at("a.db"), "wal");
    let b = open(d.at("a.db"));
    a.execute_batch("BEGIN IMMEDIATE").unwrap();
    let said = b.execute("UPDATE t SET v = 1", []).expect_err("it would wait for itself");
    assert_eq!(said.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{said}");
    a.execute_batch("COMMIT").unwrap();
    b.execute("UPDATE t SET v = 1", []).unwrap();
    // A reader in the same thread does not matter.
    a.execute_batch("BEGIN").unwrap();
    assert_eq!(value(&a), 1);
    b.execute("UPDATE t SET v = 2", []).unwrap();
    assert_eq!(value(&a), 1);
}

/// It was refused, tried for ten seconds, and said "locking protocol".
#[test]
fn a_thread_reads_by_one_connection_while_it_writes_by_another() {
    let d = Daemon::start(false);
    for journal in ["wal", "delete"] {
        let name = format!("{journal}.db");
        let a = make(d.at(&name), journal);
        let b = open(d.at(&name));
        for i in 1..4 {
            a.execute_batch("BEGIN IMMEDIATE").unwrap();
            a.execute("UPDATE t SET v = ?1", [i]).unwrap();
            assert_eq!(value(&b), i - 1, "{journal}: what was there before");
            a.execute_batch("COMMIT").unwrap();
            assert_eq!(value(&b), i);
        }
        b.execute("UPDATE t SET v = 9", []).unwrap();
        assert_eq!(value(&a), 9);
    }
}

#[test]
fn a_killed_daemon_gives_errors_not_hangs_and_a_new_one_takes_over() {
    let mut d = Daemon::start(false);
    let c = make(d.at("a.db"), "wal");
    c.execute("UPDATE t SET v = 7", []).unwrap();
    d.child.kill().unwrap();
    d.child.wait().unwrap();
    assert!(c.execute("UPDATE t SET v = 8", []).is_err(), "an error, at once");
    drop(c);
    d.child = Daemon::spawn(&d.dir, false);
    let c = open(d.at("a.db"));
    assert_eq!(value(&c), 7, "what was committed is there");
    assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
    c.execute("UPDATE t SET v = 9", []).unwrap();
}

#[test]
fn writes_are_held_for_a_snapshot_and_every_copy_is_whole() {
    let d = Daemon::start(true);
    std::fs::create_dir(d.dir.path().join("vol")).unwrap();
    let db = d.locked_db();
    let shown = db.add_volume("v", &d.dir.path().join("vol")).unwrap();
    assert_eq!(db.quiesce(&["none"], Duration::ZERO, Duration::ZERO).err().unwrap().code(), Code::VolumeNotFound);
    drop(make(shown.join("a.db"), "delete"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let c = open(shown.join("a.db"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    c.execute("UPDATE t SET v = v + 1", []).unwrap();
                }
            });
        }
        for n in 0..20 {
            let held = db.quiesce(&["v"], Duration::from_secs(10), Duration::from_secs(10)).unwrap();
            let copy = d.dir.path().join(format!("copy-{n}"));
            std::fs::create_dir(&copy).unwrap();
            for e in std::fs::read_dir(d.dir.path().join("vol")).unwrap() {
                let e = e.unwrap();
                // A journal that was deleted between the listing and now was not hot.
                let _ = std::fs::copy(e.path(), copy.join(e.file_name()));
            }
            assert!(held.release().unwrap(), "held to the end");
            assert!(!copy.join("a.db-journal").exists(), "no transaction was under way");
            let c = Connection::open(copy.join("a.db")).unwrap();
            assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // The hold ends when the client disconnects.
    drop(db.quiesce(&["v"], Duration::from_secs(1), Duration::from_secs(60)).unwrap());
    open(shown.join("a.db")).execute("UPDATE t SET v = 0", []).unwrap();
    db.remove_volume("v").unwrap();
    assert_eq!(db.remove_volume("v").unwrap_err().code(), Code::VolumeNotFound);
}

#[test]
fn a_database_is_restored_under_writers_that_stay_connected() {
    let d = Daemon::start(false);
    let saved = d.dir.path().join("saved.db");
    make(saved.clone(), "wal").execute("UPDATE t SET v = 1000000", []).unwrap();
    drop(make(d.at("a.db"), "wal"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let c = open(d.at("a.db"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    c.execute("UPDATE t SET v = v + 1", []).unwrap();
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        restore_database(&saved, &d.at("a.db"), Duration::from_secs(20)).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(value(&open(d.at("a.db"))) >= 1_000_000);
}

#[test]
fn rubbish_on_the_control_socket_is_answered_and_survived() {
    let d = Daemon::start(false);
    let say = |bytes: &[u8]| {
        let mut s = UnixStream::connect(d.dir.path().join("sock")).unwrap();
        s.write_all(bytes).unwrap();
        s.shutdown(std::net::Shutdown::Write).unwrap();
        let mut line = String::new();
        BufReader::new(s).read_line(&mut line).unwrap();
        line
    };
    for rubbish in [&b"\n"[..], b"{}\n", b"\xff\xff\n", b"{\"op\":\"quiesce\"}\n", b"{\"op\":\"status\",\"x\":1}\n", b"no newline", b"[[[[[[\n"] {
        assert!(say(rubbish).contains("bad_request"), "{rubbish:?}");
    }
    let nobody = Command::new("python3")
        .arg("-c")
        .arg("import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])")
        .arg(d.dir.path().join("sock"))
        .uid(1000)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!nobody.success(), "root only");
    assert!(d.locked_db().status().unwrap().passthrough);
}

#[test]
fn damaged_databases_do_no_harm_to_others() {
    let d = Daemon::start(false);
    for (name, bytes) in [
        ("zero.db", &b""[..]),
        ("short.db", b"SQLite format 3"),
        ("torn.db", b"SQLite format 3\0\x10\0\x02\x02"),
        ("text.db", b"not a database, though it is called one"),
    ] {
        std::fs::write(d.at(name), bytes).unwrap();
        let c = open(d.at(name));
        let made = c.execute_batch("CREATE TABLE t(v)");
        assert_eq!(made.is_ok(), name == "zero.db", "{name}: {made:?}");
    }
    drop(make(d.at("good.db"), "wal"));
    assert_eq!(value(&open(d.at("good.db"))), 0);
}

#[test]
fn posix_locks_of_ordinary_files_are_ordinary() {
    let d = Daemon::start(false);
    std::fs::write(d.at("plain"), b"0123456789").unwrap();
    let code = r"
import fcntl,os,sys,signal
f=open(sys.argv[1],'r+b')
fcntl.lockf(f,fcntl.LOCK_EX,4,0)
pid=os.fork()
if pid==0:
    g=open(sys.argv[1],'r+b')
    try: fcntl.lockf(g,fcntl.LOCK_EX|fcntl.LOCK_NB,1,2); os._exit(1)
    except BlockingIOError: pass
    fcntl.lockf(g,fcntl.LOCK_EX|fcntl.LOCK_NB,4,4)
    fcntl.lockf(g,fcntl.LOCK_EX,2,0)   # waits for the parent
    fcntl.flock(g,fcntl.LOCK_EX|fcntl.LOCK_NB)
    os._exit(0)
import time; time.sleep(0.3)
assert os.waitpid(pid,os.WNOHANG)==(0,0)
open(sys.argv[1]).close()               # any close of the file drops a process's locks
assert os.waitpid(pid,0)[1]==0
";
    let ok = Command::new("python3").arg("-c").arg(code).arg(d.at("plain")).status().unwrap();
    assert!(ok.success());
}
