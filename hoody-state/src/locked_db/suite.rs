//! The contract of a [`LockedDb`], for any backend: run it on yours.
//!
//! It works with SQLite databases in temporary directories, by connections of this process to what the volumes show.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use super::LockedDb;
use crate::Code;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);

/// What the suite needs of a backend.
pub trait Harness {
    /// The backend. It serves no volume that the suite uses: their names begin with `suite-`.
    fn databases(&self) -> &dyn LockedDb;

    /// An empty directory that the backend can serve.
    fn directory(&self) -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }
}

/// Everything below.
pub fn run(h: &dyn Harness) {
    volumes_are_added_and_removed(h);
    volumes_do_not_reach_each_other(h);
    a_rebound_volume_shows_the_other_directory(h);
    writes_are_held_and_reads_are_not(h);
    a_hold_ends_with_its_lease(h);
    a_hold_that_cannot_be_had_holds_nothing(h);
    a_database_is_restored_under_open_connections(h);
    what_cannot_be_restored_is_as_it_was(h);
    a_tree_is_reverted_under_open_connections(h);
    databases_are_found(h);
    a_session_lasts(h);
}

/// A volume of this test, removed with it.
struct Served<'a> {
    db: &'a dyn LockedDb,
    name: String,
    backing: tempfile::TempDir,
}

impl<'a> Served<'a> {
    fn new(h: &'a dyn Harness, name: &str) -> Self {
        let (db, backing, name) = (h.databases(), h.directory(), format!("suite-{name}"));
        let shown = db.add_volume(&name, backing.path()).unwrap();
        assert_eq!(shown, db.path(&name));
        Served { db, name, backing }
    }

    fn at(&self, file: &str) -> PathBuf {
        self.db.path(&self.name).join(file)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _ = self.db.remove_volume(&self.name);
    }
}

fn connect(at: &Path) -> Connection {
    let c = Connection::open(at).unwrap();
    c.busy_timeout(LONG).unwrap();
    c
}

fn database(at: &Path, value: i64) -> Connection {
    let c = connect(at);
    c.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    c.execute_batch("CREATE TABLE t(v INTEGER)").unwrap();
    c.execute("INSERT INTO t VALUES(?1)", [value]).unwrap();
    c
}

fn value(c: &Connection) -> i64 {
    c.query_row("SELECT v FROM t", [], |r| r.get(0)).unwrap()
}

/// Errors of names: `volume_not_found`, `volume_exists`, `bad_volume`.
pub fn volumes_are_added_and_removed(h: &dyn Harness) {
    let (db, dir) = (h.databases(), h.directory());
    let code = |r: crate::Result<()>| r.unwrap_err().code();
    assert_eq!(code(db.remove_volume("suite-none")), Code::VolumeNotFound);
    assert_eq!(code(db.rebind("suite-none", dir.path())), Code::VolumeNotFound);
    assert_eq!(code(db.quiesce(&["suite-none"], LONG, LONG).map(drop)), Code::VolumeNotFound);
    assert_eq!(code(db.restore_database("suite-none", Path::new("/x"), Path::new("a.db"))), Code::VolumeNotFound);
    for bad in ["", ".", "..", "a/b"] {
        assert_eq!(code(db.add_volume(bad, dir.path()).map(drop)), Code::BadVolume, "{bad:?}");
    }
    assert_eq!(code(db.add_volume("suite-a", &dir.path().join("missing")).map(drop)), Code::BadVolume);
    let v = Served::new(h, "a");
    assert_eq!(code(db.add_volume(&v.name, dir.path()).map(drop)), Code::VolumeExists);
    assert_eq!(code(db.rebind(&v.name, &dir.path().join("missing"))), Code::BadVolume);
    std::fs::write(v.backing.path().join("f"), "x").unwrap();
    assert_eq!(std::fs::read_to_string(v.at("f")).unwrap(), "x");
    assert!(db.status().unwrap().volumes.contains_key(&v.name));
    db.remove_volume(&v.name).unwrap();
    assert!(!db.status().unwrap().volumes.contains_key(&v.name));
    assert!(v.backing.path().join("f").exists(), "what was served stays");
}

/// Guarantee 3.
pub fn volumes_do_not_reach_each_other(h: &dyn Harness) {
    let (a, b) = (Served::new(h, "a"), Served::new(h, "b"));
    std::fs::write(a.at("only-a"), "x").unwrap();
    assert!(a.backing.path().join("only-a").exists() && !b.at("only-a").exists());
    database(&a.at("d.db"), 1);
    database(&b.at("d.db"), 2);
    // A hold on one is none on the other.
    let hold = a.db.quiesce(&[&a.name], LONG, LONG).unwrap();
    connect(&b.at("d.db")).execute("UPDATE t SET v = 3", []).unwrap();
    assert!(hold.release().unwrap());
}

/// Guarantee 2.
pub fn a_rebound_volume_shows_the_other_directory(h: &dyn Harness) {
    let (v, other) = (Served::new(h, "a"), h.directory());
    drop(database(&v.at("d.db"), 1));
    drop(database(&other.path().join("d.db"), 2));
    let open = std::fs::File::open(v.at("d.db")).unwrap();
    v.db.rebind(&v.name, other.path()).unwrap();
    assert_eq!(value(&connect(&v.at("d.db"))), 2);
    assert!(open.metadata().unwrap().len() > 0, "what was open stays open");
}

