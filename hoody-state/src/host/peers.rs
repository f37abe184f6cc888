//! Other servers: which are known, and answers to what they ask.

use super::{Caller, Host};
use crate::catalog::{containers, peers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ServerId};
use crate::model::{Container, NewPeer, Peer, Server, Token};
use crate::ops;
use crate::services::peers::{Sent, wrong_answer};
use crate::snapshot::Volume;
use crate::transfer::{Answer, Compressor, Request, Responder, StreamRequest, StreamWriter, VERSION};
use std::io::Write;

/// A snapshot that is about to be sent.
pub struct OfferedStream {
    host: Host,
    volume: Volume,
    base: Option<Volume>,
    /// No schedule removes what is being sent.
    _sent: Sent,
}

impl OfferedStream {
    /// Writes all of it, compressed. Errors: `transfer_cut` when `out` fails, and those of the store.
    pub fn write(self, out: &mut dyn Write) -> Result<()> {
        let mut compressed = Compressor::new(out)?;
        self.host.0.store.send(&self.volume, self.base.as_ref(), &mut compressed)?;
        compressed.finish().map_err(|e| Error::new(Code::TransferCut, format!("whoever received the stream has gone: {e}")))
    }
}

impl Host {
    /// Makes a peer known: asks it who it is, with the token, over the connection that copies will take. One that is known already is known anew.
    ///
    /// # Errors
    /// `validation_error`, `peer_unreachable`, `peer_refused`, `peer_is_self`, `id_base_differs`, `peer_name_in_use`.
    pub fn add_peer(&self, caller: &Caller, new: NewPeer) -> Result<Peer> {
        self.0.peers.add(caller.idempotency.as_ref(), new)
    }

