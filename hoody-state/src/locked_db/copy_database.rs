//! Trees of databases: what is one, and making one tree what another is.

use super::restore::{BESIDE, copy_into, has_header, is_database, passing, with};
use crate::error::{Error, IoContext, Result};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How deep a tree of databases is looked at.
const DEPTH: usize = 64;

/// The names in a directory, in order; none when it is not there.
fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs::read_dir(dir) {
        Ok(d) => d.map(|e| e.map(|e| e.file_name())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(e) => Err(e),
    }
}

/// The databases below `root` and what each takes, its log included.
pub(crate) fn list(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut todo = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() && depth < DEPTH {
                todo.push((path, depth + 1));
            } else if meta.is_file() && is_database(&path) {
                let more: u64 = ["-wal", "-journal"].iter().filter_map(|s| fs::symlink_metadata(with(&path, s)).ok()).map(|m| m.len()).sum();
                found.push((path, meta.len() + more));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The database that a file belongs to, by its name.
fn belongs_to(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    BESIDE.iter().find_map(|s| bytes.strip_suffix(s.as_bytes())).map(|b| OsStr::from_bytes(b).to_owned())
}

/// Makes the tree `to` what `from` is, while others use it: each database in one transaction of its own, other files by a rename each. A target that is no
/// database, or a damaged one, is exchanged for one by a rename ([`super::restore_database`] says what that means), and so is a database for an ordinary
/// file. `from` may be changed (its logs are taken in). What could not be done is said, a line each, and is as it was; the rest is done.
pub(crate) fn merge(from: &Path, to: &Path, timeout: Duration) -> Vec<Error> {
    let mut failed = Vec::new();
    merge_dir(from, to, timeout, 0, &mut failed);
    failed
}

fn merge_dir(from: &Path, to: &Path, timeout: Duration, depth: usize, failed: &mut Vec<Error>) {
    let both = names(from).and_then(|a| Ok((a, names(to)?))).io(|| format!("read {}", to.display()));
    let (wanted, present) = match both {
        Ok(b) => b,
        Err(e) => return failed.push(e),
    };
    let database = |name: &OsStr| is_database(&from.join(name)) || is_database(&to.join(name));
    for name in wanted.union(&present) {
        // What lies beside a database goes with it.
        if belongs_to(name).is_some_and(|db| (wanted.contains(&db) || present.contains(&db)) && database(&db)) {
            continue;
        }
        let (a, b) = (from.join(name), to.join(name));
        let done = match (fs::symlink_metadata(&a).ok(), fs::symlink_metadata(&b).ok()) {
            (Some(x), Some(y)) if x.is_file() && y.is_file() && is_database(&b) && x.len() > 0 && has_header(&a).is_ok_and(|d| !d) => no_database(&a, &b, &x),
            (Some(x), Some(y)) if x.is_file() && y.is_file() && database(name) => copy_into(&a, &b, timeout),
            (Some(x), None) if x.is_file() && database(name) => copy_into(&a, &b, timeout).and_then(|()| like(&b, &x)),
            (Some(x), y) if x.is_dir() && depth < DEPTH => {
                let made = match y {
                    Some(y) if y.is_dir() => Ok(()),
                    Some(_) => fs::remove_file(&b).and_then(|()| fs::create_dir(&b)).io(|| format!("make {}", b.display())),
                    None => fs::create_dir(&b).io(|| format!("make {}", b.display())),
                };
                let made = made.and_then(|()| like(&b, &x));
                if made.is_ok() {
                    merge_dir(&a, &b, timeout, depth + 1, failed);
                }
                made
            }
            (Some(x), y) if x.is_file() => {
                let same = y.as_ref().is_some_and(|y| y.is_file() && y.len() == x.len() && (y.mtime(), y.mtime_nsec()) == (x.mtime(), x.mtime_nsec()));
                if same { like(&b, &x) } else { exchange(&a, &b, &x, y.is_some_and(|y| y.is_dir())) }
            }
            (Some(x), y) if x.is_symlink() => link(&a, &b, &x, y.is_some_and(|y| y.is_dir())),
            (None, Some(y)) => remove(&b, y.is_dir(), database(name)),
            // Pipes, sockets and the like stay what they are.
            _ => Ok(()),
        };
        failed.extend(done.err());
    }
}

fn like(path: &Path, meta: &fs::Metadata) -> Result<()> {
    let what = || format!("give {} its owner and mode", path.display());
    let now = fs::symlink_metadata(path).io(what)?;
    if (now.uid(), now.gid()) != (meta.uid(), meta.gid()) {
        std::os::unix::fs::lchown(path, Some(meta.uid()), Some(meta.gid())).io(what)?;
    }
    if now.permissions().mode() != meta.permissions().mode() && !meta.is_symlink() {
        fs::set_permissions(path, meta.permissions()).io(what)?;
    }
    Ok(())
}

fn exchange(from: &Path, to: &Path, meta: &fs::Metadata, dir: bool) -> Result<()> {
    let what = || format!("revert {}", to.display());
    let new = passing(to);
    let made = (|| -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // By reflink where both are of one file system.
        io::copy(&mut source, &mut target)?;
        target.set_modified(meta.modified()?)?;
        target.sync_all()?;
        if dir {
            fs::remove_dir_all(to)?;
        }
        Ok(())
    })()
    .io(what)
    .and_then(|()| like(&new, meta))
    .and_then(|()| fs::rename(&new, to).io(what));
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

/// An ordinary file takes the name of a database, and what lies beside it is as beside that file.
fn no_database(from: &Path, to: &Path, meta: &fs::Metadata) -> Result<()> {
    exchange(from, to, meta, false)?;
    for suffix in BESIDE {
        let (a, b) = (with(from, suffix), with(to, suffix));
        match fs::symlink_metadata(&a) {
            Ok(x) if x.is_file() => exchange(&a, &b, &x, false)?,
            _ => match fs::remove_file(&b) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).io(|| format!("remove {}", b.display())),
                _ => {}
            },
        }
    }
    Ok(())
}

