//! Putting a host together, from this machine's backends or from others.

use super::assemble::{Assembly, open};
use super::backends::Machine;
use super::choice::{Backends, Choice};
use crate::catalog::Catalog;
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::freeze::Freezer;
use crate::host::Host;
use crate::id::ServerId;
use crate::locked_db::LockedDb;
use crate::model::Server;
use crate::op::step::{NoHook, StepHook};
use crate::ramdisk::RamDisks;
use crate::rootfs::RootFs;
use crate::rootfs::subvolume::SubvolumeRootFs;
use crate::runtime::Runtime;
use crate::settings::Settings;
use crate::share::ShareMount;
use crate::share::memory::MemoryShareMount;
use crate::snapshot::SnapshotStore;
use crate::transfer::Transport;
use std::path::Path;
use std::sync::Arc;

/// Puts a host together from backends, each of which may be your own.
///
/// [`Host::builder`] begins with this machine: each backend that is not given is the one that [`Host::open`] takes. [`HostBuilder::new`] begins with backends
/// of yours alone. Nothing is started before [`HostBuilder::open`]: of a backend that is given the machine's own is never made.
pub struct HostBuilder {
    machine: Option<Machine>,
    catalog: Catalog,
    backends: Backends,
    roots: Option<Arc<dyn RootFs>>,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    hook: Box<dyn StepHook>,
    server: Server,
    settings: Settings,
    boot: String,
    id_base: u32,
}

impl HostBuilder {
    /// A host over these backends, with a catalog in `catalog`, a directory that exists (`None`: in memory, gone with the host).
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn new(catalog: Option<&Path>, store: Arc<dyn SnapshotStore>, freezer: Arc<dyn Freezer>, runtime: Arc<dyn Runtime>) -> Result<Self> {
        let catalog = match catalog {
            Some(dir) => Catalog::open(dir)?,
            None => Catalog::in_memory()?,
        };
        let backends = Backends {
            store: Some(store),
            freezer: Some(freezer),
            runtime: Some(runtime),
            shares: Some(Arc::new(MemoryShareMount::new())),
            databases: Choice::Made(None),
            ramdisks: Choice::Made(None),
        };
        let server = Server { id: ServerId::generate(), name: "local".into() };
        Self::over(None, catalog, backends, server)
    }

    /// A host on this machine.
    pub(super) fn on(machine: Machine, catalog: Catalog, server: Server) -> Result<Self> {
        let backends = Backends { store: None, freezer: None, runtime: None, shares: None, databases: Choice::Default, ramdisks: Choice::Default };
        Self::over(Some(machine), catalog, backends, server)
    }

    fn over(machine: Option<Machine>, catalog: Catalog, backends: Backends, server: Server) -> Result<Self> {
        Ok(HostBuilder {
            machine,
            catalog,
            backends,
            roots: None,
            transport: None,
            clock: Arc::new(SystemClock),
            hook: Box::new(NoHook),
            server,
            settings: Settings::default(),
            boot: crate::sys::process::boot_id()?,
            id_base: 0,
        })
    }

    /// Where volumes and snapshots are.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn SnapshotStore>) -> Self {
        self.backends.store = Some(store);
        self
    }

    /// What containers boot from. Default: the volumes of the store themselves.
    #[must_use]
    pub fn roots(mut self, roots: Arc<dyn RootFs>) -> Self {
        self.roots = Some(roots);
        self
    }

    /// What stops and continues containers in place. The machine's own runtime uses it too.
    #[must_use]
    pub fn freezer(mut self, freezer: Arc<dyn Freezer>) -> Self {
        self.backends.freezer = Some(freezer);
        self
    }

    /// What runs containers.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.backends.runtime = Some(runtime);
        self
    }

    /// Where `/hoody/databases` comes from.
    #[must_use]
    pub fn databases(mut self, databases: Arc<dyn LockedDb>) -> Self {
        self.backends.databases = Choice::Made(Some(databases));
        self
    }

    /// Containers have no `/hoody/databases`.
    #[must_use]
    pub fn without_databases(mut self) -> Self {
        self.backends.databases = Choice::Made(None);
        self
    }

    /// Where `/ramdisk` comes from.
    #[must_use]
    pub fn ramdisks(mut self, ramdisks: Arc<dyn RamDisks>) -> Self {
        self.backends.ramdisks = Choice::Made(Some(ramdisks));
        self
    }

    /// Containers have no `/ramdisk`.
    #[must_use]
    pub fn without_ramdisks(mut self) -> Self {
        self.backends.ramdisks = Choice::Made(None);
        self
    }

    /// How shares are mounted. Without a machine the default is: not at all, they are only remembered.
    #[must_use]
    pub fn shares(mut self, shares: Arc<dyn ShareMount>) -> Self {
        self.backends.shares = Some(shares);
        self
    }

    /// How other servers are reached; default: they are not.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The first host id of containers; servers that copy from each other must agree on it. On a machine the default is the pool's, and it should stay that.
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

    /// Opens the host: finishes or undoes what a crash left, adopts what runs, and starts the background work.
    ///
    /// # Errors
    /// Those of making the machine's backends; when catalog and world cannot be compared at all. Single containers that cannot be mended are logged.
    pub fn open(self) -> Result<Host> {
        let HostBuilder { machine, catalog, backends, roots, transport, clock, hook, server, settings, boot, id_base } = self;
        let made = match &machine {
            Some(machine) => machine.complete(backends)?,
            None => super::backends::given(backends)?,
        };
        open(Assembly {
            catalog,
            roots: roots.unwrap_or_else(|| Arc::new(SubvolumeRootFs::new(Arc::clone(&made.store)))),
            store: made.store,
            freezer: made.freezer,
            runtime: made.runtime,
            databases: made.databases,
            ramdisks: made.ramdisks,
            shares: made.shares,
            transport,
            clock,
            hook,
            server,
            settings,
            boot,
            id_base,
            api_sockets: machine.as_ref().filter(|m| m.config.api_sockets && m.writable).map(|m| m.config.api_socket_dir()),
            pool: machine.map(|m| m.pool),
        })
    }
}
