use super::super::copy_database::list;
use super::*;
use crate::Code;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

/// A tree that is looked at where it is changed.
fn merged(from: &Path, to: &Path, timeout: Duration) -> Vec<Error> {
    merge(Trees { from, seen: to, to }, timeout)
}

fn database(path: &Path, value: i64) -> Connection {
    let c = Connection::open(path).unwrap();
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    c.execute_batch("CREATE TABLE IF NOT EXISTS t(x); DELETE FROM t").unwrap();
    c.execute("INSERT INTO t VALUES(?1)", [value]).unwrap();
    c
}

#[test]
fn a_tree_becomes_what_another_is_and_open_connections_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for d in ["from/sub", "to/gone", "to/link"] {
        fs::create_dir_all(dir.path().join(d)).unwrap();
    }
    // Its log is not taken in: it must be read along.
    let source = database(&from.join("a.db"), 1);
    let open = database(&to.join("a.db"), 2);
    drop(database(&from.join("sub/new.db"), 3));
    drop(database(&to.join("extra.db"), 4));
    fs::write(from.join("plain"), "old").unwrap();
    fs::write(to.join("plain"), "newer").unwrap();
    fs::write(from.join("a-wal"), "no log of any database").unwrap();
    std::os::unix::fs::symlink("plain", from.join("link")).unwrap();
    assert_eq!(list(&from).unwrap().len(), 2);
    let failed = merged(&from, &to, Duration::from_secs(1));
    assert!(failed.is_empty(), "{failed:?}");
    let value = |c: &Connection| c.query_row("SELECT x FROM t", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(value(&open), 1, "an open connection sees it");
    open.execute("UPDATE t SET x = 9", []).unwrap();
    assert_eq!(value(&Connection::open(to.join("sub/new.db")).unwrap()), 3);
    assert!(!to.join("extra.db").exists() && !to.join("gone").exists());
    assert_eq!(fs::read_to_string(to.join("plain")).unwrap(), "old");
    assert_eq!(fs::read_to_string(to.join("a-wal")).unwrap(), "no log of any database");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("plain"));
    drop(source);
}

fn two_trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    (dir, from, to)
}

fn first(path: &Path) -> i64 {
    Connection::open(path).unwrap().query_row("SELECT x FROM t", [], |r| r.get(0)).unwrap()
}

