//! The state that all routes share: the host, the threads that its calls run on, the live events, the counters.

use crate::auth::{Identity, OpenRequests};
use crate::envelope::ApiError;
use crate::limits::{Counted, Limits};
use crate::metrics::Metrics;
use crate::serve::Table;
use crate::slots::{self, Load, Slot, Slots};
use hoody_state::host::{Host, Subscription};
use hoody_state::id::ContainerId;
use hoody_state::model::Event;
use hoody_state::{Code, Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, watch};

/// How many live events are kept for a slow reader. A reader that falls further behind gets them from the catalog.
const EVENT_BACKLOG: usize = 256;

/// Options of the API.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether `/metrics` is served.
    pub metrics: bool,
    /// How much may be open at once, and how long the server waits for clients.
    pub limits: Limits,
}

impl Options {
    /// How many blocking threads the server needs at most, for the builder of the runtime.
    #[must_use]
    pub fn blocking_threads(&self) -> usize {
        Counted::new(&self.limits).blocking_threads()
    }
}

/// The API over one host.
#[derive(Clone)]
pub struct Api {
    app: Arc<App>,
}

impl Api {
    /// The API over `host`.
    #[must_use]
    pub fn new(host: Host, options: Options) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let sender = events.clone();
        let subscription = host.subscribe(Box::new(move |event: &Event| {
            // That nobody listens is not an error.
            let _ = sender.send(Arc::new(event.clone()));
        }));
        let app = App {
            open: OpenRequests::new(host.clone()),
            counted: Counted::new(&options.limits),
            connections: Table::new("connections", options.limits.connections, options.limits.connections_per_address),
            socket_connections: Table::new("connections to the UNIX socket", options.limits.socket_connections, options.limits.socket_connections),
            container_connections: Table::new("connections of containers", options.limits.container_connections, options.limits.connections_per_container),
            host,
            options,
            metrics: Metrics::default(),
            events,
            closing: watch::Sender::new(false),
            _subscription: Mutex::new(subscription),
        };
        Api { app: Arc::new(app) }
    }

    /// All routes.
    pub fn router(&self) -> axum::Router {
        crate::router::router(self.app.clone())
    }

    /// The state that the server shares with its routes.
    pub(crate) fn app(&self) -> &Shared {
        &self.app
    }

    /// Ends the streams of events and logs, which would never end by themselves. Other requests continue.
    pub fn close(&self) {
        self.app.closing.send_replace(true);
    }
}

/// The state of the API.
pub struct App {
    /// The host.
    pub host: Host,
    /// The options.
    pub options: Options,
    /// Counters.
    pub metrics: Metrics,
    /// The events, as they happen.
    pub events: broadcast::Sender<Arc<Event>>,
    /// Open requests and streams, which end when their token is revoked.
    pub open: OpenRequests,
    /// The slots of calls and streams.
    pub counted: Counted,
    /// Connections over TCP.
    pub connections: Arc<Table>,
    /// Connections to the UNIX socket.
    pub socket_connections: Arc<Table>,
    /// Connections to the sockets of containers.
    pub container_connections: Arc<Table>,
    closing: watch::Sender<bool>,
    // In a lock only to be `Sync`.
    _subscription: Mutex<Subscription>,
}

/// The state of the routers.
pub type Shared = Arc<App>;

impl App {
    /// Runs a call that only reads.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn read<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.reads, call).await
    }

    /// Runs a call that changes something. It runs to its end even if the client disconnects.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn change<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.changes, call).await
    }

    /// [`App::read`] of a container that the caller may see.
    ///
    /// # Errors
    /// `container_not_found`, and those of the call.
    pub async fn look<T: Send + 'static>(
        &self,
        who: Identity,
        id: ContainerId,
        call: impl FnOnce(&Host, &ContainerId) -> Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.read(on_container(who, id, call)).await
    }

    /// [`App::change`] of a container that the caller may see.
    ///
    /// # Errors
    /// `container_not_found`, and those of the call.
    pub async fn alter<T: Send + 'static>(
        &self,
        who: Identity,
        id: ContainerId,
        call: impl FnOnce(&Host, &ContainerId) -> Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.change(on_container(who, id, call)).await
    }

    /// Runs a call that may have to ask another server, and may take as long as that server does.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn remote<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.remote, call).await
    }

    /// Runs a function in the background that writes the body of an answer.
    ///
    /// # Errors
    /// `too_many_streams`.
    pub fn stream(&self, write: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
        let slot = self.counted.sends.take_now(&slots::current(), Code::TooManyStreams)?;
        drop(tokio::task::spawn_blocking(move || {
            let _slot = slot;
            write();
        }));
        Ok(())
    }

    /// Runs the request of another server. It has slots of its own, so that two busy servers never wait for each other.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn answer_peer<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.peers, call).await
    }

    /// How much of each kind is in use, by its name in the metrics.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<&'static str, Load> {
        let mut loads = self.counted.loads();
        loads.insert("connections", self.connections.load());
        loads.insert("socket_connections", self.socket_connections.load());
        loads.insert("container_connections", self.container_connections.load());
        loads
    }

    /// Becomes true when the server ends.
    #[must_use]
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Runs a call in a slot that was taken before. The slot is held until the call ends, even if the client disconnects.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn in_slot<T: Send + 'static>(&self, slot: Slot, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        let host = self.host.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            call(&host)
        });
        match joined.await {
            Ok(result) => result.map_err(ApiError::from),
            Err(e) => Err(Error::internal(format!("the call ended early: {e}")).into()),
        }
    }

    async fn run<T: Send + 'static>(&self, slots: &Arc<Slots>, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        let slot = slots.take(&slots::current(), self.options.limits.patience, Code::ServerBusy).await?;
        self.in_slot(slot, call).await
    }
}

/// A call about a container, which is refused if the caller cannot see the container.
fn on_container<T>(who: Identity, id: ContainerId, call: impl FnOnce(&Host, &ContainerId) -> Result<T> + Send) -> impl FnOnce(&Host) -> Result<T> + Send {
    move |host| {
        who.check_container(host, &id)?;
        call(host, &id)
    }
}