fn link(from: &Path, to: &Path, meta: &fs::Metadata, dir: bool) -> Result<()> {
    let what = || format!("revert {}", to.display());
    let target = fs::read_link(from).io(what)?;
    if fs::read_link(to).is_ok_and(|t| t == target) {
        return like(to, meta);
    }
    let new = passing(to);
    std::os::unix::fs::symlink(&target, &new).io(what)?;
    if dir {
        fs::remove_dir_all(to).io(what)?;
    }
    like(&new, meta)?;
    fs::rename(&new, to).io(what)
}

fn remove(path: &Path, dir: bool, database: bool) -> Result<()> {
    let what = || format!("remove {}", path.display());
    if dir {
        return fs::remove_dir_all(path).io(what);
    }
    // The file first: who comes then makes a new one, and finds nothing of the old beside it that is whole.
    fs::remove_file(path).io(what)?;
    for suffix in BESIDE.iter().filter(|_| database) {
        match fs::remove_file(with(path, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).io(what),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rusqlite::Connection;

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
        let failed = merge(&from, &to, Duration::from_secs(1));
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
        fs::set_permissions(to.join("a.db"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(to.join("torn.db"), [&b"SQLite format 3\0"[..], &[0xff; 3000]].concat()).unwrap();
        let failed = merge(&from, &to, Duration::from_secs(1));
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
        let failed = merge(&from, &to, Duration::from_secs(1));
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
        let failed = merge(&from, &to, Duration::from_millis(50));
        assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), ["databases_busy"]);
        open.execute("UPDATE t SET x = x + 5", []).unwrap();
        drop(open);
        assert_eq!(first(&to.join("a.db")), 7, "it is as it was");
        assert_eq!(Connection::open(to.join("a.db")).unwrap().query_row("PRAGMA page_size", [], |r| r.get::<_, i64>(0)).unwrap(), 8192);
        let failed = merge(&from, &to, Duration::from_secs(1));
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(first(&to.join("a.db")), 1);
    }

    #[test]
    fn a_source_that_is_damaged_leaves_a_damaged_target_and_its_log_as_they_were() {
        let (_dir, from, to) = two_trees();
        fs::write(from.join("a.db"), [&b"SQLite format 3\0"[..], &[0xff; 3000]].concat()).unwrap();
        fs::write(to.join("a.db"), "rubbish").unwrap();
        fs::write(to.join("a.db-wal"), "a log").unwrap();
        let failed = merge(&from, &to, Duration::from_secs(1));
        assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), ["not_a_database"]);
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
        let failed = merge(&from, &to, Duration::from_millis(50));
        assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), ["databases_busy"]);
        writer.execute_batch("COMMIT").unwrap();
        let value = |n: &str| Connection::open(to.join(n)).unwrap().query_row("SELECT x FROM t", [], |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!((value("a.db"), value("b.db")), (7, 0));
    }
}
