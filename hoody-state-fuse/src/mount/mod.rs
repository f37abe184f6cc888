//! Mounting: one directory as the root, or several volumes side by side, each isolated from the others.

mod options;
mod place;
mod volumes;

use crate::claim::{self, Claim, Server};
use crate::cpu_latency::CpuLatency;
use crate::descriptors::Descriptors;
use crate::fs::{Core, DatabaseFs};
use crate::locks::LockService;
use crate::mount_error::FEWEST_DESCRIPTORS;
pub use crate::mount_error::MountError;
use crate::sync_pool::SyncPool;
use crate::table::Table;
use crate::volume::{Backing, Volume};
use fuser::{BackgroundSession, Config, MountOption, Notifier, Session, SessionACL};
use hoody_state::mountinfo;
pub use options::MountOptions;
use place::{SOURCE, prepare, raise_open_files, refuse_full};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use volumes::{claimed, refuse_nested, unusable_backing};

/// A live mount. Dropping it unmounts.
pub struct Mount {
    core: Arc<Core>,
    session: Mutex<Option<BackgroundSession>>,
    notifier: Notifier,
    mountpoint: PathBuf,
    next_volume: AtomicU64,
    server: Server,
    /// The claims of this mount, including those on directories that it no longer serves but of which files are still open.
    claims: Mutex<HashMap<(u64, u64), Weak<Claim>>>,
    /// Held by a control client that still has to be answered when the mount has ended.
    farewell: Mutex<()>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

impl Mount {
    /// Mounts `backing` on `mountpoint`. Both can be the same directory: it is then mounted over itself, and its files can only be reached through the mount.
    ///
    /// # Errors
    /// As [`MountError`] says.
    pub fn single(backing: &Path, mountpoint: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let unusable = |source| MountError::Backing { path: backing.to_owned(), source };
        // First: a dead mount may cover the backing.
        let at = prepare(mountpoint)?;
        let real = backing.canonicalize().map_err(unusable)?;
        if real != at {
            refuse_nested(&real, &at)?;
            refuse_full(&at)?;
        }
        let server = Server::new(at.clone(), options.control.clone());
        let claim = claimed(&real, claim::open(&real).map_err(|e| unusable(e.into()))?, &server, &[])?;
        let claims = HashMap::from([(claim.inode, Arc::downgrade(&claim))]);
        let opened = Backing::claimed(&real, claim).map_err(|e| unusable_backing(&real, e))?;
        let mut volumes = BTreeMap::new();
        volumes.insert(OsString::new(), Volume::new(OsString::new(), 1, 1, opened));
        Self::start(volumes, true, server, claims, &real, options)
    }

    /// Mounts an empty root on `mountpoint`; volumes are added to it later.
    ///
    /// # Errors
    /// As [`MountError`] says.
    pub fn volumes(mountpoint: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let at = prepare(mountpoint)?;
        refuse_full(&at)?;
        Self::start(BTreeMap::new(), false, Server::new(at, options.control.clone()), HashMap::new(), Path::new("volumes"), options)
    }

