use super::{Host, Settings, upkeep};
use crate::catalog::records::Records;
use crate::catalog::{Catalog, UNMOUNTED};
use crate::cgroup::CgroupTree;
use crate::clock::{Clock, SystemClock};
use crate::error::{Code, Error, IoContext, Result};
use crate::freeze::{self, Freezer};
use crate::id::{ImageId, OperationId, ProjectId, ServerId};
use crate::locked_db::LockedDb;
use crate::locked_db::daemon::{DaemonConfig, FuseDaemon};
use crate::locked_db::fuse::FuseLockedDb;
use crate::model::{Image, Rights, Server, Token};
use crate::op::step::{NoHook, StepHook};
use crate::op::{Engine, Key, take_up_all};
use crate::ops;
use crate::pool::{Pool, PoolConfig, Reserve, layout};
use crate::ramdisk::tmpfs::TmpfsRamDisks;
use crate::ramdisk::{RamDisks, memory::MemoryRamDisks};
use crate::runtime::Runtime;
use crate::runtime::oci::{CONTAINER_TASKS, OciConfig, OciRuntime};
use crate::services::databases::Databases;
use crate::services::dirs::ContainerDirs;
use crate::services::exits::Exits;
use crate::services::freezing::Freezing;
use crate::services::limits::Limits;
use crate::services::peers::Peers;
use crate::services::pool_watch::{self, PoolWatch};
use crate::services::ramdisks::Ramdisks;
use crate::services::shares::Shares;
use crate::services::starter::Starter;
use crate::services::usage::Meters;
use crate::services::view::View;
use crate::services::wake::Wake;
use crate::share::ShareMount;
use crate::share::bind::BindShareMount;
use crate::share::memory::MemoryShareMount;
use crate::snapshot::{SnapshotStore, Volume};
use crate::transfer::Transport;
use crate::units::Bytes;
use crate::world::{Parts, World};
use std::path::PathBuf;
use std::sync::Arc;

/// How a host on this machine is opened.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Keeps the pool's image and lock.
    pub data: PathBuf,
    /// Mounts, sockets and runtime state: gone at reboot, rebuilt at start.
    pub run: PathBuf,
    /// A device for the pool instead of an image.
    pub device: Option<PathBuf>,
    /// The size the image is made with or grown to.
    pub pool_size: Option<Bytes>,
    /// What is reserved beneath the image.
    pub pool_reserve: Reserve,
    /// The server's name; kept in the pool. Default: the machine's host name.
    pub server_name: Option<String>,
    /// Name or path of the OCI runtime; default: the first of runc, crun and youki that is installed.
    pub runtime: Option<PathBuf>,
    /// The first host id of containers; kept in the pool. Default 100000.
    pub id_base: Option<u32>,
    /// The cgroup above the containers'. Default `/hoody/<first digits of the pool's id>`.
    pub cgroup_parent: Option<String>,
    /// How many processes and threads a container may have. Default 4096.
    pub container_tasks: Option<u64>,
    /// How many processes and threads all containers of the pool may have together. Default: three quarters of what the host can have.
    pub pool_tasks: Option<u64>,
    /// The program `hoody-state-fuse`; without it containers have no `/hoody/databases`.
    pub databases: Option<PathBuf>,
    /// Idle processors may sleep while databases are busy too: a transaction takes up to four times as long then.
    pub save_power: bool,
    /// How other servers are reached; nothing: they are not.
    pub transport: Option<Arc<dyn Transport>>,
    /// What an operator sets.
    pub settings: Settings,
}

