//! Limits: how much may be open at once, and how long the server waits for clients. Each is a setting; `GET /pool` shows them under `server`.

use crate::slots::{Load, Slots};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most open TCP connections. The UNIX socket has a limit of its own, [`Limits::socket_connections`].
    pub connections: usize,
    /// Most open TCP connections of one address (IPv6: of one /64 network).
    pub connections_per_address: usize,
    /// Most open connections to the UNIX socket.
    pub socket_connections: usize,
    /// Most open connections to the sockets of all containers.
    pub container_connections: usize,
    /// The same, of one container.
    pub connections_per_container: usize,
    /// Most requests of all containers, by their sockets, that are answered at the same time.
    pub container_requests: usize,
    /// The same, of one container.
    pub requests_per_container: usize,
    /// How much a container may ask at once by its socket: a request that reads counts one, a change ten.
    pub container_burst: u32,
    /// How much of that comes back in a second.
    pub container_rate: u32,
    /// How long a client may take for a TLS handshake, and then for the headers of its first request.
    pub header_timeout: Duration,
    /// How long a connection that has sent a valid token may be idle between two requests.
    pub idle_timeout: Duration,
    /// How long a JSON body may take to arrive.
    pub body_timeout: Duration,
    /// In this time an upload must send [`Limits::progress_bytes`], and a reader must read something. Only time in which the server waits for the client counts.
    pub progress_timeout: Duration,
    /// See [`Limits::progress_timeout`].
    pub progress_bytes: u64,
    /// The largest body of a client without a valid token, in bytes.
    pub unauthenticated_body: usize,
    /// Most Socket.IO sessions of one address that have not sent a valid token yet.
    pub pending_sessions_per_address: usize,
    /// Most Socket.IO sessions that have not sent a valid token yet, in total.
    pub pending_sessions: usize,
    /// How long a Socket.IO session may take to send one.
    pub session_timeout: Duration,
    /// Most open Socket.IO sessions and event streams.
    pub streams: usize,
    /// The same, for one token.
    pub streams_per_caller: usize,
    /// Most logs that are followed at the same time.
    pub followers: usize,
    /// The same, for one project.
    pub followers_per_project: usize,
    /// Most running commands (`exec`).
    pub commands: usize,
    /// The same, for one project.
    pub commands_per_project: usize,
    /// Most requests that wait for the end of an operation.
    pub waits: usize,
    /// The same, for one token.
    pub waits_per_caller: usize,
    /// Most running calls that only read. One token can use three quarters of them.
    pub reads: usize,
    /// Most running calls that change something. One token can use half of them.
    pub changes: usize,
    /// How long a call waits for its turn before it is refused.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1024,
            connections_per_address: 256,
            socket_connections: 256,
            container_connections: 256,
            connections_per_container: 8,
            container_requests: 16,
            requests_per_container: 2,
            container_burst: 60,
            container_rate: 5,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
            progress_bytes: 16 << 10,
            unauthenticated_body: 8 << 10,
            pending_sessions_per_address: 16,
            pending_sessions: 128,
            session_timeout: Duration::from_secs(5),
            streams: 512,
            streams_per_caller: 128,
            followers: 128,
            followers_per_project: 32,
            commands: 64,
            commands_per_project: 16,
            waits: 64,
            waits_per_caller: 16,
            reads: 32,
            changes: 64,
            patience: Duration::from_secs(10),
        }
    }
}

