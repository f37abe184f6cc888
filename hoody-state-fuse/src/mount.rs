//! Mounting: one directory as the root, or several volumes side by side, each isolated from the others.

use crate::claim::{self, Claim, Refused, Server};
use crate::cpu_latency::CpuLatency;
use crate::descriptors::Descriptors;
use crate::fs::{Core, DatabaseFs};
use crate::locks::{Limits, LockService};
use crate::mount_error::FEWEST_DESCRIPTORS;
pub use crate::mount_error::MountError;
use crate::sync_pool::SyncPool;
use crate::table::Table;
use crate::volume::{Backing, Unusable, Volume};
use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use hoody_state::mountinfo;
use rustix::fs::{OFlags, RawDir};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

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
    /// How many descriptors the files that are open in one volume may use. Default: an eighth of all, or all of them where there is one volume only.
    pub volume_descriptors: Option<usize>,
    /// With volumes: only root and this group may pass the root on the way to one. `None`: everybody may.
    pub group: Option<u32>,
    /// How long locks wait.
    pub limits: Limits,
    /// Where its control socket will be, if it has one: told to whoever wants to serve the same directory.
    pub control: Option<PathBuf>,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            passthrough: true,
            event_loops: 1,
            fresh_nodes: true,
            stay_awake: true,
            most_nodes: None,
            volume_descriptors: None,
            group: None,
            limits: Limits::default(),
            control: None,
        }
    }
}

/// A live mount. Dropping it unmounts.
pub struct Mount {
    core: Arc<Core>,
    session: Mutex<Option<BackgroundSession>>,
    notifier: Notifier,
    mountpoint: PathBuf,
    next_volume: AtomicU64,
    server: Server,
    /// The claims of this mount, also on what it served before while somebody has that open.
    claims: Mutex<HashMap<(u64, u64), Weak<Claim>>>,
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

/// How long what is mounted on the mountpoint already may take to answer.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(5);

impl Mount {
    /// Mounts `backing` on `mountpoint`. The two may be one directory: then it is mounted over itself, and nobody reaches the files beside the mount any more.
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

    /// Mounts an empty root on `mountpoint`, to which volumes are added.
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
            fresh: options.fresh_nodes,
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
        // A comma would end the option. The word in front is how a dead mount of ours is known.
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

    /// How many descriptors are used, and may be, by name.
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

