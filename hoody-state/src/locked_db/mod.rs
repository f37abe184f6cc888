//! SQLite databases that any number of processes and containers write at once, without `database is locked`.
//!
//! **Vocabulary.** A *volume* is a directory whose files are served at another place of the host, under the volume's name; the directory is its *backing*.
//! To *quiesce* volumes is to hold every write transaction in them for a short time. To *rebind* a volume is to exchange its backing. A *session* lasts as long
//! as what serves the volumes runs: with a daemon that died and was started again another session begins, in which no volume is served and in which
//! mounts of the session before are dead.
//!
//! **Guarantees** of a [`LockedDb`], tested by `suite` (feature `conformance`) on every backend:
//! 1. While a [`Quiesced`] lives, no write transaction is open in the databases of its volumes and none begins; readers are not held. It ends when it is
//!    dropped, when its lease runs out, or when the process that holds it dies.
//! 2. After `rebind`, whoever opens a name sees the new directory; what was open stays open.
//! 3. Volumes do not reach each other.
//! 4. `park` ends the waits for locks of processes that are being frozen, and these do not notice: they ask again when they are thawed.
//! 5. A database is restored or reverted in one transaction: connections stay open, and see either the old content or the new.
//!
//! **Crashes.** Nothing here is remembered for a host: after a crash of the host's process the volumes are served on, or are not, and the host adds
//! again what it needs (`volume_exists` says that it was there). A restore or revert that was cut short may be repeated.
//!
//! **Cost.** Adding, removing and rebinding take milliseconds. A hold waits for the write transactions that are open, and then costs each writer the time that it
//! lasts. Reverting reads what it compares.
//!
//! [`broker`] decides, without I/O; [`fuse`] is the daemon `hoody-state-fuse` behind its control socket, [`fuse::daemon`] looks after one; [`memory`] is for tests.

mod attributes;
pub mod broker;
mod copy_database;
pub mod fuse;
pub mod memory;
mod merge;
mod restore;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use restore::restore_database;

use crate::error::{Code, Error, IoContext, Result};
use crate::model::mount::MountSource;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Called when another session has begun.
pub type RestartListener = Box<dyn Fn() + Send + Sync>;

fn not_found(volume: &str) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no volume {volume:?}"))
}

/// Serves volumes of databases. See the [module](self). Every method may answer `databases_unavailable`: what serves them does not answer.
pub trait LockedDb: Send + Sync {
    /// Where a volume shows on this host, whether it is served or not.
    fn path(&self, volume: &str) -> PathBuf;

    /// Serves `backing` as `volume`; where it shows. Errors: `volume_exists`, `bad_volume` (the backing is no directory, or the name is empty, `.`, `..` or holds
    /// a slash); `backing_in_use` (another mount of this machine serves it, or a directory in it or around it).
    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf>;

    /// Serves a volume no longer: its waits end; what is open stays open, with its locks. Error: `volume_not_found`.
    fn remove_volume(&self, volume: &str) -> Result<()>;

    /// Exchanges the directory behind a volume. Errors: `volume_not_found`, `bad_volume`, `backing_in_use`.
    fn rebind(&self, volume: &str, backing: &Path) -> Result<()>;

    /// Holds every write in these volumes, once those under way have ended. Errors: `volume_not_found`; `databases_busy` (a write transaction did not end within
    /// `timeout`; nothing is held).
    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>>;

    /// The volumes that are served, who holds locks and who waits.
    fn status(&self) -> Result<Status>;

    /// Ends what these processes wait for; how many waits ended. Only for processes that the kernel has been told to freeze: it then takes the answer (EINTR)
    /// for "freeze first, then ask again", and the program sees nothing of it. To any other process it would be an error. The default is that of a backend
    /// whose waits a freeze ends by itself.
    fn park(&self, _pids: &[i32]) -> Result<usize> {
        Ok(0)
    }

    /// What a container mounts to see a volume.
    fn mount_source(&self, volume: &str) -> MountSource {
        self.path(volume).into()
    }

    /// A number that another session does not have, while both are on this host: what was mounted from a volume is alive as long as it is the same. Error:
    /// `databases_unavailable` when the volume does not answer. The default is the device number of the file system that shows it.
    fn session(&self, volume: &str) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let at = self.path(volume);
        let unavailable = |e| Error::new(Code::DatabasesUnavailable, format!("{} does not answer: {e}", at.display()));
        Ok(std::fs::metadata(&at).map_err(unavailable)?.dev())
    }

    /// Makes the database `to` (below the volume) what the database file `from` is, as one more writer: connections stay open and see the new content in
    /// one step. Errors: `volume_not_found`; `bad_path` (`to` leads out of the volume, or a part of it is a link); `not_a_database`, `databases_busy`.
    fn restore_database(&self, volume: &str, from: &Path, to: &Path) -> Result<()> {
        if volume.contains('/') || !self.status()?.volumes.contains_key(volume) {
            return Err(not_found(volume));
        }
        restore::restore_below(&self.path(volume), from, to, RESTORE_PATIENCE)
    }

    /// Makes the whole tree of a volume what the tree `wanted` is, while others use it: each database in one transaction, which waits up to `timeout` for other
    /// writers; other files by a rename. `backing` is the directory that the volume is served from. `wanted` may be changed: logs of databases are taken
    /// in. Returns what could not be done, an error a name; each of these is as it was. May be repeated.
    fn revert(&self, volume: &str, wanted: &Path, backing: &Path, timeout: Duration) -> Result<Vec<Error>> {
        merge::merge_in_own_root(wanted, backing, &self.path(volume), timeout).io(|| format!("revert the databases of volume {volume}"))
    }

    /// The databases below a directory, served or not: a snapshot's, say. Cost: a look at the first bytes of each file.
    fn databases_in(&self, dir: &Path) -> Result<Vec<DatabaseFile>> {
        databases_in(dir)
    }

    /// Whether this value began a session, so that nothing that was mounted from the volumes before works.
    fn is_new_session(&self) -> bool {
        false
    }

    /// Calls `listener` whenever another session begins from now on. Set once, by the host; the default never begins one.
    fn set_restart_listener(&self, _listener: RestartListener) {}

    /// The host ends: what is served goes on, and is no longer looked after.
    fn close(&self) {}

    /// Ends what serves the volumes, for a machine on which no host uses them: the containers have ended. May be repeated. Error: `databases_busy`.
    fn take_down(&self) -> Result<()> {
        Ok(())
    }
}

/// How long a restore waits for other writers.
const RESTORE_PATIENCE: Duration = Duration::from_secs(30);

/// A database file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size, that of its logs included.
    pub size: Bytes,
}

/// The databases below a directory, by path. No link is followed. Cost: a look at the first bytes of each file.
///
/// # Errors
/// Those of reading directories.
pub fn databases_in(dir: &Path) -> Result<Vec<DatabaseFile>> {
    let found = copy_database::list(dir).io(|| format!("look for databases in {}", dir.display()))?;
    Ok(found.into_iter().map(|(path, size)| DatabaseFile { path, size: Bytes(size) }).collect())
}

/// Writes are held while this lives.
pub trait Quiesced: Send {
    /// Ends the hold. `false` when the lease had run out before: writes may have begun before this.
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
