//! SQLite databases that any number of processes and containers write at once, and that nobody finds locked.
//!
//! **Vocabulary**: a *volume* is a directory whose files are served under a mount; to *quiesce* volumes is to hold every write transaction in them for a
//! moment; to *rebind* a volume is to exchange the directory behind it.
//!
//! **Guarantees** of a [`LockedDb`]:
//! 1. While a [`Quiesced`] lives, no write transaction is open in its volumes and none begins; readers go on. It ends when dropped, when its lease runs out,
//!    or when the process that holds it dies.
//! 2. After `rebind`, whoever opens a name sees the new directory; what was open stays open.
//! 3. Volumes do not reach each other.
//! 4. `park` ends the waits for locks of processes that are being frozen, and these do not notice: they ask again when they are thawed.
//!
//! [`broker`] decides, without I/O; [`fuse`] is the daemon `hoody-state-fuse` behind its control socket; [`memory`] is for tests.

mod attributes;
pub mod broker;
pub(crate) mod copy_database;
pub mod daemon;
pub mod fuse;
pub mod memory;
pub(crate) mod merge;
mod restore;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use restore::restore_database;

use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Serves volumes of databases. See the [module](self).
pub trait LockedDb: Send + Sync {
    /// Where a volume shows, whether it is served or not.
    fn path(&self, volume: &str) -> PathBuf;

    /// Serves `backing` as `volume`; where it shows. Errors: `volume_exists`, `bad_volume`; `backing_in_use` (another mount of this machine serves it, or a
    /// directory in it or around it).
    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf>;

    /// Serves it no longer: its waits end; what is open stays open, with its locks. Error: `volume_not_found`.
    fn remove_volume(&self, volume: &str) -> Result<()>;

    /// Exchanges the directory behind a volume. Errors: `volume_not_found`, `bad_volume`, `backing_in_use`.
    fn rebind(&self, volume: &str, backing: &Path) -> Result<()>;

    /// Holds every write in these volumes, once those under way have ended. Errors: `volume_not_found`; `databases_busy` (a write transaction did not end within
    /// `timeout`; nothing is held).
    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>>;

    /// Makes the database `to` (below the volume) what the database file `from` is, as one more writer: connections stay open and see the new content in
    /// one step. Errors: `volume_not_found`, `not_a_database`, `databases_busy`.
    fn restore_database(&self, volume: &str, from: &Path, to: &Path) -> Result<()>;

    /// Ends what these processes wait for; how many waits ended. Only for processes that the kernel has been told to freeze: it then takes the answer (EINTR)
    /// for "freeze first, then ask again", and the program sees nothing of it. To any other process it would be an error.
    fn park(&self, pids: &[i32]) -> Result<usize>;

    /// Who holds and who waits.
    fn status(&self) -> Result<Status>;

    /// Who uses this ends: what is served goes on, and is no longer looked after.
    fn close(&self) {}
}

/// Writes are held while this lives.
pub trait Quiesced: Send {
    /// Lets go. `false` when the lease had run out before: the moment was not quiet to its end.
    fn release(self: Box<Self>) -> Result<bool>;
}

/// Who holds and who waits, and what happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The volumes, by name (empty for a mount of one directory), with their backing.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Whether reads and writes go straight to the backing files.
    pub passthrough: bool,
    /// Files with locks on them.
    pub files: Vec<FileLocks>,
    /// How many descriptors of the daemon each volume uses for open files, by name; daemons of an earlier version do not say.
    #[serde(default)]
    pub open_files: BTreeMap<String, u64>,
    /// What happened so far, by name: grants, refusals by cause, waits, revocations.
    pub counters: BTreeMap<String, u64>,
}

/// The locks on one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLocks {
    /// Its volume.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// `database`, `shm` or `plain`.
    pub class: String,
    /// The process that may write next, and for how many microseconds it has been so.
    pub intent: Option<(u32, u64)>,
    /// Who holds.
    pub holders: Vec<LockUser>,
    /// Who waits, first in line first.
    pub waiters: Vec<LockUser>,
}

/// Somebody who holds or waits for locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockUser {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Microseconds since it holds or waits.
    pub since_us: u64,
    /// `read 123-123, write 120-120`: which bytes.
    pub locks: String,
}
