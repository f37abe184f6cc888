use super::memory::MemoryLockedDb;
use super::{LockedDb, restore_database};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

#[test]
fn volumes_come_and_go_and_errors_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let db = MemoryLockedDb::new();
    assert_eq!(db.remove_volume("a").unwrap_err().code(), "volume_not_found");
    db.add_volume("a", dir.path()).unwrap();
    assert_eq!(db.add_volume("a", dir.path()).unwrap_err().code(), "volume_exists");
    assert_eq!(db.add_volume("..", dir.path()).unwrap_err().code(), "bad_volume");
    assert_eq!(db.rebind("a", Path::new("/nonexistent")).unwrap_err().code(), "bad_volume");
    assert_eq!(db.restore_database("a", Path::new("/x"), Path::new("../y")).unwrap_err().code(), "bad_path");
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
fn what_is_no_database_leaves_the_target_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, live) = (dir.path().join("bad"), dir.path().join("live.db"));
    std::fs::write(&bad, vec![7; 5000]).unwrap();
    let user = Connection::open(&live).unwrap();
    user.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(restore_database(&bad, &live, LONG).unwrap_err().code(), "not_a_database");
    assert!(restore_database(&dir.path().join("none"), &live, LONG).is_err());
    assert_eq!(value(&user), 2);
}
