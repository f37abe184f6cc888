//! The façade: everything an embedder or a server asks for, over whatever backends it was given.
//!
//! A [`Host`] is cheap to clone and may be used from any thread. Its calls block (they are system calls); an asynchronous caller moves
//! them off its own threads. [`Host::open`] gives the real thing on this machine, [`HostBuilder`] takes backends of your own.

mod build;
mod check;
mod disk;
mod peer_rights;
mod peers;
mod pool_watch;
mod projects;
mod queries;
mod reconcile;
mod share_mounts;
mod shares;
mod upkeep;

pub use crate::catalog::idempotency::IdempotencyKey;
pub use crate::event::Subscription;
pub use build::{HostBuilder, HostConfig, TokenStore};
pub use peers::OfferedStream;
pub(crate) use projects::{color, made_up_color};

use crate::catalog::{Catalog, Durability, Tx};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::freeze::Freezer;
use crate::id::{ContainerId, RunId, UserId};
use crate::locked_db::LockedDb;
use crate::model::Server;
use crate::op::step::StepHook;
use crate::op::{Locks, Registry};
use crate::ramdisk::RamDisks;
use crate::runtime::{Exit, Network, Runtime};
use crate::share::ShareMount;
use crate::snapshot::SnapshotStore;
use crate::transfer::Transport;
use crate::units::Bytes;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Who asks, and how.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Goes into the status log: `user`.
    pub by: String,
    /// How long to hold the answer of work that may outlast it; the work continues in the background.
    pub wait: Duration,
    /// The same key and request gives the first answer again.
    pub idempotency: Option<IdempotencyKey>,
}

impl Default for Caller {
    fn default() -> Self {
        Caller { by: "user".into(), wait: Duration::from_secs(60), idempotency: None }
    }
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the undo snapshot of a restore is kept. Default: 24 h.
    pub undo_expiry: Duration,
    /// Snapshots a container may have.
    pub max_snapshots: Option<u64>,
    /// Containers the server may have.
    pub max_containers: Option<u64>,
    /// The disk limit of a container that says nothing of it.
    pub default_disk: Option<Bytes>,
    /// Volumes that may be nested in one that is copied.
    pub max_nested_volumes: u32,
    /// How long a stop waits before it kills. Default: 10 s.
    pub stop_timeout: Duration,
    /// How long a freeze may take before it is undone. Default: 5 s.
    pub freeze_timeout: Duration,
    /// How long a transfer that broke off waits before it is tried again; doubled each time. Default: 0.5 s.
    pub transfer_pause: Duration,
    /// Whether containers may use the host's network. Default: those that are made here.
    pub host_network: HostNetwork,
}

/// Which containers may use the host's network, where whoever makes them has that right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostNetwork {
    /// None; those that there are do not start.
    Never,
    /// Those that are made on this server.
    #[default]
    Local,
    /// Also those that other servers copy or move here.
    Any,
}

impl HostNetwork {
    /// # Errors
    /// `host_network_denied`, when a container with this network may not be here.
    pub(crate) fn check(self, network: Network, from_elsewhere: bool) -> Result<()> {
        let allowed = match self {
            HostNetwork::Never => false,
            HostNetwork::Local => !from_elsewhere,
            HostNetwork::Any => true,
        };
        if network != Network::Host || allowed {
            return Ok(());
        }
        let why = match self {
            HostNetwork::Never => "containers on this server may not use the host's network (serve --host-network never): say network: none",
            _ => "this server takes no containers from other servers that use the host's network: it takes serve --host-network any there",
        };
        Err(Error::new(Kind::Denied, "host_network_denied", why))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            undo_expiry: Duration::from_secs(24 * 3600),
            max_snapshots: None,
            max_containers: None,
            default_disk: None,
            max_nested_volumes: 256,
            stop_timeout: Duration::from_secs(10),
            freeze_timeout: Duration::from_secs(5),
            transfer_pause: Duration::from_millis(500),
            host_network: HostNetwork::default(),
        }
    }
}

