//! Mounting: one directory as the root, or several volumes side by side, each isolated from the others.

use crate::cpu_latency::CpuLatency;
use crate::fs::{Core, DatabaseFs};
use crate::locks::{Limits, LockService};
use crate::sync_pool::SyncPool;
use crate::table::Table;
use crate::volume::{Backing, Volume};
use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use rustix::fs::{OFlags, RawDir};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Let the kernel read and write the backing files itself, where it can.
    pub passthrough: bool,
    /// Threads that take requests. One is fastest (each hand-over stays on one thread) and never waits for a sync; more keep locks going while a slow disk holds up the making of a file.
    pub event_loops: usize,
    /// Give each connection of one process a node of its own, so that its threads wait for each other too. Needs passthrough.
    pub fresh_nodes: bool,
    /// Keep processors awake while requests come thick (see the module `cpu_latency`): a transaction takes a quarter to two thirds of the time.
    pub stay_awake: bool,
    /// How many nodes are kept, each with a descriptor: beyond it names that nobody uses are forgotten. Default: half of the descriptors there may be.
    pub most_nodes: Option<usize>,
    /// How long locks wait.
    pub limits: Limits,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions { passthrough: true, event_loops: 1, fresh_nodes: true, stay_awake: true, most_nodes: None, limits: Limits::default() }
    }
}

