//! Everything an operation may touch: the backends, the catalog, and the state of what runs.

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::freeze::Freezer;
use crate::id::ContainerId;
use crate::model::Server;
use crate::op::step::StepHook;
use crate::op::{Locks, Registry};
use crate::runtime::Runtime;
use crate::services::databases::Databases;
use crate::services::exits::Exits;
use crate::services::freezing::Freezing;
use crate::services::limits::Limits;
use crate::services::pool_watch::PoolWatch;
use crate::services::ramdisks::Ramdisks;
use crate::services::shares::Shares;
use crate::services::starter::Starter;
use crate::services::wake::Wake;
use crate::settings::Settings;
use crate::snapshot::SnapshotStore;
use crate::transfer::Transport;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

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
    pub freezer: Arc<dyn Freezer>,
    pub runtime: Arc<dyn Runtime>,
    pub databases: Arc<Databases>,
    pub ramdisks: Arc<Ramdisks>,
    pub shares: Arc<Shares>,
    /// Starts containers.
    pub starter: Starter,
    /// Freezes containers.
    pub freezing: Freezing,
    /// How other servers are reached; nothing: they are not.
    pub transport: Option<Arc<dyn Transport>>,
    pub clock: Arc<dyn Clock>,
    pub hook: Box<dyn StepHook>,
    pub locks: Locks,
    pub registry: Registry,
    pub server: Server,
    pub settings: Settings,
    /// Marks this uptime of the host: what ran under another is gone.
    pub boot: String,
    pub id_base: u32,
    pub exits: Exits,
    /// What containers' volumes held a moment ago.
    pub usage: Mutex<HashMap<ContainerId, (std::time::Instant, crate::model::Usage)>>,
    /// What containers had used of the processors at the last look, in nanoseconds.
    pub cpu: Mutex<HashMap<ContainerId, (std::time::Instant, u64)>>,
    pub upkeep: Wake,
    /// Looks after the pool's file system.
    pub pool_watch: Arc<PoolWatch>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        // Its thread sleeps for as long as nothing is due.
        self.upkeep.close();
    }
}
