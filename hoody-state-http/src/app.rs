//! What all routes share: the host, the threads its calls run on, the live events, the counters.

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

/// Live events kept for a slow reader; one that falls further behind catches up from the catalog.
const EVENT_BACKLOG: usize = 256;

/// What may be chosen about the API.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether `/metrics` is there.
    pub metrics: bool,
    /// What it takes at once, and how long it waits for clients.
    pub limits: Limits,
}

impl Options {
    /// The most blocking threads that the server needs: for the runtime's builder.
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
            // Nobody listening is no error.
            let _ = sender.send(Arc::new(event.clone()));
        }));
        let app = App {
            open: OpenRequests::new(host.clone()),
            counted: Counted::new(&options.limits),
            connections: Table::new("connections", options.limits.connections, options.limits.connections_per_address),
            socket_connections: Table::new("connections to the UNIX socket", options.limits.socket_connections, options.limits.socket_connections),
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

    /// What the server shares with its routes.
    pub(crate) fn app(&self) -> &Shared {
        &self.app
    }

    /// Ends the streams (events, logs) that would go on for ever; other requests go on.
    pub fn close(&self) {
        self.app.closing.send_replace(true);
    }
}

/// What a handler has at hand.
pub struct App {
    /// The façade.
    pub host: Host,
    /// The choices.
    pub options: Options,
    /// Counters.
    pub metrics: Metrics,
    /// Everything that happens, as it happens.
    pub events: broadcast::Sender<Arc<Event>>,
    /// What is open, so that it ends when its token is revoked.
    pub open: OpenRequests,
    /// What is under way.
    pub counted: Counted,
    /// Connections over TCP.
    pub connections: Arc<Table>,
    /// Connections to the UNIX socket.
    pub socket_connections: Arc<Table>,
    closing: watch::Sender<bool>,
    // Behind a lock only so that it may be shared between threads whatever it is made of.
    _subscription: Mutex<Subscription>,
}

/// The state of the routers.
pub type Shared = Arc<App>;

impl App {
    /// Runs a call that only looks.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn read<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.reads, call).await
    }

    /// Runs a call that changes something. It runs to its end even if the client goes away.
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
        self.read(move |host| {
            who.check_container(host, &id)?;
            call(host, &id)
        })
        .await
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
        self.change(move |host| {
            who.check_container(host, &id)?;
            call(host, &id)
        })
        .await
    }

    /// Runs a call that may have to ask another server, and lasts as long as that takes.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn remote<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.remote, call).await
    }

    /// Runs in the background what writes the body of an answer.
    ///
    /// # Errors
    /// `too_many_streams`, before anything is answered.
    pub fn stream(&self, write: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
        let slot = self.counted.sends.take_now(&slots::current(), Code::TooManyStreams)?;
        drop(tokio::task::spawn_blocking(move || {
            let _slot = slot;
            write();
        }));
        Ok(())
    }

    /// Runs what another server asks for: apart from people's calls, so that two busy servers never wait for each other.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn answer_peer<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.counted.peers, call).await
    }

    /// How much of everything is under way.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<&'static str, Load> {
        let mut loads = self.counted.loads();
        loads.insert("connections", self.connections.load());
        loads.insert("socket_connections", self.socket_connections.load());
        loads
    }

    /// Turns true when the server ends.
    #[must_use]
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Runs a call for which a slot was taken; the slot is held until the call ends, even if the client goes away.
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
