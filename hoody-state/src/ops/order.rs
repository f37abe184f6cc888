//! Orders a copy from a peer, on the server that has the source.

use super::copied::{copyable, target};
use super::copy_base::{base, drop_taken};
use super::persistence::is_unclear;
use crate::catalog::containers::ContainerRow;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, projects, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId, ServerId};
use crate::model::{Container, CopiedIdentity, CopyRequest, CopyState};
use crate::name::{ContainerName, SnapshotName};
use crate::op::Caller;
use crate::services::peers::wrong_answer;
use crate::snapshot::Volume;
use crate::transfer::{Answer, CopyOrder, Offered, PeerAddress, Request};
use crate::units::Bytes;
use crate::world::World;

/// Orders a copy from a peer.
pub(super) fn copy_to_peer(world: &World, caller: &Caller, id: &ContainerId, server: &str, request: &CopyRequest) -> Result<Container> {
    let server: ServerId = server.parse()?;
    let peer = world.peers.address_of(&server)?;
    let source = copyable(world, id)?;
    let (project, name) = target(request)?;
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
        world.read(|c| snapshots::get(c, id, named))?;
    }
    let start = request.start.unwrap_or(true);
    let mut order = order(world, &source, copy, project, name.clone(), request.ssh_public_key.clone(), start, request.rate_limit)?;
    order.identity = request.new_identity.unwrap_or(true).then(CopiedIdentity::default);
    // Whatever the peer refuses, it refuses before anything is changed here. The same order again has its copy already.
    let made = check_order(world, &peer, &server, order.clone())?;
    let state = match made {
        Some(state) => state,
        None => {
            let base = base(world, caller, id, named, &format!("taken to copy it to {name} on server {}", peer.name), None)?;
            order.snapshot = base.snapshot.name.clone();
            let placed = place_order(world, &peer, &server, order);
            if placed.as_ref().is_err_and(|e| !is_unclear(e)) && named.is_none() {
                // Refused all the same: something there has changed since it was asked.
                drop_taken(world, id, &base.snapshot.name);
            }
            placed?
        }
    };
    world.engine.change(caller, |_| Ok(state.container.clone()))
}

/// What is asked of a peer, but for the snapshot that it begins from: that is taken once the peer has said that it would.
#[allow(clippy::too_many_arguments)]
pub(super) fn order(
    world: &World,
    source: &ContainerRow,
    copy: ContainerId,
    project: ProjectId,
    name: ContainerName,
    ssh_public_key: Option<String>,
    start: bool,
    rate_limit: Option<Bytes>,
) -> Result<CopyOrder> {
    let known = world.read(|c| match projects::get(c, world.catalog.user(), &project) {
        Ok(p) => Ok(Some((p.alias, p.color))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    })?;
    Ok(CopyOrder {
        copy,
        server: world.server.id.clone(),
        source: source.id.clone(),
        snapshot: SnapshotName::canonical(None, world.now()),
        project,
        project_alias: known,
        name,
        ssh_public_key,
        spec: source.spec.clone().into(),
        start,
        rate_limit,
        handover: None,
        identity: None,
    })
}

/// Asks a peer whether it would take an order; the copy, if it has taken this very one before.
pub(super) fn check_order(world: &World, peer: &PeerAddress, server: &ServerId, order: CopyOrder) -> Result<Option<CopyState>> {
    let Answer::Hello { id_base, version, server: who } = world.peers.ask(peer, &world.peers.hello())? else { return Err(wrong_answer(peer)) };
    if who.id != *server {
        let message = format!("what answers at {} is server {}, not {server}: make the peer known anew", peer.url, who.id);
        return Err(Error::new(crate::Code::PeerRefused, message));
    }
    if version != crate::transfer::VERSION {
        return Err(wrong_answer(peer));
    }
    if id_base != world.id_base {
        let message = format!(
            "server {} gives its containers the ids from {id_base} on, this one from {}: files would have other owners there",
            peer.name, world.id_base
        );
        return Err(Error::new(Code::IdBaseDiffers, message));
    }
    match world.peers.ask(peer, &Request::CheckCopy(Box::new(order)))? {
        Answer::Possible {} => Ok(None),
        Answer::Copy(state) => Ok(Some(*state)),
        _ => Err(wrong_answer(peer)),
    }
}

pub(super) fn place_order(world: &World, peer: &PeerAddress, server: &ServerId, order: CopyOrder) -> Result<CopyState> {
    let (copy, source, project) = (order.copy.clone(), order.source.clone(), order.project.clone());
    // Where it is shall be known even if the answer is lost, and the peer may read the source from here on.
    world.write(Durability::Disk, |tx| tx.put_copy_elsewhere(&copy, &source, server, &project))?;
    match world.peers.ask(peer, &Request::Copy(Box::new(order))) {
        Ok(Answer::Copy(state)) => Ok(*state),
        Ok(_) => Err(wrong_answer(peer)),
        Err(e) => {
            if !is_unclear(&e) {
                world.write(Durability::Disk, |tx| tx.remove_copy_elsewhere(&copy))?;
            }
            Err(e)
        }
    }
}

/// What a snapshot is to a peer.
pub(crate) fn offered(world: &World, id: &ContainerId, s: &SnapshotRow) -> Result<Option<Offered>> {
    let volume = Volume::Snapshot(id.clone(), s.snapshot.name.clone());
    let Some(identity) = world.store.identity(&volume)? else { return Ok(None) };
    let databases = world.store.identity(&Volume::SnapshotDatabases(id.clone(), s.snapshot.name.clone()))?;
    // The first one brings the image along.
    let bytes = if s.snapshot.parent.is_some() { s.snapshot.size } else { world.store.delta(&volume, None)? };
    Ok(Some(Offered { snapshot: s.snapshot.clone(), identity, databases, bytes }))
}
