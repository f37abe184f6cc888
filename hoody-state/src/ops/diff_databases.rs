//! How many rows the tables of databases have that differ between two trees.
//!
//! A database is never opened where it lies: its file and its write-ahead log are copied by reflink into a staging volume of the diff, one database at a time,
//! and the copy is opened. So nothing is written into a snapshot, and no path of a container is given to SQLite. A rollback journal is never copied: it can
//! name other files, which SQLite would delete.

use crate::diff::{Kind, Record};
use crate::error::{Code, Error, IoContext, Result};
use crate::model::{DatabaseError, DatabaseWord, DiffDatabase, TableRows};
use crate::services::databases::{DATABASES, counts};
use crate::snapshot::{SnapshotStore, Volume};
use crate::tree::{Kind as NodeKind, Last, Root, TreePath, encoded, shown};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// At most so many databases have a line.
const DATABASES_SHOWN: usize = 100;
/// At most so many names are looked at.
const NAMES: usize = 10_000;
/// For both states of one database.
const TIME_OF_ONE: Duration = Duration::from_secs(5);
/// For all databases of an answer.
const TIME_OF_ALL: Duration = Duration::from_secs(20);
/// The largest file that is copied if its extents cannot be shared.
const COPIED: u64 = 1 << 30;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Names of records that may be databases.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// Names of the new tree.
    new: BTreeSet<Vec<u8>>,
    /// Names of the old tree.
    old: BTreeSet<Vec<u8>>,
    /// The old names of files that were renamed, by their new ones.
    renamed: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Old and new names of directories.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    too_many: u64,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub databases: Vec<DiffDatabase>,
    pub left_out: u64,
}

/// The database that a file beside it belongs to; otherwise the name itself.
fn base(path: &[u8]) -> Vec<u8> {
    let ends = [b"-wal".as_slice(), b"-journal", b"-shm"];
    ends.iter().find_map(|e| path.strip_suffix(*e)).unwrap_or(path).to_vec()
}

fn inside(path: &[u8]) -> bool {
    path.strip_prefix(&DATABASES.as_bytes()[1..]).is_some_and(|rest| rest.starts_with(b"/"))
}

/// `path` after the moves of directories, each from its first name to its second.
fn moved<'a>(path: &[u8], moves: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let beneath = |dir: &[u8]| path.strip_prefix(dir).filter(|rest| rest.starts_with(b"/"));
    let longest = moves.filter(|(from, _)| beneath(from).is_some()).max_by_key(|(from, _)| from.len());
    longest.map_or_else(|| path.to_vec(), |(from, to)| [to, &path[from.len()..]].concat())
}

impl Candidates {
    /// Takes note of a record.
    pub(crate) fn see(&mut self, r: &Record) {
        if self.new.len() + self.old.len() + self.renamed.len() + self.moved.len() >= NAMES {
            self.too_many += u64::from(inside(&r.path));
            return;
        }
        match &r.kind {
            Kind::Metadata => {}
            Kind::Renamed { from } if r.file_type == crate::diff::FileType::Directory => self.moved.push((from.clone(), r.path.clone())),
            Kind::Renamed { from } if inside(&r.path) => drop(self.renamed.insert(base(&r.path), base(from))),
            Kind::Renamed { from: path } if inside(path) => drop(self.old.insert(base(path))),
            Kind::Deleted if inside(&r.path) => drop(self.old.insert(base(&r.path))),
            Kind::Added | Kind::Modified | Kind::TypeChanged { .. } if inside(&r.path) => drop(self.new.insert(base(&r.path))),
            _ => {}
        }
    }

    /// The old name of each, by the new name.
    fn pairs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let back = || self.moved.iter().map(|(from, to)| (&to[..], &from[..]));
        let forth = || self.moved.iter().map(|(from, to)| (&from[..], &to[..]));
        let mut pairs: BTreeMap<_, _> = self.old.iter().map(|old| (moved(old, forth()), old.clone())).collect();
        pairs.extend(self.new.iter().map(|new| (new.clone(), moved(new, back()))));
        pairs.extend(self.renamed.clone());
        pairs
    }
}

