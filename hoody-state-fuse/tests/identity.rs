//! A file is one file to every program: one inode number, one inode, one owner of its locks. Only SQLite, in a process that has a database open twice, is shown a number for each connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::daemon::{Daemon, held_by, holder, make, open, value};

const JOURNALS: [&str; 2] = ["wal", "delete"];

fn python(code: &str, path: &Path) -> String {
    let out = Command::new("python3").arg("-c").arg(code).arg(path).output().expect("python3");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn shell(dir: &Path, line: &str) -> (i32, String) {
    let out = Command::new("bash").arg("-c").arg(line).current_dir(dir).output().expect("bash");
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

const TAKES_FLOCK: &str =
    "import fcntl,sys,time\nf=open(sys.argv[1],'a+')\nfcntl.flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nprint('held',flush=True)\ntime.sleep(60)";
const TRIES_FLOCK: &str =
    "import fcntl,sys\nf=open(sys.argv[1],'a+')\ntry:\n  fcntl.flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB); print('locked')\nexcept BlockingIOError: print('refused')";

#[test]
fn flock_excludes_whatever_the_file_is() {
    for options in [&[][..], &["--no-passthrough"]] {
        let d = Daemon::start_with(false, options);
        drop(make(d.at("sqlite.db"), "wal"));
        let _connection = open(d.at("sqlite.db"));
        fs::write(d.at("bolt.db"), [7; 4096]).unwrap();
        for name in ["raft.db", "bolt.db", "sqlite.db", "plain"] {
            let holds = held_by(TAKES_FLOCK, &d.at(name));
            assert_eq!(python(TRIES_FLOCK, &d.at(name)), "refused", "{name} {options:?}");
            end(holds);
            assert_eq!(python(TRIES_FLOCK, &d.at(name)), "locked", "{name} {options:?}");
        }
    }
}

/// Takes a lock over some bytes; `0` bytes are all there may ever be.
fn takes_lock(from: u64, bytes: u64) -> String {
    format!(
        "import fcntl,sys,time\nf=open(sys.argv[1],'a+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,{bytes},{from})\nprint('held',flush=True)\ntime.sleep(60)"
    )
}

fn tries_lock(from: u64, bytes: u64) -> String {
    format!(
        "import fcntl,sys,time\nf=open(sys.argv[1],'a+')\nat=time.monotonic()\ntry:\n  fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,{bytes},{from}); print('locked')\nexcept OSError as e: print(e.errno, time.monotonic()-at < 0.5)"
    )
}

#[test]
fn a_lock_that_is_not_sqlites_is_refused_at_once() {
    let d = Daemon::start(false);
    drop(make(d.at("sqlite.db"), "delete"));
    fs::write(d.at("duck.db"), [7; 4096]).unwrap();
    for name in ["fresh.db", "duck.db", "sqlite.db"] {
        for (from, bytes) in [(0, 0), (0, 1), (7, 100)] {
            let holds = held_by(&takes_lock(from, bytes), &d.at(name));
            assert_eq!(python(&tries_lock(from, bytes), &d.at(name)), "11 True", "{name} {from} {bytes}");
            assert_eq!(python(&tries_lock(5000, 1), &d.at(name)), if bytes == 0 { "11 True" } else { "locked" }, "{name} {from} {bytes}");
            end(holds);
            assert_eq!(python(&tries_lock(from, bytes), &d.at(name)), "locked", "{name} {from} {bytes}");
        }
    }
}

#[test]
fn two_descriptors_of_one_process_share_its_locks() {
    let d = Daemon::start(false);
    let code = "import fcntl,sys\na=open(sys.argv[1],'a+')\nb=open(sys.argv[1],'a+')\nfcntl.lockf(a,fcntl.LOCK_EX|fcntl.LOCK_NB)\nfcntl.lockf(b,fcntl.LOCK_EX|fcntl.LOCK_NB)\nprint('shared')";
    for name in ["raft.db", "plain"] {
        assert_eq!(python(code, &d.at(name)), "shared", "{name}");
    }
}

#[test]
fn a_database_name_with_another_header_is_an_ordinary_file() {
    let d = Daemon::start(false);
    // Held while the header is written, as DuckDB does; a snapshot must not wait for it.
    let code = "import fcntl,sys,time\nf=open(sys.argv[1],'wb')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nf.write(b'DUCK'*1024); f.flush()\nprint('held',flush=True)\ntime.sleep(60)";
    let holds = held_by(code, &d.at("duck.db"));
    use hoody_state::locked_db::LockedDb as _;
    let quiet = d.locked_db().quiesce(&[], Duration::from_millis(200), Duration::from_secs(5)).expect("an ordinary lock is not a write transaction");
    assert!(quiet.release().unwrap());
    let (a, b) = (File::open(d.at("duck.db")).unwrap(), File::open(d.at("duck.db")).unwrap());
    assert_eq!(a.metadata().unwrap().ino(), b.metadata().unwrap().ino(), "one number for both");
    drop(make(d.at("was.db"), "delete"));
    fs::write(d.at("was.db"), [7; 4096]).unwrap();
    let (a, b) = (File::open(d.at("was.db")).unwrap(), File::open(d.at("was.db")).unwrap());
    assert_eq!(a.metadata().unwrap().ino(), b.metadata().unwrap().ino(), "it was a database before");
    end(holds);
}

#[test]
fn eight_processes_make_one_database_and_none_finds_it_locked() {
    for journal in JOURNALS {
        let d = Daemon::start(false);
        let code = format!(
            "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nc.execute('pragma journal_mode={}')\nc.execute('create table if not exists t(v)')\nfor i in range(40): c.execute('insert into t values(1)')",
            if journal == "wal" { "delete" } else { journal }
        );
        for round in 0..3 {
            let path = d.at(&format!("{journal}{round}.db"));
            if journal == "wal" {
                drop(open(path.clone()).pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())));
            }
            let code = if journal == "wal" { code.replace("pragma journal_mode=delete", "pragma user_version") } else { code.clone() };
            let all: Vec<Child> = (0..8).map(|_| Command::new("python3").arg("-c").arg(&code).arg(&path).spawn().unwrap()).collect();
            for mut one in all {
                assert!(one.wait().unwrap().success(), "{journal}");
            }
            let rows: i64 = open(path).query_row("select count(*) from t", [], |r| r.get(0)).unwrap();
            assert_eq!(rows, 320, "{journal}");
        }
    }
}

