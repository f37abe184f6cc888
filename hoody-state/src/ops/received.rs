//! Receives one snapshot from a peer, through cuts: for copies and syncs.

use super::Op;
use super::persistence::persistently;
use super::snapshot_row::{copied_trigger, free_name};
use crate::catalog::Durability;
use crate::catalog::containers::ContainerRow;
use crate::catalog::history;
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::name::SnapshotName;
use crate::snapshot::Volume;
use crate::transfer::{Meter, Offered, PeerAddress, StreamRequest, decompressed};
use crate::units::{Bytes, Generation};
use crate::world::World;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Where a copy comes from.
pub(super) struct Source {
    pub container: ContainerId,
    pub peer: PeerAddress,
}

impl Source {
    /// The container a copy was made of, and the peer that has it.
    pub(super) fn of(world: &World, row: &ContainerRow) -> Result<Self> {
        let (Some(container), Some(server)) = (row.spec.source.clone(), row.spec.origin.clone()) else {
            return Err(Error::internal(format!("container {} was not copied from a peer", row.id)));
        };
        Ok(Source { container, peer: world.peers.address_of(&server)? })
    }
}

/// The snapshots that a container has, newest first, by identity.
pub(crate) fn identities(world: &World, id: &ContainerId) -> Result<Vec<(SnapshotRow, Uuid)>> {
    let rows = world.read(|c| snapshots::all(c, id))?;
    let mut out = Vec::new();
    for r in rows {
        if let Some(u) = world.store.identity(&Volume::Snapshot(id.clone(), r.snapshot.name.clone()))? {
            out.push((r, u));
        }
    }
    Ok(out)
}

/// Which of a snapshot's bases have been given up.
#[derive(Default)]
struct Bases {
    lost: Vec<Uuid>,
    /// No increment can be applied: the complete snapshot is sent.
    none: bool,
}

/// Receives one snapshot, if it is not here yet; the name it has here. `have`: what is here, which grows by it. `name`: what it is to be called, if not as there.
#[allow(clippy::too_many_arguments)]
pub(super) fn receive_snapshot(
    op: &Op,
    row: &ContainerRow,
    source: &Source,
    o: &Offered,
    offered: &[Offered],
    have: &mut Vec<(SnapshotRow, Uuid)>,
    limit: Option<Bytes>,
    name: Option<SnapshotName>,
) -> Result<SnapshotName> {
    let (world, id) = (&op.world, &row.id);
    if let Some((r, _)) = have.iter().find(|(_, u)| *u == o.identity) {
        return Ok(r.snapshot.name.clone());
    }
    op.step("receive")?;
    // One that was made anew at the source has the name of another here.
    let name = match name {
        Some(n) => n,
        None => world.read(|c| free_name(c, id, o.snapshot.name.clone()))?,
    };
    // What it grew from is nearest to it; else the newest that both have.
    let parent = o.snapshot.parent.as_ref().and_then(|p| offered.iter().find(|x| x.snapshot.name == *p));
    let own = |x: &Offered| have.iter().find(|(_, u)| *u == x.identity).map(|(r, _)| r.snapshot.name.clone());
    let mut bases = Bases::default();
    loop {
        let common = |x: &&Offered| !bases.none && have.iter().any(|(_, u)| *u == x.identity) && !bases.lost.contains(&x.identity);
        let base = parent.filter(common).or_else(|| offered.iter().rev().find(common));
        let base_here = base.and_then(own);
        match (receive_volumes(op, id, source, o, base, base_here, &name, limit), base) {
            // It was deleted at the source, or here: the next nearest will do.
            (Err(e), Some(b)) if e.code() == Code::BaseMissing => bases.lost.push(b.identity),
            // An increment that cannot be applied must not keep the copy from its source for ever: the complete snapshot needs no base.
            (Err(e), Some(_)) if matches!(e.code(), Code::StreamRefused | Code::StreamCorrupt) => {
                tracing::warn!(operation = %op.id, snapshot = %o.snapshot.name, error = %e, "an increment cannot be applied: the complete snapshot is sent");
                bases.none = true;
            }
            (r, _) => break r?,
        }
    }
    op.step("list")?;
    let to = Volume::Snapshot(id.clone(), name.clone());
    let info = world.store.info(&to)?.ok_or_else(|| Error::internal(format!("{to} does not exist")))?;
    let mut new = SnapshotRow { snapshot: o.snapshot.clone(), generation: Generation(info.created.0) };
    new.snapshot.name.clone_from(&name);
    new.snapshot.last_used_at = None;
    new.snapshot.pinned = None;
    // What is moved here goes on here: so do its schedules.
    if row.state.handover.is_none() {
        new.snapshot.trigger = copied_trigger(new.snapshot.trigger);
    }
    new.snapshot.parent = parent.and_then(own);
    world.write(Durability::Process, |tx| {
        // Its alias may be another's here by now.
        if let Some(a) = &new.snapshot.alias
            && snapshots::showing(tx.conn, id, a.as_str())?.is_some()
        {
            new.snapshot.alias = None;
        }
        tx.operation = Some(op.id.clone());
        let from = history::source(row.spec.origin.as_ref(), Some(&source.peer.name), &source.container, Some(&o.snapshot.name));
        tx.record_copied_snapshot(id, &new, None, Some(from))?;
        tx.put_snapshot(id, &new)
    })?;
    have.push((new, o.identity));
    Ok(name)
}