/// A tree's volume that has the databases, and the path in the container of its root.
pub(crate) struct Side<'a> {
    pub volume: &'a Volume,
    pub prefix: &'a [u8],
}

/// Counts the rows of the databases among `candidates` in both trees. `staging` is a volume to copy them to, which is made here and deleted by the caller.
///
/// # Errors
/// `operation_cancelled`; `volume_not_found` if a tree was deleted meanwhile; those of making the staging volume. What goes wrong with one database is in its line.
pub(crate) fn count(
    store: &dyn SnapshotStore,
    staging: &Volume,
    (old, new): (&Side<'_>, &Side<'_>),
    candidates: &Candidates,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Counted> {
    let mut counted = Counted { left_out: candidates.too_many, ..Counted::default() };
    let pairs = candidates.pairs();
    if pairs.is_empty() {
        return Ok(counted);
    }
    store.create(staging)?;
    let Some(copies) = store.path(staging) else {
        let unsupported = |(new, _): (&Vec<u8>, _)| line(new, Err(Error::new(Code::FilesUnsupported, "this store keeps no files that SQLite can open")));
        counted.databases = pairs.iter().take(DATABASES_SHOWN).map(unsupported).collect();
        counted.left_out += (pairs.len() - counted.databases.len()) as u64;
        return Ok(counted);
    };
    let reader = |side: &Side<'_>| store.open(side.volume).map(|dir| Reader { root: Root::new(dir), prefix: side.prefix.to_vec(), copies: copies.clone() });
    let (before, after) = (reader(old)?, reader(new)?);
    let end = Instant::now() + TIME_OF_ALL;
    for (new, old) in &pairs {
        if stop() {
            return Err(Error::new(Code::OperationCancelled, "nobody waits for the counts any more"));
        }
        let (is, was) = (after.is_database(new), before.is_database(old));
        if !matches!(is, Ok(true)) && !matches!(was, Ok(true)) {
            continue;
        }
        if counted.databases.len() >= DATABASES_SHOWN {
            counted.left_out += 1;
            continue;
        }
        let until = end.min(Instant::now() + TIME_OF_ONE);
        let both = before.rows(old, until, stop).and_then(|a| after.rows(new, until, stop).map(|b| (a, b)));
        match both {
            Err(e) if e.code() == Code::OperationCancelled => return Err(e),
            both => counted.databases.push(line(if after.has(new) { new } else { old }, both)),
        }
    }
    // What is in a volume that was deleted meanwhile looks as if it had never been there.
    before.check()?;
    after.check()?;
    Ok(counted)
}

type Rows = BTreeMap<String, u64>;

fn line(path: &[u8], both: Result<(Rows, Rows)>) -> DiffDatabase {
    let path = [b"/", path].concat();
    let mut line =
        DiffDatabase { kind: DatabaseWord::Database, path: shown(&path), path_encoded: encoded(&path), tables: Vec::new(), equal_tables: 0, error: None };
    match both {
        Err(e) => line.error = Some(DatabaseError { code: e.code().as_str().to_owned(), message: e.message().to_owned() }),
        Ok((old, new)) => {
            for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
                let (from, to) = (old.get(name).copied(), new.get(name).copied());
                if from == to {
                    line.equal_tables += 1;
                } else {
                    line.tables.push(TableRows { name: name.clone(), from, to });
                }
            }
        }
    }
    line
}

/// Reads the databases of one tree.
struct Reader {
    root: Root,
    prefix: Vec<u8>,
    copies: std::path::PathBuf,
}

