//! What should not be given to it: each gets a clear error, and nobody else is hurt.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::locked_db::LockedDb as _;
use hoody_state_fuse::mount::MountOptions;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::{Connection, ErrorCode};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::Mounted;
use support::daemon::{Daemon, make, open, value};

/// A file system for a test, gone with it.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, kind: &str, options: &str) -> Self {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options)).expect("mounting needs root");
        Disk(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

fn code(e: &rusqlite::Error) -> Option<ErrorCode> {
    e.sqlite_error_code()
}

#[test]
fn a_full_disk_in_the_middle_of_a_commit_undoes_it_and_holds_nobody_up() {
    for journal in ["wal", "delete"] {
        let mut d = Daemon::start(false);
        let back = d.dir.path().join("back");
        // The daemon that looks at the small disk.
        d.child.kill().unwrap();
        d.child.wait().unwrap();
        let disk = Disk::new(&back, "tmpfs", "size=1m");
        d.child = Daemon::spawn(&d.dir, false);
        let c = make(d.at("a.db"), journal);
        c.execute_batch("CREATE TABLE big(x BLOB)").unwrap();
        let full = c.execute("INSERT INTO big VALUES(randomblob(4000000))", []).unwrap_err();
        assert_eq!(code(&full), Some(ErrorCode::DiskFull), "{journal}: {full}");
        // Nothing is held by then: another thread reads and, once there is room, writes.
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(value(&open(d.at("a.db"))), 0)).join().unwrap();
        });
        drop(c);
        let c = open(d.at("a.db"));
        c.execute("UPDATE t SET v = 5", []).unwrap();
        assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok", "{journal}");
        assert_eq!(c.query_row("SELECT count(*) FROM big", [], |r| r.get::<_, i64>(0)).unwrap(), 0, "{journal}");
        drop(c);
        drop(d);
        drop(disk);
    }
}

#[test]
fn truncated_and_overwritten_databases_are_errors_and_no_more() {
    let d = Daemon::start(false);
    let good = make(d.at("good.db"), "wal");
    drop(make(d.at("whole.db"), "delete"));
    let whole = fs::read(d.at("whole.db")).unwrap();
    let mut noise = whole.clone();
    noise[100..].iter_mut().enumerate().for_each(|(i, b)| *b = u8::try_from(i * 31 % 251).unwrap());
    let cut = whole[..whole.len() / 2 + 17].to_vec();
    for (name, bytes) in [("cut.db", cut), ("noise.db", noise)] {
        // What SQLite makes of it on an ordinary directory.
        let native = d.dir.path().join(name);
        let said = [native, d.at(name)].map(|path| {
            fs::write(&path, &bytes).unwrap();
            let c = open(path);
            let checked = c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).map_err(|e| code(&e));
            (checked, c.query_row("SELECT v FROM t", [], |r| r.get::<_, i64>(0)).map_err(|e| code(&e)))
        });
        assert_eq!(said[0], said[1], "{name}");
        assert!(said[1].1.is_err(), "{name}");
    }
    // Rubbish where a log, an index or a journal should be.
    for (name, suffix) in [("w.db", "-wal"), ("s.db", "-shm"), ("j.db", "-journal")] {
        drop(make(d.at(name), if suffix == "-journal" { "delete" } else { "wal" }));
        fs::write(d.at(&format!("{name}{suffix}")), b"rubbish that is not what it is called").unwrap();
        let c = open(d.at(name));
        c.execute("UPDATE t SET v = 3", []).unwrap();
        assert_eq!(value(&c), 3, "{name}");
    }
    good.execute("UPDATE t SET v = 1", []).unwrap();
    assert_eq!(value(&good), 1);
}

#[test]
fn databases_may_be_called_anything() {
    let d = Daemon::start(false);
    // SQLite appends "-journal".
    let long = [&vec![b'n'; 244][..], b".db"].concat();
    for name in [&long[..], b"\xff\xfe.db", b"a\nb.sqlite", b"-wal.db", b"x-shm.db"] {
        let path = d.at("").join(OsStr::from_bytes(name));
        let c = make(path.clone(), "wal");
        std::thread::scope(|s| {
            s.spawn(|| open(path.clone()).execute("UPDATE t SET v = 2", []).unwrap()).join().unwrap();
        });
        assert_eq!(value(&c), 2);
        c.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())).unwrap();
        c.execute("UPDATE t SET v = 3", []).unwrap();
    }
    assert!(d.locked_db().status().is_ok(), "such names can be shown");
}