    fn start(
        volumes: BTreeMap<OsString, Arc<Volume>>,
        single: bool,
        server: Server,
        claims: HashMap<(u64, u64), Weak<Claim>>,
        source: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        let descriptors = raise_open_files();
        if descriptors < FEWEST_DESCRIPTORS {
            return Err(MountError::TooFewDescriptors(descriptors));
        }
        let core = Arc::new(Core {
            table: Table::default(),
            locks: LockService::new(options.limits),
            sync: SyncPool::default(),
            bulk: SyncPool::default(),
            passthrough: AtomicBool::new(options.passthrough),
            node_per_connection: options.node_per_connection,
            volumes: RwLock::new(volumes),
            single,
            group: options.group,
            notifier: OnceLock::new(),
            most_nodes: options.most_nodes.unwrap_or(descriptors / 2),
            forgetting: AtomicBool::default(),
            descriptors: Descriptors::new(descriptors, options.volume_descriptors, single),
            latency: CpuLatency::start(options.stay_awake),
            requests: Default::default(),
            ended: Default::default(),
        });
        for volume in core.volumes.read().unwrap_or_else(PoisonError::into_inner).values() {
            core.table.add_root(volume);
        }
        let mut config = Config::default();
        // A comma would end the option. A dead mount of this program is recognised by the prefix.
        let name = format!("{SOURCE}{}", source.to_string_lossy().replace(',', "_"));
        config.mount_options = vec![MountOption::FSName(name), MountOption::DefaultPermissions, MountOption::NoDev, MountOption::NoSuid];
        config.acl = SessionACL::All;
        config.n_threads = Some(options.event_loops.max(1));
        config.clone_fd = options.event_loops > 1;
        let mountpoint = server.mountpoint.clone();
        let failed = |source| MountError::Kernel { path: mountpoint.clone(), source };
        let session = Session::new(DatabaseFs(core.clone()), &mountpoint, &config).map_err(failed)?;
        let notifier = session.notifier();
        let _ = core.notifier.set(session.notifier());
        let session = session.spawn().map_err(failed)?;
        Ok(Mount {
            core,
            session: Mutex::new(Some(session)),
            notifier,
            mountpoint,
            next_volume: AtomicU64::new(2),
            server,
            claims: Mutex::new(claims),
            farewell: Mutex::default(),
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Its lock service.
    #[must_use]
    pub fn locks(&self) -> &Arc<LockService> {
        &self.core.locks
    }

    /// How many requests of each kind the kernel sent.
    #[must_use]
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.core.requests.all().collect()
    }

    /// How many descriptors are in use and may be in use, by name of the counter.
    #[must_use]
    pub fn descriptors(&self) -> [(&'static str, u64); 4] {
        self.core.descriptors.counters()
    }

    /// How many descriptors each volume uses for open files.
    #[must_use]
    pub fn open_files(&self) -> BTreeMap<OsString, usize> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.values().map(|v| (v.name.clone(), v.usage.open())).collect()
    }

    /// How many nodes there are now.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.core.table.len()
    }

    /// How long processors were kept awake, in microseconds.
    #[must_use]
    pub fn kept_awake_us(&self) -> u64 {
        self.core.latency.held_us()
    }

    /// Whether the kernel reads and writes the backing files of every volume itself (passthrough).
    #[must_use]
    pub fn passes_through(&self) -> bool {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        self.core.passthrough.load(Ordering::Relaxed) && volumes.values().all(|v| v.backing().passes)
    }

    /// Ends the mount. If files are in use it is detached, and ends when the last of them is closed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmount(&self) -> std::io::Result<()> {
        let mut slot = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = slot.take() else { return Ok(()) };
        // Somebody else may have unmounted it. There may be another mount here by now, which must stay.
        if !session.guard.is_finished()
            && self.is_there()
            && let Err(e) = place::detach(&self.mountpoint)
        {
            *slot = Some(session);
            return Err(e);
        }
        // Dropping it would unmount the path once more while files are in use, perhaps the mount of a successor. Only a descriptor is leaked.
        std::mem::forget(session);
        self.core.sync.end();
        self.core.bulk.end();
        Ok(())
    }

    /// Whether anything is mounted on the mountpoint. If somebody else has detached the mount, it still runs but cannot be reached.
    pub(crate) fn is_there(&self) -> bool {
        // If the mounts cannot be read, assume that it is there.
        mountinfo::topmost(&self.mountpoint).map_or(true, |m| m.is_some())
    }

    /// Waits until it is unmounted, by anybody, and the kernel sends no more requests.
    pub fn wait(&self) {
        self.core.ended.wait();
        drop(self.farewell());
    }

    /// While this guard is held, [`Mount::wait`] does not return.
    pub(crate) fn farewell(&self) -> MutexGuard<'_, ()> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(e) = self.unmount() {
            tracing::warn!("{} stays mounted: {e}", self.mountpoint.display());
        }
    }
}