/// The slots of everything that is limited.
#[derive(Debug)]
pub struct Counted {
    /// Calls that only read. They have their own threads, so that they never wait for changes.
    pub reads: Arc<Slots>,
    /// Calls that change something.
    pub changes: Arc<Slots>,
    /// Requests of containers by their sockets. Each takes one of these before any of the others, so that containers together leave most of the others free.
    pub containers: Arc<Slots>,
    /// Calls that ask another server.
    pub remote: Arc<Slots>,
    /// Uploads of images.
    pub uploads: Arc<Slots>,
    /// Downloads of files and archives. One holds a thread only while it reads.
    pub downloads: Arc<Slots>,
    /// Commands in containers, with a limit for each project.
    pub commands: Arc<Slots>,
    /// Waits for the end of an operation.
    pub waits: Arc<Slots>,
    /// Snapshots that are sent to other servers.
    pub sends: Arc<Slots>,
    /// Requests of other servers.
    pub peers: Arc<Slots>,
    /// Logs that are followed, with a limit for each project. They use no thread.
    pub followers: Arc<Slots>,
    /// Streams of events, including Socket.IO sessions. They use no thread.
    pub streams: Arc<Slots>,
    /// Socket.IO sessions without a token, with a limit for each address. They use no thread.
    pub pending_sessions: Arc<Slots>,
}

const REMOTE: usize = 32;
const UPLOADS: usize = 16;
const DOWNLOADS: usize = 64;
const SENDS: usize = 16;
const PEERS: usize = 16;

impl Counted {
    /// The slots for these limits.
    #[must_use]
    pub fn new(l: &Limits) -> Self {
        Counted {
            reads: Slots::new("reads", l.reads, (l.reads * 3).div_ceil(4)),
            changes: Slots::new("changes", l.changes, l.changes.div_ceil(2)),
            containers: Slots::new("requests of containers", l.container_requests, l.requests_per_container),
            remote: Slots::new("calls to other servers", REMOTE, REMOTE / 2),
            uploads: Slots::new("uploads", UPLOADS, UPLOADS / 2),
            downloads: Slots::new("downloads", DOWNLOADS, DOWNLOADS / 2),
            commands: Slots::new("commands", l.commands, l.commands_per_project),
            waits: Slots::new("waits", l.waits, l.waits_per_caller),
            sends: Slots::new("snapshots being sent", SENDS, SENDS),
            peers: Slots::new("requests of other servers", PEERS, PEERS),
            followers: Slots::new("followed logs", l.followers, l.followers_per_project),
            streams: Slots::new("streams of events", l.streams, l.streams_per_caller),
            pending_sessions: Slots::new("Socket.IO sessions without a token", l.pending_sessions, l.pending_sessions_per_address),
        }
    }

    /// How many blocking threads the server needs at most, for the builder of its runtime.
    #[must_use]
    pub fn blocking_threads(&self) -> usize {
        let with_threads = [&self.reads, &self.changes, &self.remote, &self.uploads, &self.downloads, &self.commands, &self.waits, &self.sends, &self.peers];
        with_threads.iter().map(|s| s.most()).sum::<usize>() + 8
    }

    /// How much of each is in use, by its name in the metrics.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<&'static str, Load> {
        BTreeMap::from([
            ("reads", self.reads.load()),
            ("changes", self.changes.load()),
            ("container_requests", self.containers.load()),
            ("remote_calls", self.remote.load()),
            ("uploads", self.uploads.load()),
            ("downloads", self.downloads.load()),
            ("commands", self.commands.load()),
            ("waits", self.waits.load()),
            ("sends", self.sends.load()),
            ("peer_calls", self.peers.load()),
            ("followers", self.followers.load()),
            ("streams", self.streams.load()),
            ("pending_sessions", self.pending_sessions.load()),
        ])
    }
}

/// The time limits of the server in milliseconds, and the size limits in bytes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Timeouts {
    header_timeout_ms: u64,
    idle_timeout_ms: u64,
    body_timeout_ms: u64,
    progress_timeout_ms: u64,
    progress_bytes: u64,
    session_timeout_ms: u64,
    unauthenticated_body_bytes: usize,
}

impl Timeouts {
    /// The values of `limits`.
    #[must_use]
    pub fn of(l: &Limits) -> Self {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Timeouts {
            header_timeout_ms: ms(l.header_timeout),
            idle_timeout_ms: ms(l.idle_timeout),
            body_timeout_ms: ms(l.body_timeout),
            progress_timeout_ms: ms(l.progress_timeout),
            progress_bytes: l.progress_bytes,
            session_timeout_ms: ms(l.session_timeout),
            unauthenticated_body_bytes: l.unauthenticated_body,
        }
    }
}