impl HostConfig {
    /// The defaults, for a pool in `data` with its mounts in `run`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        HostConfig { data: data.into(), run: run.into(), ..Self::default() }
    }

    /// The run directory under which this pool is mounted now, if it is.
    ///
    /// # Errors
    /// Of reading `/proc` and `/sys`.
    pub fn mounted_run(&self) -> Result<Option<PathBuf>> {
        Pool::mounted_run(&self.pool())
    }

    fn pool(&self) -> PoolConfig {
        PoolConfig {
            data: self.data.clone(),
            run: self.run.clone(),
            device: self.device.clone(),
            size: self.pool_size,
            id_base: self.id_base,
            server_name: self.server_name.clone(),
            reserve: Some(self.pool_reserve),
        }
    }

    /// Of a pool that is only looked at or taken down.
    fn pool_as_it_is(&self) -> PoolConfig {
        PoolConfig { size: None, reserve: None, ..self.pool() }
    }

    fn cgroups(&self, pool: &crate::pool::PoolRecord) -> Result<CgroupTree> {
        let id = pool.pool_id.simple().to_string();
        let parent = self.cgroup_parent.clone().unwrap_or_else(|| format!("/hoody/{}", &id[..12]));
        Ok(CgroupTree::new(&parent)?.with_task_limit(self.pool_tasks))
    }

    fn oci(&self, root: PathBuf, pool: &crate::pool::PoolRecord) -> Result<OciRuntime> {
        let consoles = root.join(layout::CONSOLES);
        let cgroups = self.cgroups(pool)?;
        let freezer = freeze::freezer(&cgroups)?;
        let mut config = OciConfig::new(self.run.join("oci"), cgroups, freezer, move |c| consoles.join(format!("{c}.log")));
        config.runtime.clone_from(&self.runtime);
        config.id_base = pool.id_base;
        config.pids_limit = Some(self.container_tasks.unwrap_or(CONTAINER_TASKS));
        OciRuntime::new(config)
    }

    fn daemon(&self, program: PathBuf) -> DaemonConfig {
        DaemonConfig { program, socket: self.run.join("databases.sock"), mountpoint: self.run.join(DATABASES), save_power: self.save_power, group: None }
    }

    fn server(&self, pool: &crate::pool::PoolRecord) -> Server {
        let machine = || nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).filter(|n| !n.is_empty()).unwrap_or_else(|| "hoody".into());
        Server { id: pool.server_id.clone(), name: pool.server_name.clone().unwrap_or_else(machine) }
    }
}

/// Where the databases are mounted, in the run directory.
pub(super) const DATABASES: &str = "databases";
/// Where the RAM disks are mounted, in the run directory.
pub(super) const RAMDISKS: &str = "ramdisks";

/// Puts a host together from backends, each of which may be your own.
pub struct HostBuilder {
    catalog: Catalog,
    store: Arc<dyn SnapshotStore>,
    freezer: Arc<dyn Freezer>,
    runtime: Arc<dyn Runtime>,
    databases: Option<Arc<dyn LockedDb>>,
    ramdisks: Option<Arc<dyn RamDisks>>,
    shares: Arc<dyn ShareMount>,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    hook: Box<dyn StepHook>,
    server: Server,
    settings: Settings,
    boot: String,
    id_base: u32,
    pool: Option<Pool>,
}

impl HostBuilder {
    /// A host over these backends, with a catalog in `catalog`, a directory that exists (`None`: in memory, gone with the host).
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn new(catalog: Option<&std::path::Path>, store: Arc<dyn SnapshotStore>, freezer: Arc<dyn Freezer>, runtime: Arc<dyn Runtime>) -> Result<Self> {
        let catalog = match catalog {
            Some(dir) => Catalog::open(dir)?,
            None => Catalog::in_memory()?,
        };
        Ok(HostBuilder {
            catalog,
            store,
            freezer,
            runtime,
            databases: None,
            ramdisks: None,
            shares: Arc::new(MemoryShareMount::new()),
            transport: None,
            clock: Arc::new(SystemClock),
            hook: Box::new(NoHook),
            server: Server { id: ServerId::generate(), name: "local".into() },
            settings: Settings::default(),
            boot: crate::sys::process::boot_id()?,
            id_base: 0,
            pool: None,
        })
    }

    /// Where `/hoody/databases` comes from; without it containers have none.
    #[must_use]
    pub fn databases(mut self, databases: Arc<dyn LockedDb>) -> Self {
        self.databases = Some(databases);
        self
    }

    /// Where `/ramdisk` comes from; without it containers have none.
    #[must_use]
    pub fn ramdisks(mut self, ramdisks: Arc<dyn RamDisks>) -> Self {
        self.ramdisks = Some(ramdisks);
        self
    }

    /// How shares are mounted; default: not at all, they are only remembered.
    #[must_use]
    pub fn shares(mut self, shares: Arc<dyn ShareMount>) -> Self {
        self.shares = shares;
        self
    }