impl Reader {
    /// The regular file at a path of the container; `None`: there is none, or something else has the name.
    fn file(&self, path: &[u8], end: &str) -> Result<Option<File>> {
        let path = [path.strip_prefix(&self.prefix[..]).unwrap_or(path), end.as_bytes()].concat();
        let path = TreePath::new(&path)?;
        match self.root.find(&path, Last::Keep) {
            Ok(node) if node.meta.kind == NodeKind::File => Ok(Some(node.open_file(&path)?)),
            Ok(_) => Ok(None),
            Err(e) if matches!(e.code(), Code::FileNotFound | Code::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Error: `volume_not_found` if the volume was deleted.
    fn check(&self) -> Result<()> {
        let root = TreePath::root();
        self.root.find(&root, Last::Keep)?.open_directory(&root)?.check_volume()
    }

    fn has(&self, path: &[u8]) -> bool {
        self.file(path, "").is_ok_and(|f| f.is_some())
    }

    fn is_database(&self, path: &[u8]) -> Result<bool> {
        let Some(file) = self.file(path, "")? else { return Ok(false) };
        let mut start = [0; MAGIC.len()];
        Ok(file.read_exact_at(&mut start, 0).is_ok() && &start == MAGIC)
    }

    fn rows(&self, path: &[u8], until: Instant, stop: &(dyn Fn() -> bool + Sync)) -> Result<Rows> {
        if Instant::now() >= until {
            return Err(counts::too_long());
        }
        let Some(file) = self.file(path, "")? else { return Ok(Rows::new()) };
        if let Some(journal) = self.file(path, "-journal")? {
            let mut start = [0; 8];
            // SQLite overwrites the start of a journal that it has done with by zeros, cuts the journal or deletes it.
            if journal.read_exact_at(&mut start, 0).is_ok() && start != [0; 8] {
                return Err(Error::new(
                    Code::DatabasesBusy,
                    "a transaction was being written in one of the states: it has a rollback journal, which is not played back here",
                ));
            }
        }
        let directory = tempfile::tempdir_in(&self.copies).io(|| "make a directory for a copy")?;
        let (copy, log) = (directory.path().join("db"), directory.path().join("db-wal"));
        share(&file, &copy)?;
        if let Some(wal) = self.file(path, "-wal")? {
            share(&wal, &log)?;
        }
        counts::rows(&copy, until, stop)
    }
}

/// Copies a file by sharing its extents, to a name that does not exist.
fn share(from: &File, to: &Path) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let what = || "copy a database";
    let mut target = File::from(rustix::fs::open(to, flags, Mode::RUSR | Mode::WUSR).io(what)?);
    match rustix::fs::ioctl_ficlone(&target, from) {
        // Files with checksums and files without share no extents.
        Err(Errno::INVAL) if from.metadata().io(what)?.len() <= COPIED => {
            let mut from = from;
            std::io::copy(&mut from, &mut target).io(what).map(drop)
        }
        Err(Errno::INVAL) => Err(Error::new(Code::DiffTooLarge, "it has no checksums, and more than 1 GiB: it would have to be copied completely")),
        done => done.io(what),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::diff::{FileType, Inode};

    fn record(path: &str, kind: Kind, file_type: FileType) -> Record {
        let path = path.as_bytes().to_vec();
        Record { path, kind, file_type, inode: Inode { ino: 1, generation: 1 }, bytes: 0, content: true, fields: Vec::new(), link_of: None, replaces: None }
    }

    #[test]
    fn a_database_is_found_by_its_log_and_through_moves_of_directories() {
        let from = |p: &str| Kind::Renamed { from: p.as_bytes().to_vec() };
        let mut c = Candidates::default();
        for (path, kind, file_type) in [
            ("etc/x.db", Kind::Modified, FileType::File),
            ("hoody/databases/a/gone.db", Kind::Deleted, FileType::File),
            ("hoody/databases/b", from("hoody/databases/a"), FileType::Directory),
            ("hoody/databases/b/x.db-wal", Kind::Modified, FileType::File),
            ("hoody/databases/new.db", from("hoody/databases/old.db"), FileType::File),
            ("hoody/databases/owner.db", Kind::Metadata, FileType::File),
            ("tmp/left.db", from("hoody/databases/left.db"), FileType::File),
        ] {
            c.see(&record(path, kind, file_type));
        }
        let shown = |p: &[u8]| String::from_utf8(p["hoody/databases/".len()..].to_vec()).unwrap();
        let pairs: Vec<_> = c.pairs().iter().map(|(new, old)| (shown(new), shown(old))).collect();
        let wanted = [("b/gone.db", "a/gone.db"), ("b/x.db", "a/x.db"), ("left.db", "left.db"), ("new.db", "old.db")];
        assert_eq!(pairs, wanted.map(|(new, old)| (new.to_owned(), old.to_owned())));
    }
}