/// Guarantee 1.
pub fn writes_are_held_and_reads_are_not(h: &dyn Harness) {
    let v = Served::new(h, "a");
    let reader = database(&v.at("d.db"), 1);
    let hold = v.db.quiesce(&[&v.name], LONG, LONG).unwrap();
    // Before a writer waits: connections of one process share mutexes of SQLite.
    assert_eq!(value(&reader), 1);
    let at = v.at("d.db");
    let (done, is_done) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        connect(&at).execute("UPDATE t SET v = 2", []).unwrap();
        done.send(Instant::now()).unwrap();
    });
    assert!(is_done.recv_timeout(Duration::from_millis(200)).is_err(), "a write transaction began while writes were held");
    let released = Instant::now();
    assert!(hold.release().unwrap());
    assert!(is_done.recv_timeout(LONG).unwrap() >= released);
    writer.join().unwrap();
    assert_eq!(value(&reader), 2);
    // One that is dropped ends as well.
    drop(v.db.quiesce(&[&v.name], LONG, LONG).unwrap());
    connect(&v.at("d.db")).execute("UPDATE t SET v = 3", []).unwrap();
}

/// Guarantee 1: the lease.
pub fn a_hold_ends_with_its_lease(h: &dyn Harness) {
    let v = Served::new(h, "a");
    database(&v.at("d.db"), 1);
    let hold = v.db.quiesce(&[&v.name], LONG, Duration::from_millis(50)).unwrap();
    connect(&v.at("d.db")).execute("UPDATE t SET v = 2", []).unwrap();
    assert!(!hold.release().unwrap(), "it says that it did not last");
}

/// `databases_busy`.
pub fn a_hold_that_cannot_be_had_holds_nothing(h: &dyn Harness) {
    let v = Served::new(h, "a");
    let writer = database(&v.at("d.db"), 1);
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = v.db.quiesce(&[&v.name], Duration::from_millis(50), LONG).map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::DatabasesBusy, "{refused}");
    writer.execute_batch("UPDATE t SET v = 2; COMMIT").unwrap();
    connect(&v.at("d.db")).execute("UPDATE t SET v = 3", []).unwrap();
}

/// Guarantee 5.
pub fn a_database_is_restored_under_open_connections(h: &dyn Harness) {
    let (v, kept) = (Served::new(h, "a"), h.directory());
    let saved = database(&kept.path().join("old.db"), 1);
    let user = database(&v.at("d.db"), 2);
    // `saved` stays open: what it wrote is in its log only.
    v.db.restore_database(&v.name, &kept.path().join("old.db"), Path::new("d.db")).unwrap();
    assert_eq!(value(&user), 1);
    user.execute("UPDATE t SET v = 3", []).unwrap();
    assert_eq!(value(&saved), 1);
}

/// `bad_path`, `not_a_database`.
pub fn what_cannot_be_restored_is_as_it_was(h: &dyn Harness) {
    let (v, kept) = (Served::new(h, "a"), h.directory());
    let user = database(&v.at("d.db"), 2);
    let bad = kept.path().join("bad");
    std::fs::write(&bad, vec![7; 5000]).unwrap();
    drop(database(&kept.path().join("old.db"), 1));
    std::os::unix::fs::symlink(kept.path().join("old.db"), v.backing.path().join("link.db")).unwrap();
    let code = |from: &Path, to: &str| v.db.restore_database(&v.name, from, Path::new(to)).unwrap_err().code();
    assert_eq!(code(&bad, "d.db"), Code::NotADatabase);
    for to in ["../x", "/x", "", "link.db"] {
        assert_eq!(code(&kept.path().join("old.db"), to), Code::BadPath, "{to:?}");
    }
    assert_eq!(value(&user), 2);
}

/// Guarantee 5, for a whole tree.
pub fn a_tree_is_reverted_under_open_connections(h: &dyn Harness) {
    let (v, wanted) = (Served::new(h, "a"), h.directory());
    drop(database(&wanted.path().join("d.db"), 1));
    std::fs::write(wanted.path().join("plain"), "old").unwrap();
    let user = database(&v.at("d.db"), 2);
    drop(database(&v.at("extra.db"), 3));
    std::fs::write(v.at("plain"), "newer").unwrap();
    for _ in 0..2 {
        let failed = v.db.revert(&v.name, wanted.path(), v.backing.path(), LONG).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(value(&user), 1);
        assert_eq!(std::fs::read_to_string(v.at("plain")).unwrap(), "old");
        assert!(!v.at("extra.db").exists());
    }
    user.execute("UPDATE t SET v = 4", []).unwrap();
}

/// The list.
pub fn databases_are_found(h: &dyn Harness) {
    let dir = h.directory();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    drop(database(&dir.path().join("sub/d.db"), 1));
    std::fs::write(dir.path().join("plain"), "x").unwrap();
    let found = h.databases().databases_in(dir.path()).unwrap();
    let paths: Vec<&Path> = found.iter().filter(|f| f.size.0 > 0).map(|f| &*f.path).collect();
    assert_eq!(paths, [dir.path().join("sub/d.db")]);
}

/// A session and what it is known by.
pub fn a_session_lasts(h: &dyn Harness) {
    let v = Served::new(h, "a");
    let session = v.db.session(&v.name).unwrap();
    assert_eq!(v.db.session(&v.name).unwrap(), session);
    assert!(v.db.mount_source(&v.name).open().unwrap().is_some());
    assert_eq!(v.db.park(&[]).unwrap(), 0);
}
