//! Questions to peers.

use crate::catalog::peers;
use crate::error::{Code, Error, Result};
use crate::host::Host;
use crate::id::ServerId;
use crate::transfer::{Answer, PeerAddress, Request, Transport};
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may take for an answer; a snapshot of a busy container takes longest.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(60);

impl Host {
    pub(crate) fn transport(&self) -> Result<Arc<dyn Transport>> {
        self.0.transport.clone().ok_or_else(|| Error::new(Code::NoTransport, "this host cannot reach other servers: it was opened without a transport"))
    }

    pub(crate) fn peer_of(&self, server: &ServerId) -> Result<PeerAddress> {
        let found = self.0.catalog.read(|c| peers::of_server(c, server))?;
        let missing = || Error::new(Code::UnknownServer, format!("server {server} is no peer of {}: make it known there with POST /peers", self.0.server.name));
        Ok(found.ok_or_else(missing)?.address)
    }

    pub(crate) fn ask(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, ANSWER_TIME)
    }

    /// The same, where nobody can be kept waiting.
    pub(crate) fn ask_briefly(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, Duration::from_secs(5))
    }

    /// A token that was made for no server in particular, or before tokens belonged to servers, becomes this server's by its first use.
    fn call(&self, peer: &PeerAddress, request: &Request, timeout: Duration) -> Result<Answer> {
        let transport = self.transport()?;
        match transport.call(peer, request, timeout) {
            Err(e) if e.code() == Code::TokenNotBound => {
                transport.call(peer, &self.hello(), timeout)?;
                transport.call(peer, request, timeout)
            }
            answered => answered,
        }
    }

    /// Asks a peer who it is, and says who asks.
    pub(crate) fn hello(&self) -> Request {
        Request::Hello { from: Some(self.0.server.id.clone()) }
    }
}