/// One server's pool and everything in it. Dropping it leaves containers running.
#[derive(Clone)]
pub struct Host(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub catalog: Catalog,
    pub store: Arc<dyn SnapshotStore>,
    pub freezer: Arc<dyn Freezer>,
    pub runtime: Arc<dyn Runtime>,
    /// Where `/hoody/databases` comes from; nothing: containers have none.
    pub databases: Option<Arc<dyn LockedDb>>,
    /// Where `/ramdisk` comes from; nothing: containers have none.
    pub ramdisks: Option<Arc<dyn RamDisks>>,
    pub shares: Arc<dyn ShareMount>,
    /// How other servers are reached; nothing: they are not.
    pub transport: Option<Arc<dyn Transport>>,
    /// Counts changes of shares, so that a start knows whether it has to look again.
    pub share_changes: AtomicU64,
    /// One look at what a receiver sees, and the change that follows, at a time.
    pub sharing: Mutex<HashMap<ContainerId, Arc<Mutex<()>>>>,
    /// Device and inode of the directories from which private databases are served, as far as this process has served them.
    pub served: Mutex<HashMap<ContainerId, (u64, u64)>>,
    pub clock: Arc<dyn Clock>,
    pub hook: Box<dyn StepHook>,
    pub locks: Locks,
    pub registry: Registry,
    pub server: Server,
    pub settings: Settings,
    /// Marks this uptime of the host: what ran under another is gone.
    pub boot: String,
    pub id_base: u32,
    /// How runs ended that no transaction has taken note of yet.
    pub exits: Mutex<HashMap<ContainerId, (RunId, Exit)>>,
    /// What containers' volumes held a moment ago.
    pub usage: Mutex<HashMap<ContainerId, (std::time::Instant, crate::model::Usage)>>,
    /// What containers had used of the processors at the last look, in nanoseconds.
    pub cpu: Mutex<HashMap<ContainerId, (std::time::Instant, u64)>>,
    pub upkeep: upkeep::Wake,
    /// Its lock on the data directory is held, and its reserve looked after.
    pub pool: Option<crate::pool::Pool>,
    /// What was last seen of the pool.
    pub pool_state: pool_watch::Watch,
}

fn stored<T: serde::de::DeserializeOwned>(answer: serde_json::Value) -> Result<T> {
    serde_json::from_value(answer).map_err(|e| Error::new(Kind::Corrupt, "catalog_corrupt", format!("a stored answer cannot be read: {e}")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Its thread sleeps for as long as nothing is due.
        self.upkeep.close();
    }
}

impl Host {
    pub(crate) fn write<T>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.0.catalog.write(durability, self.0.clock.now(), f)
    }

    /// Whether a change of the catalog could be made: nothing is changed.
    pub(crate) fn would<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.0.catalog.would(self.0.clock.now(), f)
    }

    /// The first answer to this request, if its key has been used.
    pub(crate) fn replay<T: serde::de::DeserializeOwned>(&self, caller: &Caller) -> Result<Option<T>> {
        let Some(key) = &caller.idempotency else { return Ok(None) };
        let answer = self.0.catalog.read(|c| crate::catalog::idempotency::look_up(c, key, self.0.clock.now()))?;
        answer.map(stored).transpose()
    }

    /// A change of the catalog alone, with its key.
    pub(crate) fn change<T: serde::Serialize + serde::de::DeserializeOwned>(&self, caller: &Caller, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        self.write(Durability::Disk, |tx| {
            // Its twin may have come in between.
            if let Some(answer) = tx.take_key(caller.idempotency.as_ref(), None)? {
                return stored(answer);
            }
            let t = f(tx)?;
            tx.answer_key(caller.idempotency.as_ref(), &t)?;
            Ok(t)
        })
    }

    /// Refuses what would fill the pool, before anything is changed.
    pub(crate) fn guard_space(&self) -> Result<()> {
        let space = self.0.store.space()?;
        if space.read_only {
            return Err(self.read_only_error());
        }
        crate::pool::check_space(&space, Bytes(0))
    }

    /// This server.
    #[must_use]
    pub fn server(&self) -> Server {
        self.0.server.clone()
    }

    /// Whose everything is: a server has one user.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.0.catalog.user().clone()
    }

    /// Whether the catalog and the pool answer.
    ///
    /// # Errors
    /// What is wrong with them; `pool_read_only`.
    pub fn ready(&self) -> Result<()> {
        self.0.catalog.meta("user_id")?;
        let space = self.0.store.space()?;
        if space.read_only { Err(self.read_only_error()) } else { Ok(()) }
    }

    /// Told of every event after its commit, in order, on the changing thread: it must return at once. Dropping the subscription ends it.
    #[must_use]
    pub fn subscribe(&self, listener: Box<dyn Fn(&crate::model::Event) + Send + Sync>) -> Subscription {
        self.0.catalog.bus.subscribe(listener)
    }

    /// Ends the background work, waiting a little for operations under way. Containers go on.
    pub fn close(&self) {
        self.0.upkeep.close();
        if !self.0.locks.wait_idle(Duration::from_secs(10)) {
            tracing::warn!("operations are still under way; the next start finishes or undoes them");
        }
        // Last: an operation may need them. A daemon that ends from now on was told to.
        if let Some(d) = &self.0.databases {
            d.close();
        }
    }
}
