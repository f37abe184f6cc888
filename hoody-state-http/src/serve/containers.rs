//! The sockets of containers: one task for each container that runs and has one. It sleeps until somebody connects.

use super::{Connection, Pace, pause, run};
use crate::app::{App, Shared};
use crate::auth::Peer;
use crate::container_api::{self, Own};
use crate::serve::Address;
use axum::{Extension, Router};
use hoody_state::host::{ApiServer, Host};
use hoody_state::id::ContainerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The sockets are served while this lives.
pub(super) struct Serving {
    host: Host,
    sockets: Arc<Sockets>,
}

impl Serving {
    pub(super) fn begin(app: &Shared, stopping: watch::Receiver<bool>) -> Self {
        let router = container_api::router(app.clone());
        let sockets = Arc::new(Sockets { app: Arc::downgrade(app), router, handle: Handle::current(), stopping, tasks: Mutex::default() });
        app.host.serve_api_sockets(Some(sockets.clone()));
        Serving { host: app.host.clone(), sockets }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.host.serve_api_sockets(None);
        self.sockets.tasks().drain().for_each(|(_, task)| task.abort());
    }
}

struct Sockets {
    app: Weak<App>,
    router: Router,
    handle: Handle,
    stopping: watch::Receiver<bool>,
    tasks: Mutex<HashMap<ContainerId, AbortHandle>>,
}

impl Sockets {
    fn tasks(&self) -> MutexGuard<'_, HashMap<ContainerId, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiServer for Sockets {
    fn opened(&self, container: &ContainerId, listener: std::os::unix::net::UnixListener, root: u32) {
        let Some(app) = self.app.upgrade() else { return };
        let _in_runtime = self.handle.enter();
        let listener = match listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)) {
            Ok(listener) => listener,
            Err(e) => {
                tracing::error!(%container, error = %e, "the container's socket cannot be served");
                return;
            }
        };
        let socket = Socket {
            app: self.app.clone(),
            address: Address::of_container(container),
            root,
            router: self.router.clone().layer(Extension(Own::new(container.clone(), &app.options.limits))),
            stopping: self.stopping.clone(),
        };
        let task = self.handle.spawn(async move { socket.accept(listener).await }).abort_handle();
        if let Some(old) = self.tasks().insert(container.clone(), task) {
            old.abort();
        }
    }

    fn closed(&self, container: &ContainerId) {
        let task = self.tasks().remove(container);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// The socket of one container.
struct Socket {
    app: Weak<App>,
    address: Address,
    /// The host's user id of the container's root.
    root: u32,
    router: Router,
    stopping: watch::Receiver<bool>,
}

impl Socket {
    /// Its connections end with this task. What they have asked for runs to its end.
    async fn accept(self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    pause(&e).await;
                    continue;
                }
            };
            // The mode of the socket keeps others off already.
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == self.root) && !self.begin(stream, &mut connections) {
                return;
            }
        }
    }

    /// Whether the server still runs.
    fn begin(&self, stream: UnixStream, connections: &mut JoinSet<()>) -> bool {
        let Some(app) = self.app.upgrade() else { return false };
        let connection = Connection { address: self.address, pace: Pace::new(&app.options.limits) };
        // A container that has too many connections open is not answered: each answer would be one more.
        if let Ok(place) = app.container_connections.admit(self.address, &connection.pace) {
            let (router, stopping) = (self.router.clone(), self.stopping.clone());
            connections.spawn(async move {
                let _place = place;
                run(stream, Peer::Container, connection, router, stopping).await;
            });
        }
        true
    }
}