    /// How other servers are reached; default: they are not.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The first host id of containers; servers that copy from each other must agree on it.
    #[must_use]
    pub fn id_base(mut self, id_base: u32) -> Self {
        self.id_base = id_base;
        self
    }

    /// Where the time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Told of every step.
    #[must_use]
    pub fn hook(mut self, hook: Box<dyn StepHook>) -> Self {
        self.hook = hook;
        self
    }

    /// What an operator sets.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The server's id and name.
    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.server = server;
        self
    }

    /// The uptime of the machine that this host lives in; what ran in another is gone. For tests of reboots.
    #[must_use]
    pub fn boot_id(mut self, boot: impl Into<String>) -> Self {
        self.boot = boot.into();
        self
    }

    /// Reconciles and starts the upkeep.
    ///
    /// # Errors
    /// When catalog and world cannot be compared at all; single containers that cannot be mended are logged.
    pub fn open(self) -> Result<Host> {
        let HostBuilder { catalog, store, freezer, runtime, databases, ramdisks, shares, transport, clock, hook, server, settings, boot, id_base, pool } = self;
        let catalog = Arc::new(catalog);
        let records = Records { catalog: Arc::clone(&catalog), clock: Arc::clone(&clock) };
        let dirs = ContainerDirs { id_base };
        let pool_watch = Arc::new(PoolWatch::new(pool, Arc::clone(&store), records.clone(), server.id.clone()));
        let wake = Wake::new()?;
        let databases = Arc::new(Databases::new(databases, Arc::clone(&store), records.clone(), dirs));
        let ramdisks = Arc::new(Ramdisks::new(ramdisks, dirs));
        let shares = Arc::new(Shares::new(shares, Arc::clone(&store), Arc::clone(&runtime), Arc::clone(&databases), records.clone(), wake.clone()));
        let meters = Meters::new(Arc::clone(&store), Arc::clone(&runtime), Arc::clone(&ramdisks), records.clone());
        let user = catalog.user().clone();
        let starter = Starter {
            store: Arc::clone(&store),
            runtime: Arc::clone(&runtime),
            databases: Arc::clone(&databases),
            ramdisks: Arc::clone(&ramdisks),
            shares: Arc::clone(&shares),
            dirs,
            host_network: settings.host_network,
        };
        let host = Host(World::new(Parts {
            limits: Limits::new(Arc::clone(&store), records.clone(), &settings),
            freezing: Freezing::new(Arc::clone(&freezer), Arc::clone(&databases), settings.freeze_timeout),
            freezer,
            runtime: Arc::clone(&runtime),
            databases,
            ramdisks,
            shares,
            starter,
            view: View { server: server.clone(), user },
            engine: Engine::new(records.clone(), hook),
            peers: Peers { transport, records: records.clone(), server: server.clone(), id_base },
            clock,
            catalog,
            server,
            settings,
            boot,
            id_base,
            exits: Exits::new(records),
            store,
            meters,
            upkeep: wake,
            pool_watch,
        }));
        let weak = host.0.downgrade();
        host.0.engine.on_recovered(move || {
            if let Some(world) = weak.upgrade()
                && let Err(e) = take_up_all(&world, &ops::all::ALL)
            {
                tracing::error!(error = %e, "cannot read the journal");
            }
        });
        let weak = host.0.downgrade();
        host.0.engine.locks.on_free(move |key| {
            if let (Key::Container(id), Some(inner)) = (key, weak.upgrade()) {
                inner.exits.lock_freed(id);
            }
        });
        let weak = host.0.downgrade();
        runtime.set_exit_listener(Box::new(move |id, run, exit| {
            if let Some(inner) = weak.upgrade() {
                inner.exits.ended(id, run, exit, || inner.engine.locks.holder(&Key::Container(id.clone())).is_some());
            }
        }));
        if host.0.catalog.is_read_only() {
            tracing::error!("{}; what is stored can be read, nothing can be changed", host.0.pool_watch.read_only_error());
        } else {
            host.reconcile()?;
            upkeep::start(&host)?;
        }
        if let Some(databases) = host.0.databases.backend() {
            if databases.is_new_session() {
                host.0.remount_databases();
            }
            let weak = host.0.downgrade();
            databases.set_restart_listener(Box::new(move || {
                if let Some(inner) = weak.upgrade() {
                    inner.remount_databases();
                }
            }));
        }
        host.0.pool_watch.start(host.0.upkeep.clone())?;
        Ok(host)
    }
}