#[test]
fn threads_of_one_process_make_one_database_and_none_finds_it_locked() {
    for options in [&[][..], &["--no-passthrough"]] {
        let d = Daemon::start_with(false, options);
        for journal in JOURNALS {
            for round in 0..3 {
                let path = d.at(&format!("{journal}{round}.db"));
                if journal == "wal" {
                    drop(make(path.clone(), journal));
                }
                let threads: Vec<_> = (0..6)
                    .map(|_| {
                        let path = path.clone();
                        std::thread::spawn(move || {
                            for _ in 0..5 {
                                // Opened anew each time: connections come and go while others work.
                                let mut c = open(path.clone());
                                c.execute_batch("CREATE TABLE IF NOT EXISTS n(v)").unwrap();
                                for _ in 0..4 {
                                    let tx = c.transaction().unwrap();
                                    let n: i64 = tx.query_row("SELECT count(*) FROM n", [], |r| r.get(0)).unwrap();
                                    tx.execute("INSERT INTO n VALUES(?1)", [n]).unwrap();
                                    tx.commit().unwrap();
                                }
                            }
                        })
                    })
                    .collect();
                for t in threads {
                    t.join().unwrap_or_else(|_| panic!("{journal} {options:?}"));
                }
                let (rows, different): (i64, i64) =
                    open(path).query_row("SELECT count(*), count(DISTINCT v) FROM n", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
                assert_eq!((rows, different), (120, 120), "{journal} {options:?}");
            }
        }
    }
}

#[test]
fn a_database_appended_to_itself_is_refused() {
    for journal in JOURNALS {
        let d = Daemon::start(false);
        let c = make(d.at("f.db"), journal);
        c.execute_batch("CREATE TABLE big(v); INSERT INTO big VALUES(zeroblob(3000000)); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let size = fs::metadata(d.at("f.db")).unwrap().len();
        let (code, said) = shell(&d.at(""), "ulimit -f 40000; cat f.db >> f.db");
        assert_eq!(code, 1, "{journal}: {said}");
        assert!(said.contains("is output file"), "{journal}: {said}");
        assert_eq!(fs::metadata(d.at("f.db")).unwrap().len(), size, "{journal}");
    }
}

#[test]
fn inotify_tells_of_writes_to_a_database() {
    for journal in JOURNALS {
        let d = Daemon::start(false);
        drop(make(d.at("f.db"), journal));
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        watch.add_watch(&d.at("f.db"), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF).unwrap();
        python(
            "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nc.execute('update t set v=v+1')\nc.execute('pragma wal_checkpoint(truncate)')",
            &d.at("f.db"),
        );
        let events = watch.read_events().unwrap_or_else(|e| panic!("{journal}: no event ({e})"));
        assert!(events.iter().all(|e| e.mask.contains(AddWatchFlags::IN_MODIFY)), "{journal}: {events:?}");
        drop(watch);
    }
}

#[test]
fn who_polls_a_database_sees_it_change_only_when_it_does() {
    for journal in JOURNALS {
        let d = Daemon::start(false);
        drop(make(d.at("f.db"), journal));
        let look = |path: &Path| {
            let m = fs::metadata(path).unwrap();
            (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.nlink())
        };
        let mut holds = holder(&d.at("f.db"));
        // Threads of a pool, as Node's `watchFile` polls; and a process that opens, reads and closes meanwhile.
        let path = d.at("f.db");
        let polls: Vec<_> = (0..3)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || {
                    (0..20)
                        .map(|_| {
                            std::thread::sleep(Duration::from_millis(10));
                            look(&path)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..3 {
            python(
                "import sqlite3,sys\nc=sqlite3.connect('file:'+sys.argv[1]+'?mode=ro',uri=True,timeout=0)\nc.execute('select * from t').fetchall()",
                &d.at("f.db"),
            );
        }
        let seen: HashSet<_> = polls.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(seen.len(), 1, "{journal}: {seen:?}");
        holds.kill().unwrap();
        holds.wait().unwrap();
        let c = open(d.at("f.db"));
        c.execute("update t set v=v+1", []).unwrap();
        c.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
        let after = look(&path);
        assert!(!seen.contains(&after), "{journal}: it was written");
        assert_eq!(after.1, seen.iter().next().unwrap().1, "{journal}: and is the same file");
        // A directory's listing has that number as well.
        let listed = fs::read_dir(d.at("")).unwrap().flatten().find(|e| e.file_name() == "f.db").unwrap();
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&listed), after.1);
    }
}

#[test]
fn tar_stores_a_linked_database_once() {
    let d = Daemon::start(false);
    let _connection = make(d.at("a.db"), "delete");
    fs::hard_link(d.at("a.db"), d.at("b.db")).unwrap();
    fs::hard_link(d.at("a.db"), d.at("c.db")).unwrap();
    let (code, said) = shell(&d.at(""), "tar cf - a.db b.db c.db | tar tvf -");
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("link to a.db").count(), 2, "{said}");
}

#[test]
fn an_open_database_is_not_shown_as_deleted() {
    for journal in JOURNALS {
        let d = Daemon::start(false);
        drop(make(d.at("f.db"), journal));
        let mut holds = holder(&d.at("f.db"));
        // Others look at it, open it, read it.
        shell(&d.at(""), "ls -l; stat f.db; head -c 100 f.db");
        python(
            "import sqlite3,sys\nc=sqlite3.connect('file:'+sys.argv[1]+'?mode=ro',uri=True,timeout=0)\nc.execute('select * from t').fetchall()",
            &d.at("f.db"),
        );
        let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", holds.id()))
            .unwrap()
            .flatten()
            .filter_map(|e| fs::read_link(e.path()).ok())
            .filter(|p| p.to_string_lossy().contains("f.db"))
            .collect();
        assert!(open.contains(&d.at("f.db")), "{journal}: {open:?}");
        assert!(open.iter().all(|p| !p.to_string_lossy().ends_with("(deleted)")), "{journal}: {open:?}");
        holds.kill().unwrap();
        holds.wait().unwrap();
    }
}

/// What remains, as documented: a process that has a database open several times sees a number for each but the first.
#[test]
fn only_further_opens_of_one_process_have_numbers_of_their_own() {
    let d = Daemon::start(false);
    drop(make(d.at("f.db"), "wal"));
    let stable = fs::metadata(d.at("f.db")).unwrap().ino();
    let rw = || fs::OpenOptions::new().read(true).write(true).open(d.at("f.db")).unwrap();
    let first = rw();
    assert_eq!(first.metadata().unwrap().ino(), stable);
    let second = rw();
    assert_ne!(second.metadata().unwrap().ino(), stable);
    // Another process, and another thread that has not used it.
    assert_eq!(
        python("import os,sys\nf=open(sys.argv[1],'rb')\nprint(os.fstat(f.fileno()).st_ino,os.stat(sys.argv[1]).st_ino)", &d.at("f.db")),
        format!("{stable} {stable}")
    );
    let path = d.at("f.db");
    assert_eq!(std::thread::spawn(move || fs::metadata(path).unwrap().ino()).join().unwrap(), stable);
    drop(second);
    until(|| fs::metadata(d.at("f.db")).unwrap().ino() == stable);
    // What cannot be SQLite's is the file itself.
    let mut log = fs::OpenOptions::new().append(true).open(d.at("f.db")).unwrap();
    assert_eq!(log.metadata().unwrap().ino(), stable);
    log.flush().unwrap();
    drop(first);
    assert_eq!(value(&open(d.at("f.db"))), 0);
}

fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
}