/// SQLite's backup cannot write to what it does not take for a database: such a target could never be reverted.
#[test]
fn a_damaged_target_is_reverted_and_nothing_of_its_log_gets_into_the_new_one() {
    let (_dir, from, to) = two_trees();
    drop(database(&from.join("a.db"), 1));
    drop(database(&from.join("torn.db"), 2));
    // Its log is good, and would be taken in by whoever opens a database of that name.
    let live = database(&to.join("a.db"), 9);
    fs::copy(to.join("a.db-wal"), to.join("kept")).unwrap();
    drop(live);
    fs::rename(to.join("kept"), to.join("a.db-wal")).unwrap();
    fs::write(to.join("a.db"), vec![7; 9000]).unwrap();
    fs::set_permissions(from.join("a.db"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(to.join("torn.db"), [&b"SQLite format 3\0"[..], &[0xff; 3000]].concat()).unwrap();
    let failed = merged(&from, &to, Duration::from_secs(1));
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((first(&to.join("a.db")), first(&to.join("torn.db"))), (1, 2));
    assert_eq!(fs::metadata(to.join("a.db")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(names(&to).unwrap().into_iter().collect::<Vec<_>>(), ["a.db", "torn.db"], "nothing is left over");
}

#[test]
fn a_plain_file_becomes_a_database_and_a_database_a_plain_file() {
    let (_dir, from, to) = two_trees();
    drop(database(&from.join("was-plain"), 3));
    fs::write(to.join("was-plain"), "text").unwrap();
    fs::write(from.join("was-db"), "text").unwrap();
    fs::write(from.join("was-db-shm"), "also text").unwrap();
    let open = database(&to.join("was-db"), 4);
    assert!(to.join("was-db-wal").exists());
    let failed = merged(&from, &to, Duration::from_secs(1));
    assert!(failed.is_empty(), "{failed:?}");
    drop(open);
    assert_eq!(first(&to.join("was-plain")), 3);
    assert_eq!(fs::read_to_string(to.join("was-db")).unwrap(), "text");
    assert_eq!(fs::read_to_string(to.join("was-db-shm")).unwrap(), "also text");
    assert!(!to.join("was-db-wal").exists());
}

#[test]
fn a_target_of_another_page_size_in_wal_mode_is_reverted_once_nobody_else_has_it_open() {
    let (_dir, from, to) = two_trees();
    drop(database(&from.join("a.db"), 1));
    let other = Connection::open(to.join("a.db")).unwrap();
    other.pragma_update(None, "page_size", 8192).unwrap();
    other.execute_batch("CREATE TABLE pad(y)").unwrap();
    drop(other);
    let open = database(&to.join("a.db"), 2);
    let failed = merged(&from, &to, Duration::from_millis(50));
    assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), [Code::DatabasesBusy]);
    open.execute("UPDATE t SET x = x + 5", []).unwrap();
    drop(open);
    assert_eq!(first(&to.join("a.db")), 7, "it is as it was");
    assert_eq!(Connection::open(to.join("a.db")).unwrap().query_row("PRAGMA page_size", [], |r| r.get::<_, i64>(0)).unwrap(), 8192);
    let failed = merged(&from, &to, Duration::from_secs(1));
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(first(&to.join("a.db")), 1);
}

#[test]
fn a_source_that_is_damaged_leaves_a_damaged_target_and_its_log_as_they_were() {
    let (_dir, from, to) = two_trees();
    fs::write(from.join("a.db"), [&b"SQLite format 3\0"[..], &[0xff; 3000]].concat()).unwrap();
    fs::write(to.join("a.db"), "rubbish").unwrap();
    fs::write(to.join("a.db-wal"), "a log").unwrap();
    let failed = merged(&from, &to, Duration::from_secs(1));
    assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), [Code::NotADatabase]);
    assert_eq!(fs::read_to_string(to.join("a.db")).unwrap(), "rubbish");
    assert_eq!(fs::read_to_string(to.join("a.db-wal")).unwrap(), "a log");
    assert_eq!(names(&to).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_reverted_keeps_nothing_else_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for d in [&from, &to] {
        fs::create_dir(d).unwrap();
        for name in ["a.db", "b.db"] {
            drop(database(&d.join(name), i64::from(*d == to)));
        }
    }
    let writer = Connection::open(to.join("a.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE t SET x = 7").unwrap();
    let failed = merged(&from, &to, Duration::from_millis(50));
    assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), [Code::DatabasesBusy]);
    writer.execute_batch("COMMIT").unwrap();
    let value = |n: &str| Connection::open(to.join(n)).unwrap().query_row("SELECT x FROM t", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!((value("a.db"), value("b.db")), (7, 0));
}

fn fine(from: &Path, to: &Path) {
    let failed = merged(from, to, Duration::from_secs(1));
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_file_of_the_same_size_and_time_is_compared_by_its_bytes() {
    let (_dir, from, to) = two_trees();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (root, text) in [(&from, "old!"), (&to, "new!")] {
        for name in ["changed", "same"] {
            fs::write(root.join(name), if name == "same" { "same" } else { text }).unwrap();
            File::options().write(true).open(root.join(name)).unwrap().set_modified(time).unwrap();
        }
    }
    let (open, before) = (File::open(to.join("same")).unwrap(), fs::metadata(to.join("same")).unwrap().ino());
    fine(&from, &to);
    assert_eq!(fs::read_to_string(to.join("changed")).unwrap(), "old!");
    assert_eq!(fs::metadata(to.join("same")).unwrap().ino(), before, "what is as it should be stays the file that it is");
    drop(open);
}

#[test]
fn pipes_sockets_and_links_come_back() {
    use nix::sys::stat::Mode;
    let (_dir, from, to) = two_trees();
    nix::unistd::mkfifo(&from.join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
    std::os::unix::fs::symlink("pipe", from.join("link")).unwrap();
    // One is missing, one is another kind, one is a directory.
    fs::write(to.join("socket"), "text").unwrap();
    fs::create_dir_all(to.join("link/inner")).unwrap();
    fine(&from, &to);
    let meta = |n: &str| fs::symlink_metadata(to.join(n)).unwrap();
    assert!(meta("pipe").file_type().is_fifo() && meta("socket").file_type().is_socket());
    assert_eq!(meta("pipe").permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("pipe"));
    let before = meta("pipe").ino();
    fine(&from, &to);
    assert_eq!(meta("pipe").ino(), before);
}

#[test]
fn attributes_lists_of_access_and_times_come_back() {
    use rustix::fs::{XattrFlags, lgetxattr, lremovexattr, lsetxattr};
    let (_dir, from, to) = two_trees();
    // Version 2; owner rw-, user 1 rw-, group r--, mask rw-, others ---.
    let entries: [(u16, u16, u32); 5] = [(1, 6, u32::MAX), (2, 6, 1), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let acl: Vec<u8> = 2u32
        .to_le_bytes()
        .into_iter()
        .chain(entries.iter().flat_map(|(t, p, id)| [&t.to_le_bytes()[..], &p.to_le_bytes(), &id.to_le_bytes()].concat()))
        .collect();
    const ACL: &str = "system.posix_acl_access";
    drop(database(&from.join("a.db"), 1));
    for name in ["plain", "listed"] {
        fs::write(from.join(name), "text").unwrap();
    }
    fs::create_dir(from.join("dir")).unwrap();
    fs::write(from.join("dir/file"), "x").unwrap();
    for name in ["plain", "dir", "a.db"] {
        lsetxattr(from.join(name), "user.kept", b"wanted", XattrFlags::empty()).unwrap();
    }
    lsetxattr(from.join("listed"), ACL, &acl, XattrFlags::empty()).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for name in ["plain", "dir"] {
        File::open(from.join(name)).unwrap().set_modified(time).unwrap();
    }
    fine(&from, &to);
    // All of it is changed, and only that.
    for name in ["plain", "dir", "a.db"] {
        lsetxattr(to.join(name), "user.kept", b"changed", XattrFlags::empty()).unwrap();
        lsetxattr(to.join(name), "user.added", b"x", XattrFlags::empty()).unwrap();
    }
    lremovexattr(to.join("listed"), ACL).unwrap();
    lsetxattr(to.join("plain"), ACL, &acl, XattrFlags::empty()).unwrap();
    fs::set_permissions(to.join("a.db"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(to.join("dir/more"), "").unwrap();
    fine(&from, &to);
    let xattr = |n: &str, x: &str| {
        let mut value = vec![0; 1000];
        lgetxattr(to.join(n), x, &mut value[..]).map(|l| value[..l].to_vec())
    };
    for name in ["plain", "dir", "a.db"] {
        assert_eq!(xattr(name, "user.kept").unwrap(), b"wanted", "{name}");
        assert!(xattr(name, "user.added").is_err(), "{name}");
    }
    assert_eq!(xattr("listed", ACL).unwrap(), acl);
    assert!(xattr("plain", ACL).is_err());
    for name in ["plain", "dir", "listed", "a.db", "dir/file"] {
        let mode = |root: &Path| fs::metadata(root.join(name)).unwrap().permissions().mode();
        assert_eq!(mode(&to), mode(&from), "{name}");
    }
    for name in ["plain", "dir"] {
        assert_eq!(fs::metadata(to.join(name)).unwrap().modified().unwrap(), time, "{name}");
    }
    assert!(!to.join("dir/more").exists());
}

#[test]
fn names_of_one_file_are_names_of_one_file_again_and_no_others_are() {
    let (_dir, from, to) = two_trees();
    let link = |root: &Path, a: &str, b: &str| fs::hard_link(root.join(a), root.join(b)).unwrap();
    for root in [&from, &to] {
        for name in ["a", "c", "e"] {
            fs::write(root.join(name), name).unwrap();
        }
    }
    link(&from, "a", "b");
    link(&from, "c", "d");
    drop(database(&from.join("one.db"), 1));
    link(&from, "one.db", "two.db");
    drop(database(&from.join("three.db"), 3));
    // `b` is a file of its own; `d` is right; `f` is linked to what is alone; `three.db` to what it is not.
    fs::write(to.join("b"), "a").unwrap();
    link(&to, "c", "d");
    fs::write(from.join("f"), "e").unwrap();
    link(&to, "e", "f");
    drop(database(&to.join("one.db"), 7));
    link(&to, "one.db", "three.db");
    let right = fs::metadata(to.join("c")).unwrap().ino();
    fine(&from, &to);
    let number = |n: &str| fs::metadata(to.join(n)).unwrap().ino();
    for (a, b) in [("a", "b"), ("c", "d"), ("one.db", "two.db")] {
        assert_eq!(number(a), number(b), "{a} and {b}");
    }
    assert_eq!(number("c"), right);
    assert_ne!(number("e"), number("f"));
    assert_eq!((first(&to.join("one.db")), first(&to.join("three.db"))), (1, 3));
    let left: Vec<_> = names(&to).unwrap().into_iter().filter(|n| n.as_bytes().starts_with(b".")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn holes_stay_holes() {
    let (_dir, from, to) = two_trees();
    let sparse = File::create(from.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (64 << 20) - 3).unwrap();
    fine(&from, &to);
    assert!(same_content(&from.join("sparse"), &to.join("sparse")).unwrap());
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 8 << 20);
}

#[test]
fn single_names_become_what_they_are_wanted_and_the_others_stay() {
    let (_dir, from, to) = two_trees();
    for d in ["sub", "sub/deep"] {
        fs::create_dir(from.join(d)).unwrap();
        fs::create_dir(to.join(d)).unwrap();
    }
    drop(database(&from.join("a.db"), 1));
    let open = database(&to.join("a.db"), 2);
    drop(database(&to.join("b.db"), 2));
    drop(database(&from.join("b.db"), 1));
    fs::write(from.join("sub/plain"), "old").unwrap();
    fs::write(to.join("sub/plain"), "new").unwrap();
    fs::write(to.join("sub/deep/added"), "new").unwrap();
    let names = |names: &[&str], new| {
        let names: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        let failed = merge_names(Trees { from: &from, seen: &to, to: &to }, &names, new, Duration::from_secs(1));
        failed.into_iter().map(|e| e.first().map(Error::code)).collect::<Vec<_>>()
    };
    let wanted = ["a.db", "sub", "nowhere", "sub/nowhere/x", "a.db-wal", "../out", "/out"];
    let none = Some(Code::FileNotFound);
    assert_eq!(names(&wanted, NewNames::Keep), [None, None, none, none, Some(Code::BadPath), Some(Code::BadPath), Some(Code::BadPath)]);
    assert_eq!(open.query_row("SELECT x FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 1, "an open connection sees it");
    assert_eq!(first(&to.join("b.db")), 2, "another database is left alone");
    assert_eq!((fs::read_to_string(to.join("sub/plain")).unwrap().as_str(), to.join("sub/deep/added").exists()), ("old", true));
    assert_eq!(names(&["sub"], NewNames::Delete), [None]);
    assert!(!to.join("sub/deep/added").exists());
    fs::write(to.join("added"), "new").unwrap();
    assert_eq!(names(&["added", ""], NewNames::Delete), [None, None]);
    assert_eq!((to.join("added").exists(), first(&to.join("b.db"))), (false, 1));
}