/// What mounting can meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Only root may mount with passthrough for all users.
    #[error("mounting needs root: run it with sudo")]
    NotRoot,
    /// No FUSE in this kernel, or no device node.
    #[error("/dev/fuse cannot be opened ({0}): the kernel needs FUSE (`modprobe fuse`)")]
    NoFuse(std::io::Error),
    /// The backing cannot be used.
    #[error("the backing {} cannot be used: {source}; give a directory", path.display())]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The mountpoint cannot be used.
    #[error("the mountpoint {} cannot be used: {source}; give an empty directory", path.display())]
    Mountpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of the two lies in the other.
    #[error("{} and {} lie in each other: a mount would cover its own backing; use two separate directories", backing.display(), mountpoint.display())]
    Nested {
        /// The backing.
        backing: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// Something is mounted there.
    #[error("{} is a mountpoint already: unmount it first (`hoody-state-fuse unmount`, or `umount`)", .0.display())]
    InUse(PathBuf),
    /// No such volume, or there is one already.
    #[error("{0}")]
    Volume(String),
    /// The kernel refused.
    #[error("mounting on {} failed: {source}", path.display())]
    Kernel {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A live mount. Dropping it unmounts.
pub struct Mount {
    core: Arc<Core>,
    session: Mutex<Option<BackgroundSession>>,
    notifier: Notifier,
    mountpoint: PathBuf,
    next_volume: AtomicU64,
    /// Held by whoever has something to say yet when it has ended.
    farewell: Mutex<()>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

/// What the source of our mounts begins with in `/proc/self/mountinfo`.
const SOURCE: &str = "hoody-state:";

impl Mount {
    /// Mounts `backing` on `mountpoint`.
    ///
    /// # Errors
    /// As [`MountError`] says.
    pub fn single(backing: &Path, mountpoint: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let unusable = |source| MountError::Backing { path: backing.to_owned(), source };
        let real = backing.canonicalize().map_err(unusable)?;
        prepare(mountpoint, Some(&real))?;
        let opened = Backing::open(&real).map_err(unusable)?;
        let mut volumes = BTreeMap::new();
        volumes.insert(OsString::new(), Volume::new(OsString::new(), 1, 1, opened));
        Self::start(volumes, true, mountpoint, &real, options)
    }

    /// Mounts an empty root on `mountpoint`, to which volumes are added.
    ///
    /// # Errors
    /// As [`MountError`] says.
    pub fn volumes(mountpoint: &Path, options: &MountOptions) -> Result<Self, MountError> {
        prepare(mountpoint, None)?;
        Self::start(BTreeMap::new(), false, mountpoint, Path::new("volumes"), options)
    }

    fn start(volumes: BTreeMap<OsString, Arc<Volume>>, single: bool, mountpoint: &Path, source: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let descriptors = raise_open_files();
        let core = Arc::new(Core {
            table: Table::default(),
            locks: LockService::new(options.limits),
            sync: SyncPool::default(),
            bulk: SyncPool::default(),
            passthrough: AtomicBool::new(options.passthrough),
            fresh: options.fresh_nodes,
            volumes: RwLock::new(volumes),
            single,
            notifier: OnceLock::new(),
            most_nodes: options.most_nodes.unwrap_or(descriptors / 2),
            forgetting: AtomicBool::default(),
            latency: CpuLatency::start(options.stay_awake),
            requests: Default::default(),
            ended: Default::default(),
        });
        for volume in core.volumes.read().unwrap_or_else(PoisonError::into_inner).values() {
            core.table.add_root(volume);
        }
        let mut config = Config::default();
        // A comma would end the option. The word in front is how a dead mount of ours is known.
        let name = format!("{SOURCE}{}", source.to_string_lossy().replace(',', "_"));
        config.mount_options = vec![MountOption::FSName(name), MountOption::DefaultPermissions, MountOption::NoDev, MountOption::NoSuid];
        config.acl = SessionACL::All;
        config.n_threads = Some(options.event_loops.max(1));
        config.clone_fd = options.event_loops > 1;
        let failed = |source| MountError::Kernel { path: mountpoint.to_owned(), source };
        let session = Session::new(DatabaseFs(core.clone()), mountpoint, &config).map_err(failed)?;
        let notifier = session.notifier();
        let _ = core.notifier.set(session.notifier());
        let session = session.spawn().map_err(failed)?;
        let mountpoint = mountpoint.canonicalize().unwrap_or_else(|_| mountpoint.to_owned());
        Ok(Mount { core, session: Mutex::new(Some(session)), notifier, mountpoint, next_volume: AtomicU64::new(2), farewell: Mutex::default() })
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

    /// How many nodes are known now.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.core.table.len()
    }

    /// For how long processors were kept awake, in microseconds.
    #[must_use]
    pub fn kept_awake_us(&self) -> u64 {
        self.core.latency.held_us()
    }

    /// Whether data pass through to every volume's files.
    #[must_use]
    pub fn passes_through(&self) -> bool {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        self.core.passthrough.load(Ordering::Relaxed) && volumes.values().all(|v| v.backing().passes)
    }

    /// The volumes: name (empty for a single one), number, backing.
    #[must_use]
    pub fn list_volumes(&self) -> Vec<(OsString, u64, PathBuf)> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.values().map(|v| (v.name.clone(), v.id, v.backing().path.clone())).collect()
    }

    fn volume(&self, name: &OsStr) -> Result<Arc<Volume>, MountError> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(name).cloned().ok_or_else(|| MountError::Volume(format!("there is no volume {}", name.display())))
    }

    /// The number of a volume, for [`LockService::quiesce`].
    ///
    /// # Errors
    /// No such volume.
    pub fn volume_id(&self, name: &OsStr) -> Result<u64, MountError> {
        self.volume(name).map(|v| v.id)
    }

    fn backing(&self, path: &Path) -> Result<Arc<Backing>, MountError> {
        let unusable = |source| MountError::Backing { path: path.to_owned(), source };
        refuse_nested(path, &self.mountpoint)?;
        // Volumes may lie where others can put links: none is followed.
        Backing::open(path).map_err(unusable)
    }

    /// Adds a volume: it shows under its name at once.
    ///
    /// # Errors
    /// The name is taken or no file name; the backing is no directory.
    pub fn add_volume(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.as_bytes().contains(&b'/');
        if self.core.single || !plain {
            return Err(MountError::Volume(format!("a volume cannot be called {:?}, or this mount has one volume only", name.display())));
        }
        let backing = self.backing(backing)?;
        let id = self.next_volume.fetch_add(1, Ordering::Relaxed);
        // The root's node is apart from all inode numbers.
        let volume = Volume::new(name.to_owned(), id, 1 << 61 | id << 1 | 1, backing);
        let mut volumes = self.core.volumes.write().unwrap_or_else(PoisonError::into_inner);
        if volumes.contains_key(name) {
            return Err(MountError::Volume(format!("there is a volume {} already", name.display())));
        }
        self.core.table.add_root(&volume);
        volumes.insert(name.to_owned(), volume);
        drop(volumes);
        self.forget_name(INodeNo(1), name);
        Ok(())
    }

    /// Removes a volume. What is open of it can still be read, written and locked through its descriptors; its waits end.
    ///
    /// # Errors
    /// No such volume.
    pub fn remove_volume(&self, name: &OsStr) -> Result<(), MountError> {
        let volume = self.volume(name)?;
        self.core.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let names = names(&volume.backing());
        self.core.locks.forget_volume(volume.id);
        self.core.table.remove_volume(&volume);
        for n in names {
            self.forget_name(INodeNo(volume.root_node), &n);
        }
        self.forget_name(INodeNo(1), name);
        Ok(())
    }

    /// Exchanges what backs a volume: from the next look-up on, everybody sees `backing`. What is open of the old one stays open; its names are stale.
    ///
    /// # Errors
    /// No such volume; the backing is no directory.
    pub fn rebind(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let volume = self.volume(name)?;
        let backing = self.backing(backing)?;
        let mut stale = names(&backing);
        let old = volume.exchange(backing);
        stale.extend(names(&old));
        self.core.locks.forget_volume(volume.id);
        for n in stale {
            self.forget_name(INodeNo(volume.root_node), &n);
        }
        if let Err(e) = self.notifier.inval_inode(INodeNo(volume.root_node), 0, 0) {
            tracing::warn!("the kernel keeps attributes of {}: {e}", name.display());
        }
        Ok(())
    }

    fn forget_name(&self, parent: INodeNo, name: &OsStr) {
        if let Err(e) = self.notifier.inval_entry(parent, name) {
            tracing::debug!("the kernel keeps the name {}: {e}", name.display());
        }
    }

    /// Ends the mount. Files in use make it busy: it is detached then, and ends with their last use.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmount(&self) -> std::io::Result<()> {
        let mut slot = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = slot.take() else { return Ok(()) };
        // Somebody else may have unmounted it: then there may be another mount here by now, which is not ours to end.
        if !session.guard.is_finished()
            && self.is_there()
            && let Err(e) = rustix_unmount(&self.mountpoint)
        {
            *slot = Some(session);
            return Err(e);
        }
        // Dropped, it would unmount by name once more while anything of this is in use: a successor's mount, perhaps. All that stays is a descriptor.
        std::mem::forget(session);
        self.core.sync.end();
        self.core.bulk.end();
        Ok(())
    }

    /// Whether anything is mounted at its place: somebody else may have detached it, and then it cannot be reached any more though it goes on.
    pub(crate) fn is_there(&self) -> bool {
        // Who cannot look does not know: it is there until it is known not to be.
        std::fs::read_to_string("/proc/self/mountinfo").map_or(true, |table| source_on(&table, &self.mountpoint).is_some())
    }

    /// Waits until it is unmounted, by whomever, and the kernel asks for nothing more.
    pub fn wait(&self) {
        self.core.ended.wait();
        drop(self.farewell());
    }

    /// While this is held, [`Mount::wait`] does not return.
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

fn rustix_unmount(at: &Path) -> std::io::Result<()> {
    nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).map_err(Into::into)
}