impl Host {
    /// Opens this machine's pool (making, mounting and growing it as needed), finishes or undoes what a crash left, adopts what runs.
    ///
    /// # Errors
    /// Those of [`Pool::open`] and of the catalog.
    pub fn open(config: &HostConfig) -> Result<Host> {
        Self::recover_read_only(config)?;
        let pool = Pool::open(&config.pool())?;
        let record = pool.record().clone();
        let store = Arc::new(pool.store()?);
        let writable = !store.space()?.read_only;
        if writable {
            std::fs::create_dir_all(pool.root().join(layout::CONSOLES)).io(|| "make the directory of consoles")?;
        }
        let runtime = Arc::new(config.oci(pool.root(), &record)?);
        let freezer: Arc<dyn Freezer> = freeze::freezer(runtime.cgroups())?;
        let mut builder = HostBuilder::new(Some(&pool.root().join(layout::CATALOG)), store, freezer, runtime)?;
        builder.shares = Arc::new(BindShareMount);
        builder.ramdisks = Some(Arc::new(TmpfsRamDisks::new(config.run.join(RAMDISKS), record.id_base)?));
        // A daemon that runs goes on; a new one could not serve what cannot be written.
        if let Some(program) = config.databases.clone().filter(|_| writable) {
            builder.databases = Some(FuseDaemon::open(DaemonConfig { group: Some(record.id_base), ..config.daemon(program) })?);
        }
        builder.transport.clone_from(&config.transport);
        builder.settings = config.settings.clone();
        builder.server = config.server(&record);
        builder.id_base = record.id_base;
        if writable && pool.freshly_mounted() {
            // Nothing can have survived, whatever uptime of the machine the catalog speaks of.
            builder.catalog.write(crate::catalog::Durability::Disk, SystemClock.now(), |tx| tx.set_meta("boot", UNMOUNTED))?;
        }
        builder.pool = Some(pool);
        #[cfg(feature = "crash-hooks")]
        if let Some(hook) = crate::op::crash::from_environment() {
            builder.hook = hook;
        }
        builder.open()
    }

    /// Takes down a pool that the kernel has made read-only, if it may be writable once it is mounted anew. Its containers, which cannot write either,
    /// end with it and start again with the pool.
    fn recover_read_only(config: &HostConfig) -> Result<()> {
        let Some(space) = Pool::stuck(&config.pool())? else { return Ok(()) };
        if !pool_watch::can_recover(&space) {
            return Ok(());
        }
        tracing::warn!("the pool is read-only: stopping its containers and mounting it anew");
        Self::unmount(config)
    }

    /// Whether containers can be started: the runtime's word. A server without one still serves everything else.
    ///
    /// # Errors
    /// `runtime_not_found`, `runtime_unusable`.
    pub fn probe_runtime(&self) -> Result<()> {
        self.0.runtime.probe()
    }

    /// A host of memory backends, for tests: one image `debian/13`, no files, no processes.
    ///
    /// # Errors
    /// None in practice.
    pub fn in_memory() -> Result<Host> {
        Self::in_memory_with(|builder| builder)
    }

    /// The same, with what `change` makes of its builder.
    pub(crate) fn in_memory_with(change: impl FnOnce(HostBuilder) -> HostBuilder) -> Result<Host> {
        let store = Arc::new(crate::snapshot::memory::MemoryStore::new());
        let image: crate::name::ImageName = "debian/13".parse()?;
        let staging = Volume::Staging(OperationId::generate());
        store.create(&staging)?;
        store.seal(&staging, &Volume::Image(image.clone()))?;
        let freezer = Arc::new(crate::freeze::memory::MemoryFreezer::new());
        let runtime = Arc::new(crate::runtime::memory::MemoryRuntime::with_freezer(freezer.clone()));
        let host = change(HostBuilder::new(None, store, freezer, runtime)?.ramdisks(Arc::new(MemoryRamDisks::new()))).open()?;
        host.write(crate::catalog::Durability::Process, |tx| {
            tx.insert_image(&Image {
                id: ImageId::generate(),
                alias: image.clone(),
                image_name: image.clone(),
                name: image,
                size: Bytes(0),
                files: Some(0),
                source: "import".into(),
                is_default: true,
                created_at: tx.now,
            })
        })?;
        Ok(host)
    }

