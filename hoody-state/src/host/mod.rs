//! The façade: everything an embedder or a server asks for, over whatever backends it was given.
//!
//! A [`Host`] is cheap to clone and may be used from any thread. Its calls block (they are system calls); an asynchronous caller moves
//! them off its own threads. [`Host::open`] gives the real thing on this machine, [`HostBuilder`](crate::HostBuilder) takes backends of your own.

mod archive;
pub(crate) mod check;
mod containers;
mod diff;
mod files;
mod inside;
mod lists;
mod operations;
mod peers;
mod policies;
mod policy_preview;
mod projects;
mod queries;
mod reconcile;
pub(crate) mod schedules;
#[cfg(test)]
mod share_tests;
mod shares;
mod timeline;
#[cfg(test)]
mod timeline_tests;
mod trash;
pub(crate) mod upkeep;
mod versions;

pub use crate::catalog::idempotency::IdempotencyKey;
pub use crate::event::Subscription;
pub use archive::FileArchive;
pub use files::{OpenFile, PathContent};
pub use peers::OfferedStream;

pub use crate::op::Caller;
pub use crate::ops::exec::Executed;
pub use crate::services::api_sockets::ApiServer;
pub use crate::settings::{HostNetwork, Settings};

use crate::catalog::{Durability, Tx};
use crate::error::Result;
use crate::id::UserId;
use crate::model::Server;
use crate::world::World;
use std::time::Duration;

/// One server's pool and everything in it. Dropping it leaves containers running.
#[derive(Clone)]
pub struct Host(pub(crate) World);

impl Host {
    pub(crate) fn write<T>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.0.catalog.write(durability, self.0.clock.now(), f)
    }

    /// A change of the catalog alone, with its key.
    pub(crate) fn change<T: serde::Serialize + serde::de::DeserializeOwned>(&self, caller: &Caller, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.0.engine.change(caller, f)
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

    /// Whether containers can be started: the runtime's word. A server without one still serves everything else.
    ///
    /// # Errors
    /// `runtime_not_found`, `runtime_unusable`.
    pub fn probe_runtime(&self) -> Result<()> {
        self.0.runtime.probe()
    }

    /// Whether the catalog and the pool answer.
    ///
    /// # Errors
    /// What is wrong with them; `pool_read_only`.
    pub fn ready(&self) -> Result<()> {
        self.0.catalog.meta("user_id")?;
        let space = self.0.store.space()?;
        if space.read_only { Err(self.0.pool_watch.read_only_error()) } else { Ok(()) }
    }

    /// Calls `listener` with every event after its commit, in the order of the commits. It is called on the thread of some change, so it must return at once; it
    /// may use the host, also to change something. Dropping the subscription ends it.
    #[must_use]
    pub fn subscribe(&self, listener: Box<dyn Fn(&crate::model::Event) + Send + Sync>) -> Subscription {
        self.0.catalog.bus.subscribe(listener)
    }

    /// Calls `f` once, when the pool is read-only and could be mounted anew, which takes a new start of the server: [`Host::open`] does it.
    pub fn on_recoverable(&self, f: Box<dyn Fn() + Send + Sync>) {
        self.0.pool_watch.on_recoverable(f);
    }

    /// Ends the background work, waiting a little for operations under way. Containers go on.
    pub fn close(&self) {
        self.0.upkeep.close();
        self.0.policies.close();
        if !self.0.engine.close(Duration::from_secs(10)) {
            tracing::warn!("operations are still under way; the next start finishes or undoes them");
        }
        // Last: an operation may need them. A daemon that ends from now on was told to.
        self.0.databases.close();
    }
}
