//! Other servers: making them known, and answering them.

use super::{Caller, Host};
use crate::catalog::peers::PeerRow;
use crate::catalog::{Durability, containers, peers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, PeerId, ServerId};
use crate::model::{Container, NewPeer, Peer, Server, Token};
use crate::ops;
use crate::snapshot::Volume;
use crate::transfer::{Answer, Compressor, PeerAddress, Request, StreamRequest, VERSION};
use std::io::Write;
use std::net::IpAddr;

/// A snapshot that is about to be sent.
pub struct OfferedStream {
    host: Host,
    volume: Volume,
    base: Option<Volume>,
}

impl OfferedStream {
    /// Writes all of it, compressed. Errors: `transfer_cut` when `out` fails, and those of the store.
    pub fn write(self, out: &mut dyn Write) -> Result<()> {
        let mut compressed = Compressor::new(out)?;
        self.host.0.store.send(&self.volume, self.base.as_ref(), &mut compressed)?;
        compressed.finish().map_err(|e| Error::new(Code::TransferCut, format!("whoever received the stream has gone: {e}")))
    }
}

/// The address of a peer: https, or http on this machine.
fn check_url(url: &str) -> Result<String> {
    let bad =
        |why: &str| Error::new(Code::ValidationError, format!("url: {why}: write https://HOST:PORT, or http://127.0.0.1:PORT for a server on this machine"));
    let url = url.trim().trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
    if rest.is_empty() || rest.len() > 500 || rest.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@')) {
        return Err(bad("it is no host and port"));
    }
    let host = rest.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).map_or(rest, |(h, _)| h);
    let loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match scheme {
        "https" => Ok(url.to_owned()),
        "http" if loopback => Ok(url.to_owned()),
        "http" => Err(bad("plain http is for this very machine only")),
        _ => Err(bad("its scheme is not https")),
    }
}

impl Host {
    /// Makes a peer known: asks it who it is, with the token, over the connection that copies will take. One that is known already is known anew.
    ///
    /// # Errors
    /// `validation_error`, `peer_unreachable`, `peer_refused`, `peer_is_self`, `id_base_differs`, `peer_name_in_use`.
    pub fn add_peer(&self, caller: &Caller, new: NewPeer) -> Result<Peer> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let url = check_url(&new.url)?;
        let name = new.name.as_deref().map(str::trim);
        let good = |n: &str| !n.is_empty() && n.chars().count() <= 100 && !n.chars().any(char::is_control);
        if name.is_some_and(|n| !good(n)) {
            return Err(Error::new(Code::ValidationError, "name: 1 to 100 characters, no control characters"));
        }
        if !new.token.starts_with("hdy_") || new.token.len() > 200 {
            return Err(Error::new(
                Code::ValidationError,
                "token: a replication token of that server, made there with `hoody-state-http token create --replication`",
            ));
        }
        if new.ca.as_ref().is_some_and(|ca| ca.len() > 64 << 10 || !ca.contains("-----BEGIN CERTIFICATE-----")) {
            return Err(Error::new(Code::ValidationError, "ca: a certificate in PEM, or none"));
        }
        let address = PeerAddress { name: name.unwrap_or(&url).to_owned(), url: url.clone(), token: new.token, ca: new.ca };
        let Answer::Hello { server, version, id_base } = self.ask(&address, &self.hello())? else {
            return Err(Error::new(Code::PeerRefused, format!("what answers at {url} is no hoody-state server of this version")));
        };
        if server.id == self.0.server.id {
            return Err(Error::new(Code::PeerIsSelf, format!("{url} is this very server")));
        }
        if version != VERSION {
            let message = format!("server {} speaks version {version} of replication, this one {VERSION}: bring both to one version", server.name);
            return Err(Error::new(Code::PeerRefused, message));
        }
        if id_base != self.0.id_base {
            let message = format!(
                "server {} gives its containers the ids from {id_base} on, this one from {}: make the pools of a fleet with one --id-base",
                server.name, self.0.id_base
            );
            return Err(Error::new(Code::IdBaseDiffers, message));
        }
        let peer = Peer {
            id: PeerId::generate(),
            name: name.map_or_else(|| server.name.clone(), str::to_owned),
            url,
            server_id: server.id,
            server_name: server.name,
            pinned: address.ca.is_some(),
            created_at: self.0.clock.now(),
        };
        if let Some(known) = self.0.catalog.read(|c| peers::of_server(c, &peer.server_id))?
            && known.peer.url != peer.url
            && known.peer.name != peer.name
        {
            // Whoever claims to be a server that is known does not take its place by that alone.
            let message = format!(
                "server {} is known already as {:?} at {}: give that name to give it another address, or forget it first",
                peer.server_id, known.peer.name, known.peer.url
            );
            return Err(Error::new(Code::PeerNameInUse, message));
        }
        let row = PeerRow { address: PeerAddress { name: peer.name.clone(), ..address }, peer };
        self.change(caller, |tx| {
            tx.put_peer(&row)?;
            Ok(row.peer.clone())
        })
    }

    /// All peers.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        Ok(self.0.catalog.read(peers::all)?.into_iter().map(|p| p.peer).collect())
    }

    /// Forgets a peer, by its id, its server's id or its name. What was copied stays.
    ///
    /// # Errors
    /// `peer_not_found`.
    pub fn remove_peer(&self, which: &str) -> Result<()> {
        self.write(Durability::Disk, |tx| tx.delete_peer(which))
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
        let peer = self.peer_of(&server)?;
        match self.ask_briefly(&peer, &Request::State { copy: id.clone() })? {
            Answer::Copy(state) => Ok(Some(state.container)),
            _ => Err(Error::new(Code::PeerRefused, format!("server {} gave an answer that this version does not understand", peer.name))),
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
        self.check_peer(token, &request)?;
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
                let fresh = ops::synced::news(&self.0, &container, &copy, &known)?;
                let base_identity = fresh.base.as_ref().map(|b| ops::order::offered(&self.0, &container, b)).transpose()?.flatten().map(|o| o.identity);
                let snapshot = fresh.snapshot.map(|s| ops::order::offered(&self.0, &container, &s)).transpose()?.flatten();
                Ok(Answer::Fresh { snapshot: snapshot.map(Box::new), base: fresh.base.map(|b| b.snapshot.name), base_identity })
            }
        }
    }

    /// Finds what the server that `token` belongs to wants to have.
    ///
    /// # Errors
    /// `insufficient_permissions`, `token_not_bound`, `container_not_found`, `snapshot_not_found`.
    pub fn offer_stream(&self, token: &Token, request: &StreamRequest) -> Result<OfferedStream> {
        self.check_peer_stream(token, request)?;
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
        Ok(OfferedStream { host: self.clone(), volume: volume(&request.snapshot)?, base })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for good in ["https://a.example:1", "https://10.0.0.1", "http://127.0.0.1:7878/", "http://localhost:1", "http://[::1]:7"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:1",
            "http://example:1",
            "ftp://127.0.0.1",
            "127.0.0.1:1",
            "https://",
            "https://a/b",
            "https://u@h",
            "https://a b",
            "http://127.0.0.1.evil:1",
        ] {
            assert_eq!(check_url(bad).unwrap_err().code(), Code::ValidationError, "{bad}");
        }
    }
}