    /// Stops this pool's containers and takes down everything that a reboot would: processes, cgroups, mounts, loop device. The next
    /// start treats it as a reboot: containers with `autostart` that were not stopped by hand run again.
    ///
    /// # Errors
    /// `data_in_use` while a server runs on it.
    pub fn unmount(config: &HostConfig) -> Result<()> {
        let end_daemon = || {
            FuseLockedDb::new(&config.run.join("databases.sock"), &config.run.join(DATABASES))
                .take_down()
                .or_else(|e| if config.run.exists() { Err(e) } else { Ok(()) })
        };
        if Pool::peek(&config.pool())?.is_some() {
            let pool = Pool::open(&config.pool_as_it_is())?;
            // First of all: whatever of this is cut short, the next start knows that what is gone was not stopped by hand. Where nothing can be
            // written, it knows by having to mount the pool.
            if !pool.space()?.read_only {
                Catalog::open(&pool.root().join(layout::CATALOG))?
                    .write(crate::catalog::Durability::Disk, SystemClock.now(), |tx| tx.set_meta("boot", UNMOUNTED))?;
            }
            let runtime = config.oci(pool.root(), pool.record())?;
            for c in runtime.list()? {
                runtime.kill(&c)?;
                runtime.cgroups().remove(&c)?;
            }
            // It ends with the last use of its mount: after those who used it.
            end_daemon()?;
            let disks = TmpfsRamDisks::new(config.run.join(RAMDISKS), pool.record().id_base)?;
            for disk in disks.list()? {
                disks.remove(&disk)?;
            }
            std::fs::remove_dir(config.run.join(RAMDISKS)).io(|| "remove the directory of RAM disks")?;
            drop(runtime);
            pool.unmount()?;
        } else {
            end_daemon()?;
            Pool::take_down(&config.pool())?;
        }
        match std::fs::remove_dir_all(config.run.join("oci")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", config.run.join("oci").display()), e)),
            _ => {}
        }
        // Only if nothing of anybody else's is in it.
        let _ = std::fs::remove_dir(&config.run);
        Ok(())
    }
}

/// The tokens of a pool, beside a running server or without one.
pub struct TokenStore {
    catalog: Catalog,
}

impl TokenStore {
    /// Makes a token; the token itself is shown this once.
    ///
    /// # Errors
    /// `invalid_token_name`, `token_name_in_use`, `project_not_found`.
    pub fn create(&self, name: Option<&str>, projects: Option<Vec<ProjectId>>, rights: Rights) -> Result<(Token, String)> {
        self.catalog.create_token(SystemClock.now(), name, projects, rights, None)
    }

    /// Makes a replication token. `peer` is the server it is for: a peer's name or id, or a server's id; without it, the token belongs to the first server that
    /// uses it. Without `projects` the server may copy containers of all projects and into all of them.
    ///
    /// # Errors
    /// `peer_not_found`, and as for [`TokenStore::create`].
    pub fn create_for_peer(&self, name: Option<&str>, projects: Option<Vec<ProjectId>>, peer: Option<&str>) -> Result<(Token, String)> {
        let server = |which: &str| {
            let known = self.catalog.read(|c| crate::catalog::peers::server_called(c, which))?;
            let missing = || {
                let message = format!(
                    "there is no peer {which:?}: give its server's id (`GET /servers` there), or leave --peer out, and the token belongs to the first server that uses it"
                );
                Error::new(Code::PeerNotFound, message)
            };
            known.map_or_else(|| which.parse().map_err(|_| missing()), Ok)
        };
        self.catalog.create_token(SystemClock.now(), name, projects, Rights::Replication, peer.map(server).transpose()?)
    }

    /// All tokens.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn list(&self) -> Result<Vec<Token>> {
        self.catalog.read(crate::catalog::tokens::all)
    }

    /// Revokes a token by id or name.
    ///
    /// # Errors
    /// `token_not_found`.
    pub fn revoke(&self, which: &str) -> Result<()> {
        self.catalog.revoke_token(SystemClock.now(), which)
    }
}

