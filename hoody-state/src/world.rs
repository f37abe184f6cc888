//! Everything an operation may touch: the backends, the catalog, and the state of what runs.

use crate::catalog::{Catalog, Durability, Tx, containers, images, projects, snapshots};
use crate::clock::Clock;
use crate::error::Result;
use crate::freeze::Freezer;
use crate::id::ContainerId;
use crate::model::{Container, Server, Status};
use crate::op::{Engine, Engined, Key};
use crate::rootfs::RootFs;
use crate::runtime::Runtime;
use crate::services::api_sockets::ApiSockets;
use crate::services::automatic::Automatic;
use crate::services::databases::Databases;
use crate::services::exits::Exits;
use crate::services::freezing::Freezing;
use crate::services::limits::Limits;
use crate::services::peers::Peers;
use crate::services::policies::Policies;
use crate::services::pool_watch::PoolWatch;
use crate::services::ramdisks::Ramdisks;
use crate::services::shares::Shares;
use crate::services::sizes::Sizes;
use crate::services::starter::Starter;
use crate::services::usage::Meters;
use crate::services::view::View;
use crate::services::wake::Wake;
use crate::settings::Settings;
use crate::snapshot::{SnapshotStore, Volume};
use jiff::Timestamp;
use rusqlite::Connection;
use std::sync::{Arc, Weak};

/// The parts of one host, shared by everything that works on it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World(Arc<Parts>);

/// The same for those that must not keep it alive: threads and listeners.
#[derive(Clone)]
pub(crate) struct WeakWorld(Weak<Parts>);

impl std::ops::Deref for World {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl World {
    pub(crate) fn new(parts: Parts) -> Self {
        World(Arc::new(parts))
    }

    pub(crate) fn downgrade(&self) -> WeakWorld {
        WeakWorld(Arc::downgrade(&self.0))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.catalog.read(f)
    }

    pub(crate) fn write<T>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.catalog.write(durability, self.now(), f)
    }

    /// Whether the catalog has what a volume belongs to.
    pub(crate) fn lists(&self, v: &Volume) -> Result<bool> {
        self.read(|c| {
            Ok(match v {
                Volume::Live(id) | Volume::Next(id) | Volume::NextDatabases(id) => containers::find(c, id)?.is_some(),
                Volume::Snapshot(id, name) | Volume::SnapshotDatabases(id, name) => snapshots::by_name(c, id, name.as_str())?.is_some(),
                Volume::Image(name) => images::by_name(c, name)?.is_some(),
                Volume::Databases(p) => projects::exists(c, p)?,
                Volume::Staging(_) => false,
            })
        })
    }

    /// After the databases' daemon was started again: everything is served and mounted as it was, in containers that run.
    pub(crate) fn remount_databases(&self) {
        match self.read(|c| containers::all(c, None)) {
            Ok(rows) => self.starter.remount_databases(&rows),
            Err(e) => tracing::error!(error = %e, "cannot read which containers have databases"),
        }
    }

    /// Closes the socket of a container that does not run any more. To be called whenever that may be so; nothing happens while an operation changes the
    /// container, at whose end it is called again.
    pub(crate) fn close_api_socket_if_stopped(&self, id: &ContainerId) {
        let Some(number) = self.api_sockets.number(id) else { return };
        if self.engine.locks.holder(&Key::Container(id.clone())).is_some() {
            return;
        }
        match self.read(|c| containers::find(c, id)) {
            Ok(Some(r)) if matches!(r.status, Status::Running | Status::Paused) => {}
            Ok(_) => self.api_sockets.close(id, number),
            Err(e) => tracing::error!(container = %id, error = %e, "cannot read whether a container still runs"),
        }
    }

    /// A container as the wire shows it. Error: `container_not_found`.
    pub(crate) fn container(&self, id: &ContainerId) -> Result<Container> {
        self.read(|c| self.view.container(c, &containers::get(c, id)?))
    }
}

impl Engined for World {
    type Weak = WeakWorld;

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn downgrade(&self) -> WeakWorld {
        World::downgrade(self)
    }

    fn upgrade(weak: &WeakWorld) -> Option<World> {
        weak.upgrade()
    }
}

impl WeakWorld {
    pub(crate) fn upgrade(&self) -> Option<World> {
        self.0.upgrade().map(World)
    }
}

/// What a [`World`] is made of.
pub(crate) struct Parts {
    pub catalog: Arc<Catalog>,
    pub limits: Limits,
    pub store: Arc<dyn SnapshotStore>,
    /// What containers boot from.
    pub roots: Arc<dyn RootFs>,
    pub freezer: Arc<dyn Freezer>,
    pub runtime: Arc<dyn Runtime>,
    pub databases: Arc<Databases>,
    pub ramdisks: Arc<Ramdisks>,
    pub shares: Arc<Shares>,
    /// The sockets of containers.
    pub api_sockets: Arc<ApiSockets>,
    /// Starts containers.
    pub starter: Starter,
    /// Freezes containers.
    pub freezing: Freezing,
    /// Other servers.
    pub peers: Peers,
    pub clock: Arc<dyn Clock>,
    pub engine: Engine,
    pub server: Server,
    pub settings: Settings,
    /// Marks this uptime of the host: what ran under another is gone.
    pub boot: String,
    pub id_base: u32,
    pub exits: Exits,
    /// Measures what containers use.
    pub meters: Meters,
    /// Measures what deletions would free, in the background.
    pub sizes: Arc<Sizes>,
    /// Shows containers as the wire has them.
    pub view: View,
    pub upkeep: Wake,
    /// How often automatic snapshots are taken.
    pub automatic: Automatic,
    /// What the runner of schedules works by.
    pub policies: Arc<Policies>,
    /// Looks after the pool's file system.
    pub pool_watch: Arc<PoolWatch>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.sizes.close();
        // Its thread sleeps for as long as nothing is due.
        self.upkeep.close();
        self.policies.close();
    }
}
