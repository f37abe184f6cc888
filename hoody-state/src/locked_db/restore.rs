//! Restoring a database in place: SQLite's backup API, as one more writer.

use crate::error::{Code, Error, IoContext, Result};
use crate::sys::mount::{Links, open_in_root};
use crate::sys::private_root::{Access, in_root_of};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Pages in one step: few enough to be answered often, but all in one write transaction of the target.
const PAGES: i32 = 4096;

/// What belongs to a database besides its file.
pub(super) const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes the database `to` what `from` is (its `-wal` and `-journal` included), in one write transaction of `to`: connections stay open, and see either the
/// old content or the new. `from` is not touched. On any failure `to` is as it was.
///
/// Where `to` is no database that SQLite can write (overwritten with rubbish, or never one) a new file takes its name, owner and mode in one step, on the
/// disk before it does; what lay beside `to` for SQLite goes. A process that is killed in between leaves the old file under its name, and beside it what was
/// its log, called `.hoody-revert-…`. Connections that were open on it are left with the old file.
///
/// A database of another page size in WAL mode leaves that mode for it (the new content says which it has then): nobody else may be connected.
///
/// # Errors
/// `not_a_database` when `from` is none; `databases_busy` when `to` stays locked for `timeout`; `io`.
pub fn restore_database(from: &Path, to: &Path, timeout: Duration) -> Result<()> {
    let (_copy, source) = copied(from)?;
    put(&Said { from, to }, &source, to, timeout)
}

/// The same for a path below a volume in which others make links: none is followed, and whatever they do meanwhile, nothing outside is written.
pub(super) fn restore_below(volume: &Path, from: &Path, to: &Path, timeout: Duration) -> Result<()> {
    below(volume, to)?;
    let (copy, source) = copied(from)?;
    let name = source.file_name().unwrap_or_default();
    let what = || format!("restore {}", volume.join(to).display());
    in_root_of(&[("source", copy.path(), Access::Write), ("target", volume, Access::Write)], || {
        let target = Path::new("/target");
        no_links(target, to)?;
        put(&Said { from, to }, &Path::new("/source").join(name), &target.join(to), timeout)
    })
    .io(what)?
}

/// A place below a volume: no way out of it by name.
pub(super) fn below(volume: &Path, to: &Path) -> Result<PathBuf> {
    if to.as_os_str().is_empty() || !to.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(Error::new(Code::BadPath, format!("{} must be a path below its volume, without `..`", to.display())));
    }
    Ok(volume.join(to))
}

/// Refuses a path of which any part is a link.
fn no_links(root: &Path, to: &Path) -> Result<()> {
    let what = || format!("look at {}", to.display());
    let link = || Error::new(Code::BadPath, format!("a part of {} is a symbolic link, which could lead out of its volume: name the file itself", to.display()));
    let parent = to.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        match open_in_root(File::open(root).io(what)?.as_fd(), parent, Links::None) {
            Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => return Err(link()),
            r => r.io(what)?,
        };
    }
    if std::fs::symlink_metadata(root.join(to)).is_ok_and(|m| m.is_symlink()) {
        return Err(link());
    }
    Ok(())
}

/// A copy of a database: a WAL or a hot journal must be read along, which SQLite does in place only.
fn copied(from: &Path) -> Result<(tempfile::TempDir, PathBuf)> {
    let copy = tempfile::tempdir().map_err(|e| Error::io("make a temporary directory".to_owned(), e))?;
    let source = copy.path().join("source.db");
    for suffix in ["", "-wal", "-journal"] {
        let (a, b) = (with(from, suffix), with(&source, suffix));
        match std::fs::copy(&a, &b) {
            Ok(_) => {}
            Err(e) if !suffix.is_empty() && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("copy {}", a.display()), e)),
        }
    }
    Ok((copy, source))
}

/// The same with a source that may be changed: its logs are taken in where it is.
pub(super) fn copy_into(from: &Path, to: &Path, timeout: Duration) -> Result<()> {
    put(&Said { from, to }, from, to, timeout)
}

/// Whether a file begins as SQLite's do; one that cannot be looked at does not. No link is followed.
pub(super) fn is_database(path: &Path) -> bool {
    has_header(path).unwrap_or(false)
}

/// The same, where a mistake would cost something.
pub(super) fn has_header(path: &Path) -> io::Result<bool> {
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
    let mut head = [0; 16];
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    match file.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        r => r.map(|()| &head == b"SQLite format 3\0"),
    }
}

/// What people know the two files as.
struct Said<'a> {
    from: &'a Path,
    to: &'a Path,
}

/// In place where that is possible.
fn put(said: &Said<'_>, source: &Path, to: &Path, timeout: Duration) -> Result<()> {
    let what = || format!("look at {}", said.to.display());
    // What is exchanged is the file itself, not a link to it.
    let to = &match to.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => to.to_owned(),
        r => r.io(what)?,
    };
    let in_place = match std::fs::metadata(to) {
        Ok(m) => m.len() == 0 || has_header(to).io(what)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(e).io(what),
    };
    if in_place {
        match backup(said, source, to, timeout) {
            Err(Failed::Target(e)) => tracing::info!("{} is exchanged: {e}", said.to.display()),
            Err(Failed::Other(e)) => return Err(e),
            Ok(()) => return Ok(()),
        }
    }
    exchange(said, source, to, timeout)
}