/// A path without links above its last part, which may be a mount that answers nothing.
fn absolute(path: &std::path::Path) -> PathBuf {
    let above = path.parent().and_then(|p| p.canonicalize().ok());
    above.zip(path.file_name()).map_or_else(|| path.to_owned(), |(p, n)| p.join(n))
}

/// Runs `f` with the pool mounted: if it is, it is left as it is; if not, it is mounted for the time being.
fn with_pool<T>(config: &HostConfig, f: impl FnOnce(&std::path::Path, &crate::pool::PoolRecord, bool) -> Result<T>) -> Result<T> {
    let pool_config = config.pool_as_it_is();
    if let Some(record) = Pool::peek(&pool_config)? {
        return f(&pool_config.mount_point(), &record, true);
    }
    if !config.data.exists() {
        return Err(Error::new(Code::PoolNotFound, format!("there is no pool in {}: `serve` makes one", config.data.display())));
    }
    let pool = Pool::open(&pool_config)?;
    let out = f(&pool.root(), pool.record(), false);
    pool.unmount()?;
    out
}

impl Host {
    /// The tokens of a pool, whether a server runs on it or not.
    ///
    /// # Errors
    /// `pool_not_found`, and those of `f`.
    pub fn with_tokens<T>(config: &HostConfig, f: impl FnOnce(&TokenStore) -> Result<T>) -> Result<T> {
        with_pool(config, |root, _, _| f(&TokenStore { catalog: Catalog::open(&root.join(layout::CATALOG))? }))
    }

    /// Compares catalog, pool, mounts and cgroups, whether a server runs on it or not.
    ///
    /// # Errors
    /// `pool_not_found`, and what keeps it from looking.
    pub fn check_pool(config: &HostConfig, repair: bool) -> Result<Vec<crate::model::Finding>> {
        with_pool(config, |root, record, _| {
            let store = crate::snapshot::btrfs::BtrfsStore::open(root)?;
            let consoles = root.join(layout::CONSOLES);
            let cgroups = config.cgroups(record)?;
            let freezer = freeze::freezer(&cgroups)?;
            let mut oci = OciConfig::new(config.run.join("oci"), cgroups, Arc::clone(&freezer), move |c| consoles.join(format!("{c}.log")));
            oci.subreaper = false;
            oci.looks_only = true;
            let runtime = OciRuntime::new(oci)?;
            let catalog = Catalog::open(&root.join(layout::CATALOG))?;
            let daemon = config.daemon(PathBuf::new());
            let databases = daemon.socket.exists().then(|| FuseLockedDb::new(&daemon.socket, &daemon.mountpoint));
            let disks = config.run.join(RAMDISKS);
            let ramdisks = if disks.is_dir() { Some(TmpfsRamDisks::new(&disks, record.id_base)?) } else { None };
            // Asked anew at each look: a container that was made since has a disk too.
            let known = || -> Result<Vec<PathBuf>> {
                let disks_there = ramdisks.iter().map(TmpfsRamDisks::list).collect::<Result<Vec<_>>>()?.concat();
                Ok(disks_there.iter().map(|n| disks.join(n)).chain([daemon.mountpoint.clone()]).map(|p| absolute(&p)).collect())
            };
            let places = super::check::Places {
                databases: databases.as_ref().map(|d| d as &dyn LockedDb),
                ramdisks: ramdisks.as_ref().map(|d| d as &dyn RamDisks),
                shares: Some(&BindShareMount),
            };
            let mut found = super::check::compare(&catalog, &store, &*freezer, &runtime, &places, repair)?;
            // A runtime mounts its own binary for a moment while it starts: what is passing is gone at the second look.
            let mut stray = Pool::look_at_mounts(&config.pool(), &known()?)?;
            if !stray.is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(300));
                let again = Pool::look_at_mounts(&config.pool(), &known()?)?;
                stray.retain(|s| again.contains(s));
            }
            found.extend(stray.into_iter().map(|message| crate::model::Finding { code: "stray_mount".into(), message, repaired: false }));
            Ok(found)
        })
    }
}