    /// All peers.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        self.0.peers.all()
    }

    /// Forgets a peer, by its id, its server's id or its name. What was copied stays.
    ///
    /// # Errors
    /// `peer_not_found`.
    pub fn remove_peer(&self, which: &str) -> Result<()> {
        self.0.peers.remove(which)
    }

    /// This server and its peers.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn servers(&self) -> Result<Vec<Server>> {
        let peers = self.peers()?.into_iter().map(|p| Server { id: p.server_id, name: p.server_name });
        Ok(std::iter::once(self.server()).chain(peers).collect())
    }

    /// A container that was copied or moved from here to a peer, as the peer says it is now; nothing if none of that id was.
    ///
    /// # Errors
    /// `container_not_found` if it is gone there, `peer_unreachable`.
    pub fn container_elsewhere(&self, id: &ContainerId) -> Result<Option<Container>> {
        let Some((server, _)) = self.0.catalog.read(|c| peers::copy_elsewhere(c, id))? else { return Ok(None) };
        let peer = self.0.peers.address_of(&server)?;
        match self.0.peers.ask_briefly(&peer, &Request::State { copy: id.clone() })? {
            Answer::Copy(state) => Ok(Some(state.container)),
            _ => Err(wrong_answer(&peer)),
        }
    }

    /// The project a container was copied into, wherever it is.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn project_elsewhere(&self, id: &ContainerId) -> Result<Option<crate::id::ProjectId>> {
        Ok(self.0.catalog.read(|c| peers::copy_elsewhere(c, id))?.map(|(_, p)| p))
    }

    /// Answers the server that `token` belongs to.
    ///
    /// # Errors
    /// `insufficient_permissions`, `token_not_bound`, `container_not_found` for what the server has nothing to do with, and those of what it asks for.
    pub fn answer_peer(&self, token: &Token, request: Request) -> Result<Answer> {
        self.0.peers.check_request(token, &request)?;
        let copy = |state| Ok(Answer::Copy(Box::new(state)));
        match request {
            Request::Hello { .. } => Ok(Answer::Hello { server: self.server(), version: VERSION, id_base: self.0.id_base }),
            Request::CheckCopy(order) => ops::receive::check(&self.0, &order),
            Request::Copy(order) => copy(ops::receive::accept(&self.0, *order)?),
            Request::State { copy: id } => copy(ops::receive::state(&self.0, &id)?),
            Request::Advance { copy: id, snapshot, handover } => copy(ops::handover::advance_copy(&self.0, &id, snapshot, &handover)?),
            Request::HandOver { copy: id, handover, start, identity } => copy(ops::handover::take_over(&self.0, &id, &handover, start, identity)?),
            Request::Discard { copy: id, handover } => copy(ops::handover::discard_copy(&self.0, &id, &handover)?),
            Request::Inventory { container, .. } => {
                let rows = self.0.catalog.read(|c| {
                    containers::get(c, &container)?;
                    snapshots::all(c, &container)
                })?;
                let offered = rows.iter().rev().map(|s| ops::order::offered(&self.0, &container, s));
                Ok(Answer::Inventory { snapshots: offered.filter_map(Result::transpose).collect::<Result<_>>()? })
            }
            Request::Fresh { container, copy, have } => {
                let known = |s: &crate::catalog::snapshots::SnapshotRow| {
                    let identity = self.0.store.identity(&Volume::Snapshot(container.clone(), s.snapshot.name.clone()))?;
                    Ok(identity.is_some_and(|u| have.contains(&u)))
                };
                let news = ops::synced::news(&self.0, &container, &copy, &known)?;
                let base_identity = news.base.as_ref().map(|b| ops::order::offered(&self.0, &container, b)).transpose()?.flatten().map(|o| o.identity);
                let snapshot = news.snapshot.map(|s| ops::order::offered(&self.0, &container, &s)).transpose()?.flatten();
                Ok(Answer::Fresh { snapshot: snapshot.map(Box::new), base: news.base.map(|b| b.snapshot.name), base_identity })
            }
        }
    }

    /// Finds what the server that `token` belongs to wants to have.
    ///
    /// # Errors
    /// `insufficient_permissions`, `token_not_bound`, `container_not_found`, `snapshot_not_found`.
    pub fn offer_stream(&self, token: &Token, request: &StreamRequest) -> Result<OfferedStream> {
        self.0.peers.check_stream(token, request)?;
        let volume = |name: &crate::name::SnapshotName| {
            self.0.catalog.read(|c| {
                containers::get(c, &request.container)?;
                snapshots::by_name(c, &request.container, name.as_str())?
                    .ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("container {} has no snapshot {name} any more", request.container)))
            })?;
            let (c, n) = (request.container.clone(), name.clone());
            Ok::<_, Error>(if request.databases { Volume::SnapshotDatabases(c, n) } else { Volume::Snapshot(c, n) })
        };
        let base = request.base.as_ref().map(volume).transpose().map_err(|e| match e.code() {
            Code::SnapshotNotFound => Error::new(Code::BaseMissing, format!("{}: ask for an increment on another", e.message())),
            _ => e,
        })?;
        let names = std::iter::once(&request.snapshot).chain(&request.base).cloned().collect();
        let sent = self.0.peers.sending.begin(&request.container, names);
        Ok(OfferedStream { host: self.clone(), volume: volume(&request.snapshot)?, base, _sent: sent })
    }

    /// The server that a request names: this one, or a peer.
    ///
    /// # Errors
    /// `unknown_server`.
    pub fn known_server(&self, id: &ServerId) -> Result<Server> {
        self.servers()?
            .into_iter()
            .find(|s| s.id == *id)
            .ok_or_else(|| Error::new(Code::UnknownServer, format!("there is no server {id} among this one and its peers")))
    }
}

impl Responder for Host {
    fn authenticate(&self, token: &str) -> Result<Option<Token>> {
        Host::authenticate(self, token)
    }

    fn answer(&self, token: &Token, request: Request) -> Result<Answer> {
        self.answer_peer(token, request)
    }

    fn offer(&self, token: &Token, request: &StreamRequest) -> Result<StreamWriter> {
        let offered = self.offer_stream(token, request)?;
        Ok(Box::new(move |out| offered.write(out)))
    }
}
