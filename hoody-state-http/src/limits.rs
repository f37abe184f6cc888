//! What the server lets callers take at once, and how long it waits for them. Every value is a setting; `GET /pool` shows them under `server`.

use crate::slots::{Load, Slots};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The settings.
#[derive(Debug, Clone)]
pub struct Limits {
    /// TCP connections at once. The UNIX socket has its own, [`Limits::socket_connections`].
    pub connections: usize,
    /// TCP connections of one address (of one /64 with IPv6).
    pub connections_per_address: usize,
    /// Connections to the UNIX socket at once.
    pub socket_connections: usize,
    /// How long a client may take over a TLS handshake, and then over the headers of its first request.
    pub header_timeout: Duration,
    /// How long a connection that has shown a token may do nothing between two requests.
    pub idle_timeout: Duration,
    /// How long a JSON body may take to come.
    pub body_timeout: Duration,
    /// In this time, of which only waiting for the client counts, an upload must bring [`Limits::progress_bytes`], and a reader must take something.
    pub progress_timeout: Duration,
    /// See [`Limits::progress_timeout`].
    pub progress_bytes: u64,
    /// The most that a body may have before it is known who sends it.
    pub unauthenticated_body: usize,
    /// Socket.IO sessions that have not shown a valid token yet, of one address.
    pub pending_sessions_per_address: usize,
    /// Socket.IO sessions that have not shown a valid token yet, in all.
    pub pending_sessions: usize,
    /// How long a Socket.IO session may take to show one.
    pub session_timeout: Duration,
    /// Socket.IO sessions and event streams at once.
    pub streams: usize,
    /// The same, of one token.
    pub streams_per_caller: usize,
    /// Logs that are followed at once.
    pub followers: usize,
    /// The same, of one project.
    pub followers_per_project: usize,
    /// Commands (`exec`) at once.
    pub commands: usize,
    /// The same, of one project.
    pub commands_per_project: usize,
    /// Requests at once that wait for the end of an operation.
    pub waits: usize,
    /// The same, of one token.
    pub waits_per_caller: usize,
    /// Calls at once that only look; one token may have three quarters of them.
    pub reads: usize,
    /// Calls at once that change something; one token may have half of them.
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

/// The slots of everything that is counted.
#[derive(Debug)]
pub struct Counted {
    /// Calls that only look. They have their own threads, so that they never wait for changes.
    pub reads: Arc<Slots>,
    /// Calls that change something.
    pub changes: Arc<Slots>,
    /// Calls that last as long as another server takes.
    pub remote: Arc<Slots>,
    /// Uploads of images.
    pub uploads: Arc<Slots>,
    /// Commands in containers; a project has a share.
    pub commands: Arc<Slots>,
    /// Waits for the end of an operation.
    pub waits: Arc<Slots>,
    /// Snapshots that are sent to other servers.
    pub sends: Arc<Slots>,
    /// Questions of other servers.
    pub peers: Arc<Slots>,
    /// Logs that are followed; a project has a share. They hold no thread.
    pub followers: Arc<Slots>,
    /// Streams of events, Socket.IO's too. They hold no thread.
    pub streams: Arc<Slots>,
    /// Socket.IO sessions without a token; an address has a share. They hold no thread.
    pub pending_sessions: Arc<Slots>,
}

const REMOTE: usize = 32;
const UPLOADS: usize = 16;
const SENDS: usize = 16;
const PEERS: usize = 16;

impl Counted {
    /// As the settings have it.
    #[must_use]
    pub fn new(l: &Limits) -> Self {
        Counted {
            reads: Slots::new("reads", l.reads, (l.reads * 3).div_ceil(4)),
            changes: Slots::new("changes", l.changes, l.changes.div_ceil(2)),
            remote: Slots::new("calls of other servers", REMOTE, REMOTE / 2),
            uploads: Slots::new("uploads", UPLOADS, UPLOADS / 2),
            commands: Slots::new("commands", l.commands, l.commands_per_project),
            waits: Slots::new("waits", l.waits, l.waits_per_caller),
            sends: Slots::new("snapshots being sent", SENDS, SENDS),
            peers: Slots::new("questions of other servers", PEERS, PEERS),
            followers: Slots::new("followed logs", l.followers, l.followers_per_project),
            streams: Slots::new("streams of events", l.streams, l.streams_per_caller),
            pending_sessions: Slots::new("Socket.IO sessions without a token", l.pending_sessions, l.pending_sessions_per_address),
        }
    }

    /// The most blocking threads that the server needs, for the builder of its runtime.
    #[must_use]
    pub fn blocking_threads(&self) -> usize {
        let with_threads = [&self.reads, &self.changes, &self.remote, &self.uploads, &self.commands, &self.waits, &self.sends, &self.peers];
        with_threads.iter().map(|s| s.most()).sum::<usize>() + 8
    }

    /// Each with its figures.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<&'static str, Load> {
        BTreeMap::from([
            ("reads", self.reads.load()),
            ("changes", self.changes.load()),
            ("remote_calls", self.remote.load()),
            ("uploads", self.uploads.load()),
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

/// How long the server waits for a client, in milliseconds, and how much it takes.
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
    /// Of these settings.
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
