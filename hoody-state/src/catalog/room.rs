//! Room for the catalog in a pool that is full.
//!
//! The catalog's directory is no-COW: what is written where there is room already takes no more of it. So the log and the database have theirs
//! laid by, beyond their ends. Opening makes a small file anew (`-shm`): for that there is a file that can be given up.

use crate::error::{Error, IoContext, Result};
use crate::units::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::path::Path;

/// More than the log grows to before it begins anew (1000 pages), and than the largest transaction beyond that.
const LOG: Bytes = Bytes::mib(8);
/// What the database may grow by between two openings.
const DATABASE: Bytes = Bytes::mib(8);
const SPARE: Bytes = Bytes::mib(4);
const SPARE_NAME: &str = "spare";

/// Lays room by, as far as there is any: a pool that is full now gets it the next time.
pub(super) fn lay_by(dir: &Path) {
    for (name, more) in [("catalog.sqlite-wal", LOG), ("catalog.sqlite", DATABASE), (SPARE_NAME, SPARE)] {
        if let Err(e) = lay_by_for(&dir.join(name), more, name == "catalog.sqlite") {
            tracing::warn!(file = name, error = %e, "could not lay by room for the catalog");
        }
    }
}

fn lay_by_for(path: &Path, more: Bytes, beyond: bool) -> Result<()> {
    let what = || format!("lay by room for {}", path.display());
    let f = File::options().create(true).truncate(false).read(true).write(true).open(path).io(what)?;
    let end = if beyond { f.metadata().io(what)?.len() } else { 0 };
    let len = i64::try_from(end + more.0).unwrap_or(i64::MAX);
    match fallocate(&f, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
        // A file system without the call is not a pool's.
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(e).io(what),
    }
}

/// Whether an error of the catalog may come of a lack of room. Of its shared memory it is said as an I/O error.
pub(super) fn is_lack_of_it(e: &Error) -> bool {
    use rusqlite::ErrorCode as C;
    let cause = std::error::Error::source(e).and_then(|s| s.downcast_ref::<rusqlite::Error>());
    cause.and_then(rusqlite::Error::sqlite_error_code).is_some_and(|c| matches!(c, C::DiskFull | C::SystemIoFailure | C::CannotOpen))
}

/// Gives the spare file up; false if there is none.
pub(super) fn give_way(dir: &Path) -> Result<bool> {
    match std::fs::remove_file(dir.join(SPARE_NAME)) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(format!("remove {}", dir.join(SPARE_NAME).display()), e)),
    }
    let d = File::open(dir).io(|| format!("open {}", dir.display()))?;
    nix::unistd::syncfs(&d).io(|| format!("sync {}", dir.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn room_is_laid_by_and_the_spare_is_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(crate::catalog::Catalog::open(dir.path()).unwrap());
        let wal = std::fs::metadata(dir.path().join("catalog.sqlite-wal")).unwrap();
        assert!(wal.blocks() * 512 >= LOG.0 && wal.len() < LOG.0);
        assert!(give_way(dir.path()).unwrap());
        assert!(!give_way(dir.path()).unwrap());
        crate::catalog::Catalog::open(dir.path()).unwrap();
    }
}
