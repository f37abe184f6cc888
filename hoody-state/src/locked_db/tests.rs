use super::memory::MemoryLockedDb;
use super::{LockedDb, restore_database};
use crate::Code;
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

#[test]
fn volumes_come_and_go_and_errors_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let db = MemoryLockedDb::new();
    assert_eq!(db.remove_volume("a").unwrap_err().code(), Code::VolumeNotFound);
    db.add_volume("a", dir.path()).unwrap();
    assert_eq!(db.add_volume("a", dir.path()).unwrap_err().code(), Code::VolumeExists);
    assert_eq!(db.add_volume("..", dir.path()).unwrap_err().code(), Code::BadVolume);
    assert_eq!(db.rebind("a", Path::new("/nonexistent")).unwrap_err().code(), Code::BadVolume);
    assert_eq!(db.restore_database("a", Path::new("/x"), Path::new("../y")).unwrap_err().code(), Code::BadPath);
    let hold = db.quiesce(&["a"], LONG, LONG).unwrap();
    assert_eq!(db.holds(), 1);
    assert!(hold.release().unwrap());
    drop(db.quiesce(&["a"], LONG, LONG).unwrap());
    assert_eq!(db.holds(), 0);
}

fn value(c: &Connection) -> i64 {
    c.query_row("SELECT v FROM t", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_database_is_restored_under_a_connection_that_stays_open_its_wal_included() {
    for journal in ["wal", "delete"] {
        let dir = tempfile::tempdir().unwrap();
        let (old, live) = (dir.path().join("old.db"), dir.path().join("live.db"));
        let saved = Connection::open(&old).unwrap();
        saved.pragma_update(None, "journal_mode", journal).unwrap();
        saved.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)").unwrap();
        let user = Connection::open(&live).unwrap();
        user.pragma_update(None, "journal_mode", journal).unwrap();
        user.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(2)").unwrap();
        assert_eq!(value(&user), 2);
        // `saved` stays open, so what it wrote is in its WAL only.
        restore_database(&old, &live, LONG).unwrap();
        assert_eq!(value(&user), 1, "{journal}");
        user.execute("UPDATE t SET v = 3", []).unwrap();
    }
}

#[test]
fn a_target_overwritten_with_rubbish_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, live) = (dir.path().join("old.db"), dir.path().join("live.db"));
    let saved = Connection::open(&old).unwrap();
    saved.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)").unwrap();
    std::fs::write(&live, "rubbish").unwrap();
    std::os::unix::fs::symlink("live.db", dir.path().join("link.db")).unwrap();
    restore_database(&old, &dir.path().join("link.db"), LONG).unwrap();
    assert_eq!(value(&Connection::open(&live).unwrap()), 1, "the file itself, not the link");
    assert!(dir.path().join("link.db").is_symlink());
}

#[test]
fn a_link_in_a_volume_leads_no_restore_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    for d in ["volume/sub", "outside"] {
        std::fs::create_dir_all(dir.path().join(d)).unwrap();
    }
    let at = |p: &str| dir.path().join(p);
    Connection::open(at("old.db")).unwrap().execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)").unwrap();
    Connection::open(at("outside/a.db")).unwrap().execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(2)").unwrap();
    std::os::unix::fs::symlink(at("outside"), at("volume/way")).unwrap();
    std::os::unix::fs::symlink(at("outside/a.db"), at("volume/a.db")).unwrap();
    let db = MemoryLockedDb::new();
    db.add_volume("v", &at("volume")).unwrap();
    for to in ["way/a.db", "a.db", "way/new.db"] {
        let refused = db.restore_database("v", &at("old.db"), Path::new(to)).unwrap_err();
        assert_eq!(refused.code(), Code::BadPath, "{refused}");
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
    }
    assert_eq!(value(&Connection::open(at("outside/a.db")).unwrap()), 2);
    assert!(!at("outside/new.db").exists());
    for to in ["sub/a.db", "b.db"] {
        db.restore_database("v", &at("old.db"), Path::new(to)).unwrap();
        assert_eq!(value(&Connection::open(at("volume").join(to)).unwrap()), 1);
    }
    assert!(db.restore_database("v", &at("old.db"), Path::new("none/a.db")).is_err());
}

/// One of a version that does not know `ping` says so, and lives.
#[test]
fn an_old_daemon_is_taken_for_a_living_one() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let dir = tempfile::tempdir().unwrap();
    let config = super::fuse::daemon::DaemonConfig {
        program: "/nonexistent".into(),
        socket: dir.path().join("sock"),
        mountpoint: dir.path().join("mnt"),
        save_power: false,
        group: None,
    };
    std::fs::create_dir(&config.mountpoint).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&config.socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let _ = stream.write_all(b"{\"error\":{\"code\":\"bad_request\",\"message\":\"not a request\"}}\n");
            });
        }
    });
    let open = || super::fuse::daemon::FuseDaemon::open(config.clone());
    assert_eq!(open().err().unwrap().code(), Code::DatabasesUnavailable, "nothing is mounted: another would be started");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("test"), &config.mountpoint, Some("tmpfs"), flags, None::<&str>).unwrap();
    let daemon = open().unwrap();
    assert!(!daemon.is_new_session());
    daemon.close();
    nix::mount::umount(&config.mountpoint).unwrap();
}

#[test]
fn what_is_no_database_leaves_the_target_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, live) = (dir.path().join("bad"), dir.path().join("live.db"));
    std::fs::write(&bad, vec![7; 5000]).unwrap();
    let user = Connection::open(&live).unwrap();
    user.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(restore_database(&bad, &live, LONG).unwrap_err().code(), Code::NotADatabase);
    assert!(restore_database(&dir.path().join("none"), &live, LONG).is_err());
    assert_eq!(value(&user), 2);
}