/// A snapshot's volumes: its databases, if it has any, and then itself.
#[allow(clippy::too_many_arguments)]
fn receive_volumes(
    op: &Op,
    id: &ContainerId,
    source: &Source,
    o: &Offered,
    base: Option<&Offered>,
    base_here: Option<SnapshotName>,
    name: &SnapshotName,
    limit: Option<Bytes>,
) -> Result<()> {
    let request = |databases, base: Option<&Offered>| StreamRequest {
        container: source.container.clone(),
        copy: id.clone(),
        snapshot: o.snapshot.name.clone(),
        databases,
        base: base.map(|b| b.snapshot.name.clone()),
    };
    if o.databases.is_some() {
        let to = Volume::SnapshotDatabases(id.clone(), name.clone());
        let base = base.filter(|b| b.databases.is_some());
        let base_here = base.and(base_here.clone()).map(|n| Volume::SnapshotDatabases(id.clone(), n));
        receive_volume(op, &source.peer, &request(true, base), &to, base_here.as_ref(), o.databases, limit)?;
    }
    let to = Volume::Snapshot(id.clone(), name.clone());
    let base_here = base_here.map(|n| Volume::Snapshot(id.clone(), n));
    receive_volume(op, &source.peer, &request(false, base), &to, base_here.as_ref(), Some(o.identity), limit)
}

/// One volume, through cuts.
fn receive_volume(
    op: &Op,
    peer: &PeerAddress,
    request: &StreamRequest,
    to: &Volume,
    base: Option<&Volume>,
    identity: Option<Uuid>,
    limit: Option<Bytes>,
) -> Result<()> {
    let world = &op.world;
    let transport = world.peers.transport()?;
    // What is here without being in the list was received before a crash.
    if world.store.info(to)?.is_some() {
        if world.store.identity(to)? == identity {
            return Ok(());
        }
        world.store.delete(to)?;
    }
    persistently(op, || {
        let (input, progress) = (transport.stream(peer, request)?, Arc::clone(&op.progress));
        let metered = Meter::new(input, Arc::clone(&progress), limit.map(|l| l.0));
        let mut plain = decompressed(metered, progress)?;
        let before = op.progress.done.load(Ordering::Relaxed);
        let received = world.store.receive(to, base, &op.id, &mut plain).and_then(|info| {
            // The checksum of the compressed stream comes at its very end, and a peer that goes on after that may do so for ever.
            match plain.read(&mut [0]) {
                Ok(0) => Ok(info),
                _ => Err(Error::new(Code::StreamCorrupt, "the stream from the other server does not end where it should")),
            }
        });
        let received = match received {
            Ok(_) if world.store.identity(to)? == identity => return Ok(()),
            Ok(_) => Err(Error::new(Code::StreamCorrupt, "what was received is not what was announced")),
            Err(e) => Err(e),
        };
        op.progress.done.store(before, Ordering::Relaxed);
        world.store.delete(&Volume::Staging(op.id.clone()))?;
        world.store.delete(to)?;
        received
    })
}