    /// The volumes: name (empty for a single one), number, and a path of the backing. One that the mount covers is reached by this process's descriptor only.
    #[must_use]
    pub fn list_volumes(&self) -> Vec<(OsString, u64, PathBuf)> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let reached = |b: &Backing| {
            let covered = b.path == self.mountpoint;
            if covered { PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), b.root.as_raw_fd())) } else { b.path.clone() }
        };
        volumes.values().map(|v| (v.name.clone(), v.id, reached(&v.backing()))).collect()
    }

    fn volume(&self, name: &OsStr) -> Result<Arc<Volume>, MountError> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(name).cloned().ok_or_else(|| MountError::NoVolume(name.to_owned()))
    }

    /// The number of a volume, for [`LockService::quiesce`].
    ///
    /// # Errors
    /// No such volume.
    pub fn volume_id(&self, name: &OsStr) -> Result<u64, MountError> {
        self.volume(name).map(|v| v.id)
    }

    /// A directory to be served as the volume `name`; claimed, unless this mount has claimed it already.
    fn backing(&self, name: &OsStr, path: &Path) -> Result<Arc<Backing>, MountError> {
        let unusable = |source: std::io::Error| MountError::Backing { path: path.to_owned(), source };
        refuse_nested(path, &self.mountpoint)?;
        let root = claim::open(path).map_err(|e| unusable(e.into()))?;
        let inode = claim::inode(&root).map_err(|e| unusable(e.into()))?;
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let served: Vec<(PathBuf, Arc<Claim>)> = volumes
            .values()
            // In its own place it may be served once more, or what lies in it or around it.
            .filter(|v| v.name != name)
            .filter_map(|v| Some((v.backing().path.clone(), v.backing().claim.clone()?)))
            .collect();
        drop(volumes);
        // One claim at a time: two of one directory would be in each other's way.
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let own = claims.get(&inode).and_then(Weak::upgrade);
        let claim = match own {
            Some(own) => {
                claim::refuse_served(path, &own, &self.server, &served).map_err(|e| refused(path, e))?;
                own
            }
            None => claimed(path, root, &self.server, &served)?,
        };
        claims.retain(|_, c| c.strong_count() > 0);
        claims.insert(inode, Arc::downgrade(&claim));
        drop(claims);
        Backing::claimed(path, claim).map_err(|e| unusable_backing(path, e))
    }

    /// Whoever comes next may serve what this did: it was unmounted, and the writes of those who have files open are held.
    pub(crate) fn give_up_claims(&self) {
        let claims: Vec<Arc<Claim>> = self.claims.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        claims.iter().for_each(|c| c.give_up());
    }

    /// Adds a volume: it shows under its name at once.
    ///
    /// # Errors
    /// The name is taken or no file name; the backing is no directory.
    pub fn add_volume(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.as_bytes().contains(&b'/');
        if self.core.single {
            return Err(MountError::SingleDirectory);
        }
        if !plain {
            return Err(MountError::VolumeName(name.to_owned()));
        }
        let taken = || MountError::VolumeExists(name.to_owned());
        if self.volume(name).is_ok() {
            return Err(taken());
        }
        let backing = self.backing(name, backing)?;
        let id = self.next_volume.fetch_add(1, Ordering::Relaxed);
        // The root's node is apart from all inode numbers.
        let volume = Volume::new(name.to_owned(), id, 1 << 61 | id << 1 | 1, backing);
        let mut volumes = self.core.volumes.write().unwrap_or_else(PoisonError::into_inner);
        if volumes.contains_key(name) {
            return Err(taken());
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
        self.forget_names_below(&volume.backing());
        self.forget_name(INodeNo(1), name);
        Ok(())
    }

    /// Exchanges what backs a volume: from the next look-up on, everybody sees `backing`. What is open of the old one stays open; its names are stale.
    ///
    /// # Errors
    /// No such volume; the backing is no directory.
    pub fn rebind(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let volume = self.volume(name)?;
        let backing = self.backing(name, backing)?;
        let mut stale = names(&backing);
        let old = volume.exchange(backing);
        stale.extend(names(&old));
        self.core.locks.forget_volume(volume.id);
        for n in stale {
            self.forget_name(INodeNo(volume.root_node), &n);
        }
        self.forget_names_below(&old);
        if let Err(e) = self.notifier.inval_inode(INodeNo(volume.root_node), 0, 0) {
            tracing::warn!("the kernel keeps attributes of {}: {e}", name.display());
        }
        Ok(())
    }

    /// Also what is in use, in whatever directory: the kernel then lets go of it with its last use, and keeps nothing of the backing open.
    fn forget_names_below(&self, backing: &Arc<Backing>) {
        for (parent, name) in self.core.table.names_of(backing) {
            self.forget_name(INodeNo(parent), &name);
        }
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
        mountinfo::topmost(&self.mountpoint).map_or(true, |m| m.is_some())
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

fn unusable_backing(path: &Path, why: Unusable) -> MountError {
    match why {
        Unusable::Full => MountError::Full,
        Unusable::Io(source) => MountError::Backing { path: path.to_owned(), source },
    }
}

fn refuse_nested(backing: &Path, mountpoint: &Path) -> Result<(), MountError> {
    if backing.starts_with(mountpoint) || mountpoint.starts_with(backing) {
        return Err(MountError::Nested { backing: backing.to_owned(), mountpoint: mountpoint.to_owned() });
    }
    Ok(())
}

fn refused(path: &Path, why: Refused) -> MountError {
    match why {
        Refused::InUse(in_use) => MountError::BackingInUse(in_use),
        Refused::Busy(message) => MountError::Busy(message),
        Refused::Io(source) => MountError::Backing { path: path.to_owned(), source },
    }
}

fn claimed(path: &Path, root: OwnedFd, server: &Server, served: &[(PathBuf, Arc<Claim>)]) -> Result<Arc<Claim>, MountError> {
    Claim::new(path, root, server, served).map_err(|e| refused(path, e))
}

/// A mount hides what its mountpoint has in it.
fn refuse_full(mountpoint: &Path) -> Result<(), MountError> {
    let mut entries = std::fs::read_dir(mountpoint).map_err(|source| MountError::Mountpoint { path: mountpoint.to_owned(), source })?;
    if entries.next().is_some() { Err(MountError::NotEmpty(mountpoint.to_owned())) } else { Ok(()) }
}

/// Checks what a mount needs, and takes away what a daemon that died left on the mountpoint; the mountpoint without links.
fn prepare(mountpoint: &Path) -> Result<PathBuf, MountError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MountError::NotRoot);
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::NoFuse)?;
    let unusable = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    // A dead mount cannot even be looked at, so its absolute name is all there is to go by.
    let absolute = std::path::absolute(mountpoint).map_err(unusable)?;
    // Over itself it may have been mounted again and again.
    while is_dead(&absolute).map_err(unusable)? {
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
    if mounted_from(&real).is_some_and(|s| s.starts_with(SOURCE)) {
        return Err(MountError::InUse(real));
    }
    Ok(real)
}

/// Whether what is mounted there has no daemon any more. Attributes may still be cached; how full it is must be asked of the daemon. One that is stopped
/// does not answer at all, and whoever asks waits with it.
fn is_dead(at: &Path) -> std::io::Result<bool> {
    use rustix::io::Errno;
    let (tell, told) = std::sync::mpsc::channel();
    let asked = at.to_owned();
    std::thread::Builder::new().name("is-dead".into()).spawn(move || {
        let _ = tell.send(matches!(rustix::fs::statfs(&asked), Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED)));
    })?;
    told.recv_timeout(ANSWER).map_err(|_| {
        let m = format!("what is mounted there has not answered for {ANSWER:?}; is its daemon stopped? Let it go on, or end it");
        std::io::Error::new(std::io::ErrorKind::TimedOut, m)
    })
}

/// The source of what is mounted on exactly this place.
fn mounted_from(at: &Path) -> Option<String> {
    Some(mountinfo::topmost(at).ok()??.source.to_string_lossy().into_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_state::Code;

    /// "4096 directories are served already" was taken for a name that is taken.
    #[test]
    fn each_failure_has_its_code() {
        let io = || std::io::Error::from_raw_os_error(nix::libc::EIO);
        let at = || PathBuf::from("/there is no volume/already");
        let all = [
            (unusable_backing(&at(), Unusable::Full), Code::DatabasesFull),
            (unusable_backing(&at(), Unusable::Io(io())), Code::BadVolume),
            (MountError::NoVolume("already".into()), Code::VolumeNotFound),
            (MountError::VolumeExists("v".into()), Code::VolumeExists),
            (MountError::VolumeName("..".into()), Code::BadVolume),
            (MountError::SingleDirectory, Code::BadVolume),
            (MountError::Nested { backing: at(), mountpoint: at() }, Code::BadVolume),
            (MountError::Busy("already".into()), Code::DatabasesBusy),
            (MountError::Kernel { path: at(), source: io() }, Code::DatabasesFailed),
        ];
        for (e, code) in all {
            assert_eq!(e.code(), code, "{e}");
        }
    }
}
