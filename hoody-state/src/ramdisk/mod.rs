//! RAM disks: file systems that live in memory and outlive the runs of the container that has them.
//!
//! **Guarantees** of a [`RamDisks`]:
//! 1. An empty disk takes no memory; a full one answers ENOSPC. What is written is charged to the container whose process wrote it.
//! 2. A disk stays until [`RamDisks::remove`] or the end of the host's uptime, whatever becomes of this process.
//! 3. Making, resizing and removing may be repeated.
//!
//! [`tmpfs`] is the real one, [`memory`] for tests.

pub mod memory;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;
pub mod tmpfs;

use crate::error::{Code, Error, Result};
use crate::model::mount::MountSource;
use crate::units::Bytes;

/// What a disk holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Now.
    pub used: Bytes,
    /// At most.
    pub size: Bytes,
}

/// Disks by name. See the [module](self).
pub trait RamDisks: Send + Sync {
    /// Makes the disk, or gives it this size. Returns what to mount in a container; `None` with backends without files. A disk that holds more than `size`
    /// keeps its old size. Errors: `ramdisk_failed`; `bad_path`: the name is not one part of a path.
    fn ensure(&self, name: &str, size: Bytes) -> Result<Option<MountSource>>;

    /// Forgets it with all that is in it; what a process still has open of it goes with that process. None of that name is no error.
    fn remove(&self, name: &str) -> Result<()>;

    /// What it holds; nothing if there is none.
    fn filled(&self, name: &str) -> Result<Option<Filled>>;

    /// The names.
    fn list(&self) -> Result<Vec<String>>;
}

/// Refuses what is not one part of a path. Error: `bad_path`.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(Error::new(Code::BadPath, format!("{name:?} cannot be the name of a RAM disk: it must not be empty, begin with a dot or contain a slash")));
    }
    Ok(())
}