#[test]
fn a_caller_without_rights_is_refused_as_by_an_ordinary_directory() {
    let d = Daemon::start(false);
    fs::set_permissions(d.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("secret.db", 0o600), ("public.db", 0o644)] {
        drop(make(d.at(name), "delete"));
        fs::set_permissions(d.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let said = |name: &str, sql: &str| {
        let script = "import sqlite3,sys\ntry: print(sqlite3.connect(sys.argv[1],timeout=0).execute(sys.argv[2]).fetchall())\nexcept Exception as e: print(e)";
        let out = Command::new("python3").args(["-c", script]).arg(d.at(name)).arg(sql).uid(1000).gid(1000).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(said("secret.db", "SELECT v FROM t"), "unable to open database file");
    assert_eq!(said("public.db", "SELECT v FROM t"), "[(0,)]");
    assert_eq!(said("public.db", "UPDATE t SET v = 1"), "attempt to write a readonly database");
    assert_eq!(said("new.db", "CREATE TABLE t(v)"), "unable to open database file");
    // A user who has the right can do it.
    open(d.at("public.db")).execute("UPDATE t SET v = 1", []).unwrap();
}

#[test]
fn locks_and_holds_of_one_volume_are_nothing_to_another() {
    let d = Daemon::start(true);
    let db = d.locked_db();
    let at: Vec<PathBuf> = ["one", "two"]
        .map(|v| {
            fs::create_dir(d.dir.path().join(v)).unwrap();
            db.add_volume(v, &d.dir.path().join(v)).unwrap()
        })
        .to_vec();
    let [one, two] = [0, 1].map(|n| make(at[n].join("same.db"), "wal"));
    one.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = 1").unwrap();
    two.execute("UPDATE t SET v = 2", []).unwrap();
    one.execute_batch("COMMIT").unwrap();
    let held = db.quiesce(&["one"], std::time::Duration::from_secs(1), std::time::Duration::from_secs(10)).unwrap();
    two.execute("UPDATE t SET v = 3", []).unwrap();
    assert!(held.release().unwrap());
    // A way out by name or by link leads nowhere.
    std::os::unix::fs::symlink("../two/same.db", at[0].join("way")).unwrap();
    assert_eq!(value(&open(at[0].join("way"))), 3, "the kernel follows links as on any file system");
    assert!(fs::rename(at[0].join("same.db"), at[1].join("moved.db")).is_err());
    assert!(fs::hard_link(at[0].join("same.db"), at[1].join("moved.db")).is_err());
    db.remove_volume("one").unwrap();
    assert!(fs::metadata(at[0].join("same.db")).is_err());
    assert_eq!(value(&two), 3);
}

#[test]
fn a_backing_that_cannot_pass_through_is_served_by_the_page_cache() {
    let place = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work", "back", "mnt"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    let p = |n: &str| place.path().join(n).to_str().unwrap().to_owned();
    let _overlay = Disk::new(&place.path().join("back"), "overlay", &format!("lowerdir={},upperdir={},workdir={}", p("lower"), p("upper"), p("work")));
    let mount = hoody_state_fuse::mount::Mount::single(&place.path().join("back"), &place.path().join("mnt"), &MountOptions::default()).unwrap();
    let c = Connection::open(place.path().join("mnt/a.db")).unwrap();
    c.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(7)").unwrap();
    assert_eq!(value(&c), 7);
    drop(c);
    assert!(!mount.passes_through());
    mount.unmount().unwrap();
}

#[test]
fn a_control_line_without_end_is_cut_off() {
    let d = Daemon::start(false);
    let mut s = UnixStream::connect(d.dir.path().join("sock")).unwrap();
    let piece = vec![b'x'; 1 << 20];
    // It stops listening at some length; what it says of it may be lost with the connection.
    for _ in 0..64 {
        if s.write_all(&piece).is_err() {
            break;
        }
    }
    let mut line = String::new();
    let _ = BufReader::new(&s).read_line(&mut line);
    assert!(line.is_empty() || line.contains("bad_request"), "{line}");
    assert!(d.locked_db().status().is_ok(), "others are served");
}

#[test]
fn a_mountpoint_under_the_backing_or_a_backing_under_a_mount_is_no_loop() {
    let m = Mounted::new(&MountOptions::default());
    fs::create_dir(m.at().join("sub")).unwrap();
    let other = tempfile::tempdir().unwrap();
    // Its own mountpoint, through another directory: the files are those of the backing, not of the mount.
    std::os::unix::fs::symlink(m.back(), other.path().join("way")).unwrap();
    let inside = hoody_state_fuse::mount::Mount::single(&other.path().join("way"), &m.back().join("sub"), &MountOptions::default());
    assert!(matches!(inside, Err(hoody_state_fuse::mount::MountError::Nested { .. })));
}
