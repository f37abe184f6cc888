//! Restoring a database in place: SQLite's backup API, as one more writer.

use crate::error::{Error, Kind, Result};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pages in one step: few enough to be answered often, but all in one write transaction of the target.
const PAGES: i32 = 4096;

/// Makes the database `to` what `from` is (its `-wal` and `-journal` included), in one write transaction of `to`: connections stay open, and see either the
/// old content or the new. `from` is not touched. On any failure `to` is as it was.
///
/// # Errors
/// `not_a_database` when `from` is none; `databases_busy` when `to` stays locked for `timeout`; `io`.
pub fn restore_database(from: &Path, to: &Path, timeout: Duration) -> Result<()> {
    // A WAL or a hot journal must be read along, which SQLite does in place only: so on a copy.
    let copy = tempfile::tempdir().map_err(|e| Error::io("make a temporary directory".to_owned(), e))?;
    let source = copy.path().join("source.db");
    for suffix in ["", "-wal", "-journal"] {
        let (a, b) = (with(from, suffix), with(&source, suffix));
        match std::fs::copy(&a, &b) {
            Ok(_) => {}
            Err(e) if !suffix.is_empty() && e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("copy {}", a.display()), e)),
        }
    }
    backup(from, &source, to, timeout)
}

/// The same with a source that may be changed: its logs are taken in where it is.
pub(super) fn copy_into(from: &Path, to: &Path, timeout: Duration) -> Result<()> {
    backup(from, from, to, timeout)
}

/// From `source`, which people know as `from`.
fn backup(from: &Path, source: &Path, to: &Path, timeout: Duration) -> Result<()> {
    let failed = |e: rusqlite::Error| refused(from, to, &e);
    let source = Connection::open(source).map_err(failed)?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    target.busy_timeout(timeout).map_err(failed)?;
    let backup = Backup::new(&source, &mut target).map_err(failed)?;
    let end = Instant::now() + timeout;
    loop {
        match backup.step(PAGES).map_err(failed)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            _ => {
                let m = format!("{} stayed locked for {timeout:?} and is as it was: end the transaction that is open on it, and try again", to.display());
                return Err(Error::new(Kind::Busy, "databases_busy", m));
            }
        }
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn refused(from: &Path, to: &Path, e: &rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            Error::new(Kind::Corrupt, "not_a_database", format!("{} cannot be restored from: {e}; {} is as it was", from.display(), to.display()))
        }
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Error::new(Kind::Busy, "databases_busy", format!("{} is locked ({e}) and is as it was: try again", to.display()))
        }
        _ => Error::new(Kind::Io, "restore_failed", format!("restoring {} from {} failed: {e}; it is as it was", to.display(), from.display())),
    }
}
