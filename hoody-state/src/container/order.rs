//! The source's side of a copy to another server: the order, and what it offers.

use super::copy::copy_name;
use super::receive::wrong_answer;
use crate::catalog::containers::ContainerRow;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, projects};
use crate::error::{Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, ServerId};
use crate::model::{Container, CopyRequest, CopyState};
use crate::name::SnapshotName;
use crate::snapshot::Volume;
use crate::transfer::{Answer, CopyOrder, Offered, PeerAddress, Request};
use crate::units::Bytes;

impl Host {
    /// Orders a copy from a peer.
    pub(super) fn copy_to_peer(&self, caller: &Caller, id: &ContainerId, server: &str, request: &CopyRequest) -> Result<Container> {
        let server: ServerId = server.parse()?;
        let peer = self.peer_of(&server)?;
        let source = self.copyable(id)?;
        let project = match request.target_project_id.as_deref() {
            Some(p) => p.parse()?,
            None => return Err(Error::invalid("validation_error", "target_project_id is missing: say which project the copy belongs to")),
        };
        let name = copy_name(request.name.as_deref())?;
        super::validate::text("ssh_public_key", request.ssh_public_key.as_deref(), 16_384)?;
        // A key makes the copy's id, so that the same request again is the same order.
        let copy = match &caller.idempotency {
            Some(k) => {
                let digits: String = k.fingerprint.iter().chain(k.key.as_bytes()).fold(String::new(), |s, b| s + &format!("{b:02x}"));
                use sha2::{Digest, Sha256};
                let hash = Sha256::digest(format!("{}{digits}", k.scope));
                hash[..12].iter().fold(String::new(), |s, b| s + &format!("{b:02x}")).parse()?
            }
            None => ContainerId::generate(),
        };
        let snapshot = self.copy_base(caller, id, request.source_snapshot.as_deref(), &format!("taken to copy it to {name} on server {}", peer.name), None)?;
        let order = self.order(
            &source,
            copy,
            snapshot.snapshot.name,
            project,
            name,
            request.ssh_public_key.clone(),
            request.start.unwrap_or(true),
            request.rate_limit,
        )?;
        let state = self.place_order(&peer, &server, order)?;
        self.change(caller, |_| Ok(state.container.clone()))
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn order(
        &self,
        source: &ContainerRow,
        copy: ContainerId,
        snapshot: SnapshotName,
        project: crate::id::ProjectId,
        name: crate::name::ContainerName,
        ssh_public_key: Option<String>,
        start: bool,
        rate_limit: Option<Bytes>,
    ) -> Result<CopyOrder> {
        let known = self.0.catalog.read(|c| match projects::get(c, self.0.catalog.user(), &project) {
            Ok(p) => Ok(Some((p.alias, p.color))),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        })?;
        Ok(CopyOrder {
            copy,
            server: self.0.server.id.clone(),
            source: source.id.clone(),
            snapshot,
            project,
            project_alias: known,
            name,
            ssh_public_key,
            spec: source.spec.clone(),
            start,
            rate_limit,
        })
    }

    pub(super) fn place_order(&self, peer: &PeerAddress, server: &ServerId, order: CopyOrder) -> Result<CopyState> {
        let Answer::Hello { id_base, version, server: who } = self.ask(peer, &Request::Hello {})? else { return Err(wrong_answer(peer)) };
        if who.id != *server {
            let message = format!("what answers at {} is server {}, not {server}: make the peer known anew", peer.url, who.id);
            return Err(Error::new(crate::Kind::Unavailable, "peer_refused", message));
        }
        if version != crate::transfer::VERSION {
            return Err(wrong_answer(peer));
        }
        if id_base != self.0.id_base {
            let message = format!(
                "server {} gives its containers the ids from {id_base} on, this one from {}: files would have other owners there",
                peer.name, self.0.id_base
            );
            return Err(Error::conflict("id_base_differs", message));
        }
        let (copy, project) = (order.copy.clone(), order.project.clone());
        // Where it is shall be known even if the answer is lost.
        self.write(Durability::Disk, |tx| tx.put_copy_elsewhere(&copy, server, &project))?;
        match self.ask(peer, &Request::Copy(Box::new(order)))? {
            Answer::Copy(state) => Ok(*state),
            _ => Err(wrong_answer(peer)),
        }
    }

    /// What a snapshot is to a peer.
    pub(crate) fn offered(&self, id: &ContainerId, s: &SnapshotRow) -> Result<Option<Offered>> {
        let volume = Volume::Snapshot(id.clone(), s.snapshot.name.clone());
        let Some(identity) = self.0.store.identity(&volume)? else { return Ok(None) };
        let databases = self.0.store.identity(&Volume::SnapshotDatabases(id.clone(), s.snapshot.name.clone()))?;
        // The first one brings the image along.
        let bytes = if s.snapshot.parent.is_some() { s.snapshot.size } else { self.0.store.delta(&volume, None)? };
        Ok(Some(Offered { snapshot: s.snapshot.clone(), identity, databases, bytes }))
    }
}
