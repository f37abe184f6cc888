//! The source's side of a copy to another server: the order, and what it offers.

use super::copy::copy_name;
use super::moving::unclear;
use super::receive::wrong_answer;
use crate::catalog::containers::ContainerRow;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, projects, snapshots};
use crate::error::{Code, Error, Result};
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
            None => return Err(Error::new(Code::ValidationError, "target_project_id is missing: say which project the copy belongs to")),
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
        let named = request.source_snapshot.as_deref();
        if let Some(named) = named {
            self.0.catalog.read(|c| snapshots::get(c, id, named))?;
        }
        let start = request.start.unwrap_or(true);
        let mut order = self.order(&source, copy, project, name.clone(), request.ssh_public_key.clone(), start, request.rate_limit)?;
        // Whatever the peer refuses, it refuses before anything is changed here. The same order again has its copy already.
        let made = self.check_order(&peer, &server, order.clone())?;
        let state = match made {
            Some(state) => state,
            None => {
                let base = self.copy_base(caller, id, named, &format!("taken to copy it to {name} on server {}", peer.name), None)?;
                order.snapshot = base.snapshot.name.clone();
                let placed = self.place_order(&peer, &server, order);
                if placed.as_ref().is_err_and(|e| !unclear(e)) && named.is_none() {
                    // Refused all the same: something there has changed since it was asked.
                    self.drop_taken(id, &base.snapshot.name);
                }
                placed?
            }
        };
        self.change(caller, |_| Ok(state.container.clone()))
    }

    /// Deletes a snapshot that was taken for a copy which then was refused.
    pub(super) fn drop_taken(&self, id: &ContainerId, name: &SnapshotName) {
        if let Err(e) = self.delete_snapshot(&Caller { by: "copy".into(), ..Caller::default() }, id, name.as_str()) {
            tracing::warn!(container = %id, snapshot = %name, error = %e, "a snapshot that was taken for a copy stays");
        }
    }

    /// What is asked of a peer, but for the snapshot that it begins from: that is taken once the peer has said that it would.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn order(
        &self,
        source: &ContainerRow,
        copy: ContainerId,
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
            snapshot: SnapshotName::canonical(None, self.0.clock.now()),
            project,
            project_alias: known,
            name,
            ssh_public_key,
            spec: source.spec.clone(),
            start,
            rate_limit,
            handover: None,
        })
    }

    /// Asks a peer whether it would take an order; the copy, if it has taken this very one before.
    pub(super) fn check_order(&self, peer: &PeerAddress, server: &ServerId, order: CopyOrder) -> Result<Option<CopyState>> {
        let Answer::Hello { id_base, version, server: who } = self.ask(peer, &self.hello())? else { return Err(wrong_answer(peer)) };
        if who.id != *server {
            let message = format!("what answers at {} is server {}, not {server}: make the peer known anew", peer.url, who.id);
            return Err(Error::new(crate::Code::PeerRefused, message));
        }
        if version != crate::transfer::VERSION {
            return Err(wrong_answer(peer));
        }
        if id_base != self.0.id_base {
            let message = format!(
                "server {} gives its containers the ids from {id_base} on, this one from {}: files would have other owners there",
                peer.name, self.0.id_base
            );
            return Err(Error::new(Code::IdBaseDiffers, message));
        }
        match self.ask(peer, &Request::CheckCopy(Box::new(order)))? {
            Answer::Possible {} => Ok(None),
            Answer::Copy(state) => Ok(Some(*state)),
            _ => Err(wrong_answer(peer)),
        }
    }

    pub(super) fn place_order(&self, peer: &PeerAddress, server: &ServerId, order: CopyOrder) -> Result<CopyState> {
        let (copy, source, project) = (order.copy.clone(), order.source.clone(), order.project.clone());
        // Where it is shall be known even if the answer is lost, and the peer may read the source from here on.
        self.write(Durability::Disk, |tx| tx.put_copy_elsewhere(&copy, &source, server, &project))?;
        match self.ask(peer, &Request::Copy(Box::new(order))) {
            Ok(Answer::Copy(state)) => Ok(*state),
            Ok(_) => Err(wrong_answer(peer)),
            Err(e) => {
                if !unclear(&e) {
                    self.write(Durability::Disk, |tx| tx.remove_copy_elsewhere(&copy))?;
                }
                Err(e)
            }
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
