//! What all routes share: the host, the threads its calls run on, the live events, the counters.

use crate::auth::{Identity, OpenRequests};
use crate::envelope::ApiError;
use crate::metrics::Metrics;
use hoody_state::host::{Host, Subscription};
use hoody_state::id::ContainerId;
use hoody_state::model::Event;
use hoody_state::{Error, Kind, Result};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, broadcast, watch};

/// How many calls of each sort run at once. Reads have their own threads, so that they never wait for changes.
const READS: usize = 32;
const CHANGES: usize = 64;
const LONG: usize = 32;
/// Snapshots that are sent to other servers at once.
const STREAMS: usize = 16;
/// Questions of other servers at once.
const PEERS: usize = 16;

/// Live events kept for a slow reader; one that falls further behind catches up from the catalog.
const EVENT_BACKLOG: usize = 256;

/// The most blocking threads the server needs: for the runtime's builder.
pub const BLOCKING_THREADS: usize = READS + CHANGES + LONG + STREAMS + PEERS + 8;

/// What may be chosen about the API.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether `/metrics` is there.
    pub metrics: bool,
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
            host,
            options,
            metrics: Metrics::default(),
            events,
            closing: watch::Sender::new(false),
            reads: Arc::new(Semaphore::new(READS)),
            changes: Arc::new(Semaphore::new(CHANGES)),
            long: Arc::new(Semaphore::new(LONG)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            peers: Arc::new(Semaphore::new(PEERS)),
            _subscription: Mutex::new(subscription),
        };
        Api { app: Arc::new(app) }
    }

    /// All routes.
    pub fn router(&self) -> axum::Router {
        crate::router::router(self.app.clone())
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
    closing: watch::Sender<bool>,
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    long: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    peers: Arc<Semaphore>,
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
        self.run(&self.reads, call).await
    }

    /// Runs a call that changes something. It runs to its end even if the client goes away.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn change<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.changes, call).await
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

    /// Runs a call that lasts as long as something outside does: a command, an upload, a wait.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn long<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.long, call).await
    }

    /// Runs what writes a body, behind the answer.
    ///
    /// # Errors
    /// `too_many_streams`, before anything is answered.
    pub fn stream(&self, write: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
        let busy = || Error::new(Kind::Unavailable, "too_many_streams", format!("{STREAMS} snapshots are being sent already: ask again"));
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| busy())?;
        drop(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            write();
        }));
        Ok(())
    }

    /// Runs what another server asks for: apart from people's calls, so that two busy servers never wait for each other.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn answer_peer<T: Send + 'static>(&self, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        self.run(&self.peers, call).await
    }

    /// Turns true when the server ends.
    #[must_use]
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    async fn run<T: Send + 'static>(&self, permits: &Arc<Semaphore>, call: impl FnOnce(&Host) -> Result<T> + Send + 'static) -> Result<T, ApiError> {
        let permit = permits.clone().acquire_owned().await.map_err(|e| Error::internal(e.to_string()))?;
        let host = self.host.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            call(&host)
        });
        match joined.await {
            Ok(result) => result.map_err(ApiError::from),
            Err(e) => Err(Error::internal(format!("the call ended early: {e}")).into()),
        }
    }
}