/// The names in a backing's root.
fn names(backing: &Backing) -> BTreeSet<OsString> {
    let mut found = BTreeSet::new();
    let Ok(dir) = crate::recognise::reopen(&backing.root, OFlags::RDONLY | OFlags::DIRECTORY) else { return found };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(Ok(e)) = entries.next() {
        found.insert(OsString::from_vec(e.file_name().to_bytes().to_vec()));
    }
    found
}

fn refuse_nested(backing: &Path, mountpoint: &Path) -> Result<(), MountError> {
    if backing.starts_with(mountpoint) || mountpoint.starts_with(backing) {
        return Err(MountError::Nested { backing: backing.to_owned(), mountpoint: mountpoint.to_owned() });
    }
    Ok(())
}

/// Checks what a mount needs; takes away what a daemon that died left on the mountpoint.
fn prepare(mountpoint: &Path, backing: Option<&Path>) -> Result<(), MountError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MountError::NotRoot);
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::NoFuse)?;
    let unusable = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    // A dead mount cannot even be looked at, so its absolute name is all there is to go by.
    let absolute = std::path::absolute(mountpoint).map_err(unusable)?;
    // Attributes may still be cached; how full it is must be asked of the daemon.
    use rustix::io::Errno;
    let dead = matches!(rustix::fs::statfs(&absolute), Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED));
    if dead {
        if !mounted_from(&absolute).is_some_and(|s| s.starts_with(SOURCE)) {
            return Err(MountError::InUse(absolute));
        }
        tracing::info!("a mount whose daemon died is taken away from {}", absolute.display());
        rustix_unmount(&absolute).map_err(unusable)?;
    }
    if !std::fs::metadata(mountpoint).map_err(unusable)?.is_dir() {
        return Err(unusable(std::io::Error::from_raw_os_error(nix::libc::ENOTDIR)));
    }
    let real = mountpoint.canonicalize().map_err(unusable)?;
    if mounted_from(&real).is_some() {
        return Err(MountError::InUse(real));
    }
    backing.map_or(Ok(()), |b| refuse_nested(b, &real))
}

/// The source of what is mounted on exactly this place.
fn mounted_from(at: &Path) -> Option<String> {
    source_on(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, at)
}

fn source_on(table: &str, at: &Path) -> Option<String> {
    let of = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let place = left.split(' ').nth(4)?.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        (Path::new(&place) == at).then(|| right.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    table.lines().filter_map(of).next_back()
}

/// Each node has a descriptor: as many as the kernel allows. How many there may be now.
fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(1 << 20);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok();
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    if !raised {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    usize::try_from(hard).unwrap_or(usize::MAX)
}
