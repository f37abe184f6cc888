//! The trait [`LockedDb`].

use super::merge::NewNames;
use super::status::Status;
use super::{copy_database, merge, restore};
use crate::error::{Code, Error, IoContext, Result};
use crate::model::mount::MountSource;
use crate::units::Bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Called when another session has begun.
pub type RestartListener = Box<dyn Fn() + Send + Sync>;

pub(super) fn not_found(volume: &str) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no volume {volume:?}"))
}

/// Serves volumes of databases. See the [module](super). Every method may answer `databases_unavailable`: what serves them does not answer.
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

    /// Makes single names of a volume what they are in the tree `wanted`, as [`LockedDb::revert`] does with the whole tree. `names` are relative paths; the empty
    /// one is the whole. For each name the errors are returned: none if it is as wanted, else what is in it and was not done is as it was. May be repeated.
    ///
    /// Errors of a name: `file_not_found` (it is not in `wanted`, or its directory is not in the volume), `bad_path` (it lies beside a database, or is no
    /// relative path), and those of [`LockedDb::restore_database`].
    fn revert_names(&self, volume: &str, (wanted, backing): (&Path, &Path), names: &[PathBuf], new: NewNames, timeout: Duration) -> Result<Vec<Vec<Error>>> {
        merge::merge_names_in_own_root((wanted, backing, &self.path(volume)), names, new, timeout).io(|| format!("restore databases of volume {volume}"))
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
pub(super) const RESTORE_PATIENCE: Duration = Duration::from_secs(30);

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