/// A new file in the place of `to`.
fn exchange(said: &Said<'_>, source: &Path, to: &Path, timeout: Duration) -> Result<()> {
    let what = || format!("exchange {}", said.to.display());
    let was = std::fs::metadata(to).io(what)?;
    let new = passing(to);
    let made = (|| {
        // Nobody else's until it has the owner and mode of the old.
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).io(what)?;
        backup(said, source, &new, timeout).map_err(Failed::into_error)?;
        std::os::unix::fs::chown(&new, Some(was.uid()), Some(was.gid())).io(what)?;
        std::fs::set_permissions(&new, was.permissions()).io(what)?;
        File::open(&new).and_then(|f| f.sync_all()).io(what)
    })();
    // Never under the new file: SQLite would take the old log for its. And not removed before it is there: until then it is all of the old that may be good.
    let mut aside = Vec::new();
    let placed = made.and_then(|()| {
        for suffix in BESIDE {
            let (old, kept) = (with(to, suffix), passing(to));
            match std::fs::rename(&old, &kept) {
                Ok(()) => aside.push((old, kept)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).io(what),
            }
        }
        std::fs::rename(&new, to).io(what)
    });
    if placed.is_err() {
        for (old, kept) in &aside {
            if let Err(e) = std::fs::rename(kept, old) {
                tracing::warn!("{} stays {}: {e}", old.display(), kept.display());
            }
        }
        for suffix in [""].iter().chain(&BESIDE) {
            let _ = std::fs::remove_file(with(&new, suffix));
        }
        return placed;
    }
    for (_, kept) in &aside {
        if let Err(e) = std::fs::remove_file(kept) {
            tracing::warn!("{} stays: {e}", kept.display());
        }
    }
    // The names too are on the disk when it is said to be done.
    to.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|d| d.sync_all())).io(what)
}

/// A name beside `path` that nobody else uses.
pub(super) fn passing(path: &Path) -> PathBuf {
    path.with_file_name(format!(".hoody-revert-{}", crate::id::OperationId::generate()))
}

/// Why nothing was copied in place.
enum Failed {
    /// What is there is no database that SQLite can write.
    Target(Error),
    Other(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Failed::Target(e) | Failed::Other(e) => e,
        }
    }
}

fn backup(said: &Said<'_>, source: &Path, to: &Path, timeout: Duration) -> std::result::Result<(), Failed> {
    let other = |e: rusqlite::Error| Failed::Other(refused(said, &e));
    let source = Connection::open(source).map_err(other)?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(other)?;
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(other)?;
    target.busy_timeout(timeout).map_err(other)?;
    let left_wal = match must_leave_wal(&source, &target) {
        Ok(must) => must,
        Err(e) if is_damage(&e) => return Err(Failed::Target(refused(said, &e))),
        Err(e) => return Err(other(e)),
    };
    if left_wal && let Err(e) = target.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())) {
        if !is_busy(&e) {
            return Err(other(e));
        }
        let m = format!("{} is as it was ({e}): to take another page size it must be open to nobody else; end who uses it, and try again", said.to.display());
        return Err(Failed::Other(Error::new(Code::DatabasesBusy, m)));
    }
    let copied = copy_pages(&source, &mut target, timeout);
    if left_wal && !matches!(copied, Ok(true)) {
        // As it was.
        let _ = target.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
    }
    match copied {
        Ok(true) => Ok(()),
        Ok(false) => {
            let m = format!("{} stayed locked for {timeout:?} and is as it was: end the transaction that is open on it, and try again", said.to.display());
            Err(Failed::Other(Error::new(Code::DatabasesBusy, m)))
        }
        // Which of the two: the source was read before.
        Err(e) if is_damage(&e) && target.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).is_err_and(|e| is_damage(&e)) => {
            Err(Failed::Target(refused(said, &e)))
        }
        Err(e) => Err(other(e)),
    }
}

/// In WAL mode a database cannot change its page size, which the copy would have to.
fn must_leave_wal(source: &Connection, target: &Connection) -> rusqlite::Result<bool> {
    let size = |c: &Connection| c.query_row("PRAGMA page_size", [], |r| r.get::<_, i64>(0));
    let mode: String = target.query_row("PRAGMA journal_mode", [], |r| r.get(0))?;
    Ok(mode == "wal" && size(source)? != size(target)?)
}

fn is_damage(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt))
}

fn is_busy(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

/// False when it stayed locked.
fn copy_pages(source: &Connection, target: &mut Connection, timeout: Duration) -> rusqlite::Result<bool> {
    let backup = Backup::new(source, target)?;
    let end = Instant::now() + timeout;
    loop {
        match backup.step(PAGES)? {
            StepResult::Done => return Ok(true),
            StepResult::More => {}
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            _ => return Ok(false),
        }
    }
}

pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn refused(said: &Said<'_>, e: &rusqlite::Error) -> Error {
    let (from, to) = (said.from, said.to);
    match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            Error::new(Code::NotADatabase, format!("{} cannot be restored from: {e}; {} is as it was", from.display(), to.display()))
        }
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Error::new(Code::DatabasesBusy, format!("{} is locked ({e}) and is as it was: try again", to.display()))
        }
        _ => Error::new(Code::RestoreFailed, format!("restoring {} from {} failed: {e}; it is as it was", to.display(), from.display())),
    }
}
