//! The catalog of a pool that the kernel made read-only.
//!
//! SQLite needs to write even to read a database with a log (its shared memory). So the two files are copied to the directory for temporary files,
//! where they can be opened as always. Nothing that is written to the copy comes back: writing is refused.

use crate::error::{Code, Error, IoContext, Result};
use nix::sys::statvfs::FsFlags;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A copy of a catalog, removed when the last user of it is gone.
#[derive(Clone)]
pub(super) struct Copy(Arc<Scratch>);

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(error = %e, "could not remove {}", self.0.display());
        }
    }
}

impl Copy {
    pub(super) fn of(dir: &Path) -> Result<Copy> {
        let to = std::env::temp_dir().join(format!("hoody-catalog-{}", uuid::Builder::from_random_bytes(random()?).into_uuid().simple()));
        std::fs::DirBuilder::new().mode(0o700).create(&to).io(|| format!("make {}", to.display()))?;
        let copy = Copy(Arc::new(Scratch(to)));
        for name in ["catalog.sqlite", "catalog.sqlite-wal"] {
            match std::fs::copy(dir.join(name), copy.path().join(name)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map(drop).io(|| format!("copy {} to {}", dir.join(name).display(), copy.path().display()))?,
            }
        }
        Ok(copy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.0
    }
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::io("ask the kernel for random bytes", std::io::Error::other(e.to_string())))?;
    Ok(bytes)
}

/// Whether the file system of `dir` is read-only.
pub(super) fn is(dir: &Path) -> Result<bool> {
    let fs = nix::sys::statfs::statfs(dir).io(|| format!("look at the file system of {}", dir.display()))?;
    Ok(fs.flags().contains(FsFlags::ST_RDONLY))
}

pub(super) fn refused() -> Error {
    Error::new(Code::PoolReadOnly, "the pool is read-only, so nothing can be changed: GET /pool says why")
}
