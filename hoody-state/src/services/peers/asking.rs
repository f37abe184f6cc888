//! Questions to other servers.

use super::sending::Sending;
use crate::catalog::peers;
use crate::catalog::records::Records;
use crate::error::{Code, Error, Result};
use crate::id::ServerId;
use crate::model::Server;
use crate::transfer::{Answer, PeerAddress, Request, Transport};
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may take for a question; a snapshot of a busy container takes longest.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The same where nobody can be kept waiting.
const BRIEF_ANSWER_TIME: Duration = Duration::from_secs(5);

/// Other servers, as far as this one knows them.
pub(crate) struct Peers {
    /// Nothing: no other server can be reached.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) records: Records,
    /// This server.
    pub(crate) server: Server,
    /// The first host id of its containers.
    pub(crate) id_base: u32,
    pub(crate) sending: Sending,
}

/// The error for an answer of another kind than was asked for.
pub(crate) fn wrong_answer(peer: &PeerAddress) -> Error {
    Error::new(Code::PeerRefused, format!("server {} gave an answer that this version does not understand: bring both to one version", peer.name))
}

impl Peers {
    /// How other servers are reached. Error: `no_transport`.
    pub(crate) fn transport(&self) -> Result<&Arc<dyn Transport>> {
        self.transport.as_ref().ok_or_else(|| Error::new(Code::NoTransport, "this host cannot reach other servers: it was opened without a transport"))
    }

    /// How a server is reached. Error: `unknown_server`.
    pub(crate) fn address_of(&self, server: &ServerId) -> Result<PeerAddress> {
        let row = self.records.read(|c| peers::of_server(c, server))?;
        let missing = || Error::new(Code::UnknownServer, format!("server {server} is no peer of {}: make it known there with POST /peers", self.server.name));
        Ok(row.ok_or_else(missing)?.address)
    }

    /// Asks a peer. Errors: `peer_unreachable`, and what the peer says.
    pub(crate) fn ask(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, ANSWER_TIME)
    }

    /// As [`Peers::ask`], where nobody can be kept waiting.
    pub(crate) fn ask_briefly(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, BRIEF_ANSWER_TIME)
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

    /// The question who a peer is. It says who asks.
    pub(crate) fn hello(&self) -> Request {
        Request::Hello { from: Some(self.server.id.clone()) }
    }
}
