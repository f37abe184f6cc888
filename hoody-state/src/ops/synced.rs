//! The two sides of a sync: what the source has for a copy, and how that is brought to it.

use super::copied::{copy_snapshot, require_complete};
use super::persistence::persistently;
use super::received::{Source, identities, receive_snapshot};
use super::snapshot::take_within;
use super::snapshot_delete::delete_named;
use super::snapshot_row::free_name;
use super::{Claim, Held, Op, Want};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{NewSnapshot, Status, Trigger};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::services::peers::wrong_answer;
use crate::snapshot::Volume;
use crate::transfer::{Answer, Offered, PeerAddress, Request};
use crate::units::{Bytes, Generation, VolumeId};
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// The label of snapshots that syncs took, with the copy they were taken for.
pub(crate) const LABEL: &str = "hoody.sync";
/// How many of the copy's newest snapshots the source is asked about.
const ASKED_ABOUT: usize = 16;

/// What a sync is to bring.
pub(super) struct Advance {
    /// The snapshot of the source; nothing: the source as it is.
    pub to: Option<SnapshotName>,
    /// Bytes a second.
    pub limit: Option<Bytes>,
}

/// What a sync is to put in the place of the copy's live volume.
pub(super) struct Brought {
    /// The copy's snapshot that is as the source.
    pub name: SnapshotName,
    /// Whether that is another than before.
    pub changed: bool,
    /// The source's snapshot, where it is on this host.
    pub at: Option<VolumeId>,
}

/// What the source has for a copy.
pub(crate) struct News {
    /// To be brought over; nothing: nothing has changed.
    pub snapshot: Option<SnapshotRow>,
    /// The newest that both have.
    pub base: Option<SnapshotRow>,
}

/// Whether a copy's live state differs from the snapshot it grew from.
pub(super) fn has_own_changes(op: &Op, row: &ContainerRow) -> Result<bool> {
    let world = &op.world;
    let (Some(head), Some(synced)) = (&row.state.head, &row.state.synced) else { return Ok(true) };
    if head != synced {
        return Ok(true);
    }
    let base = Volume::Snapshot(row.id.clone(), head.clone());
    if world.store.info(&base)?.is_none() {
        return Ok(true);
    }
    let live = Volume::Live(row.id.clone());
    let made = world.store.info(&live)?.filter(|i| Some(i.id) == row.state.synced_live).map(|i| i.created);
    if made.is_some_and(|g| is_untouched(world, row, g).unwrap_or(false)) {
        return Ok(false);
    }
    if row.state.follows_databases && databases_changed(op, row, synced)? {
        return Ok(true);
    }
    let differs = differs_now(op, &base, &live, Volume::Next(row.id.clone()));
    world.upkeep.reclaim();
    differs
}

/// Whether the project's databases, which a sync would exchange, differ from those that came with the copy.
fn databases_changed(op: &Op, row: &ContainerRow, synced: &SnapshotName) -> Result<bool> {
    let world = &op.world;
    let Some(present) = world.databases.taken_along(row)? else { return Ok(false) };
    let base = Volume::SnapshotDatabases(row.id.clone(), synced.clone());
    if world.store.info(&base)?.is_none() {
        return Ok(true);
    }
    differs_now(op, &base, &present, Volume::NextDatabases(row.id.clone()))
}

/// Compares a snapshot with a volume as it is now, which is snapshotted as `probe` for that.
fn differs_now(op: &Op, base: &Volume, present: &Volume, probe: Volume) -> Result<bool> {
    let world = &op.world;
    world.store.delete(&probe)?;
    world.store.snapshot(present, &probe, &op.id)?;
    let differs = world.store.differs(base, &probe);
    let gone = world.store.delete(&probe)?;
    world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "what a sync compared"))?;
    differs
}

/// Whether a container that does not run has certainly not been written since a transaction: nobody can be writing it now, and what was written before shows
/// in its volume's generation once the pool's transaction has ended. `false` says nothing.
fn is_untouched(world: &World, row: &ContainerRow, since: Generation) -> Result<bool> {
    if !matches!(row.status, Status::Stopped | Status::Failed) || world.databases.taken_along(row)?.is_some() {
        return Ok(false);
    }
    let seems = || Ok::<_, Error>(world.store.info(&Volume::Live(row.id.clone()))?.is_some_and(|i| i.nested == 0 && i.generation <= since));
    if !seems()? {
        return Ok(false);
    }
    world.store.sync()?;
    seems()
}

/// On the source's host: the source's state as a snapshot of the copy.
pub(super) fn bring_local(op: &Op, row: &ContainerRow) -> Result<Brought> {
    let (world, id) = (&op.world, &row.id);
    let source = row.spec.source.clone().ok_or_else(|| Error::internal("a copy without a source"))?;
    let known = |s: &SnapshotRow| {
        let info = world.store.info(&Volume::Snapshot(source.clone(), s.snapshot.name.clone()))?;
        Ok(info.is_some_and(|i| Some(i.id) == row.state.at))
    };
    let news = persistently(op, || news(world, &source, id, &known))?;
    let here = match &row.state.synced {
        Some(s) if has_snapshot(world, id, s)? => Some(s.clone()),
        _ => None,
    };
    let new = match (news.snapshot, here) {
        (Some(new), _) => new,
        (None, Some(name)) => return Ok(Brought { name, changed: false, at: row.state.at }),
        // What it was brought up to was deleted here: it is copied once more.
        (None, None) => news.base.ok_or_else(|| Error::internal(format!("copy {id} has nothing in common with its source")))?,
    };
    op.step("copy")?;
    let name = world.read(|c| free_name(c, id, new.snapshot.name.clone()))?;
    let copied = copy_snapshot(op, 0, &source, id, &new, Some(&name))?;
    let mut copied = copied.ok_or_else(|| Error::new(Code::SnapshotNotFound, "the snapshot of the source was deleted meanwhile: sync again"))?;
    copied.snapshot.parent.clone_from(&row.state.head);
    copied.snapshot.alias = None;
    let at = world.store.info(&Volume::Snapshot(source.clone(), new.snapshot.name.clone()))?.map(|i| i.id);
    copied.snapshot.expires_at = None;
    world.write(Durability::Process, |tx| {
        tx.operation = Some(op.id.clone());
        tx.record_copied_snapshot(id, &copied, Some((&source, &new.snapshot.name)), None)?;
        tx.put_snapshot(id, &copied)
    })?;
    Ok(Brought { name, changed: true, at })
}

/// From a peer.
pub(super) fn bring_over(op: &Op, row: &ContainerRow, advance: Advance) -> Result<Brought> {
    let (world, id) = (&op.world, &row.id);
    let source = Source::of(world, row)?;
    let mut have = identities(world, id)?;
    let changed = |name: &SnapshotName| row.state.synced.as_ref() != Some(name);
    let (new, bases) = match advance.to {
        Some(name) => offered_as(op, id, &source, &name)?,
        None => match ask_for_news(op, row, &source, &have)? {
            Answered::News(new, bases) => (*new, bases),
            // Where nothing has changed the copy returns to what both have.
            Answered::Nothing(name) => return Ok(Brought { changed: changed(&name), name, at: None }),
        },
    };
    op.progress.total.store(new.bytes.0, Ordering::Relaxed);
    op.progress.begin_transfer();
    let name = world.read(|c| free_name(c, id, new.snapshot.name.clone()))?;
    let name = receive_snapshot(op, row, &source, &new, &bases, &mut have, advance.limit, Some(name))?;
    Ok(Brought { changed: changed(&name), name, at: None })
}

/// A snapshot of the source by its name, and all that the source has.
fn offered_as(op: &Op, id: &ContainerId, source: &Source, name: &SnapshotName) -> Result<(Offered, Vec<Offered>)> {
    let request = Request::Inventory { container: source.container.clone(), copy: id.clone() };
    let Answer::Inventory { snapshots } = persistently(op, || op.world.peers.ask(&source.peer, &request))? else { return Err(wrong_answer(&source.peer)) };
    let wanted = snapshots.iter().find(|o| o.snapshot.name == *name).cloned();
    let wanted = wanted.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {name} is not at server {}", source.peer.name)))?;
    Ok((wanted, snapshots))
}

enum Answered {
    /// What is new, and what it can be an increment on.
    News(Box<Offered>, Vec<Offered>),
    /// The copy's snapshot that is as the source.
    Nothing(SnapshotName),
}

fn ask_for_news(op: &Op, row: &ContainerRow, source: &Source, have: &[(SnapshotRow, Uuid)]) -> Result<Answered> {
    let (world, id, peer) = (&op.world, &row.id, &source.peer);
    let own_name = |u: Uuid| have.iter().find(|(_, x)| *x == u).map(|(r, _)| r.snapshot.name.clone());
    let synced = |r: &SnapshotRow| row.state.synced.as_ref() == Some(&r.snapshot.name);
    let asked: Vec<Uuid> = have.iter().enumerate().filter(|(n, (r, _))| *n < ASKED_ABOUT || synced(r)).map(|(_, (_, u))| *u).collect();
    let request = Request::Fresh { container: source.container.clone(), copy: id.clone(), have: asked };
    let ask = || world.peers.ask(peer, &request).map_err(|e| source_gone(e, peer));
    let Answer::Fresh { snapshot, base, base_identity } = persistently(op, ask)? else { return Err(wrong_answer(peer)) };
    let Some(new) = snapshot else {
        return base_identity.and_then(own_name).map(Answered::Nothing).ok_or_else(|| wrong_answer(peer));
    };
    let mut bases = Vec::new();
    if let (Some(name), Some(identity)) = (base, base_identity) {
        let mut o = (*new).clone();
        // All that is known of it, and needed: what it is called there, and that its databases, if any, are here too.
        let mine = own_name(identity).map(|n| Volume::SnapshotDatabases(id.clone(), n));
        let databases = mine.map(|v| world.store.identity(&v)).transpose()?.flatten();
        (o.snapshot.name, o.snapshot.parent, o.identity, o.databases) = (name, None, identity, databases);
        bases.push(o);
    }
    Ok(Answered::News(new, bases))
}

fn source_gone(e: Error, peer: &PeerAddress) -> Error {
    if e.code() == Code::ContainerNotFound {
        return Error::new(Code::SourceContainerNotFound, format!("the container that this is a copy of is no longer on server {}", peer.name));
    }
    e
}

/// Deletes what earlier syncs for `copy` took in container `id`, but for what is in use. At once: the next sync would meet a delete in the background.
pub(super) fn drop_older(world: &World, held: &Held, id: &ContainerId, copy: &ContainerId, newest: &SnapshotName, base: Option<&SnapshotName>) -> Result<()> {
    for name in taken_for(world, id, copy)?.iter().filter(|n| *n != newest && Some(*n) != base) {
        delete_named(world, held, id, name)?;
    }
    Ok(())
}

/// The snapshots of a container that were taken for a copy, and are not pinned.
pub(super) fn taken_for(world: &World, id: &ContainerId, copy: &ContainerId) -> Result<Vec<SnapshotName>> {
    let rows = world.read(|c| snapshots::all(c, id))?;
    let taken = |s: &SnapshotRow| s.snapshot.labels.get(LABEL).is_some_and(|l| l == copy.as_str()) && s.snapshot.pinned.is_none();
    Ok(rows.into_iter().filter(taken).map(|s| s.snapshot.name).collect())
}

/// The source's side: its state as a snapshot for `copy`, unless nothing has changed since the newest that `known` says the copy has. Earlier ones that were
/// taken for this copy are deleted.
pub(crate) fn news(world: &World, source: &ContainerId, copy: &ContainerId, known: &dyn Fn(&SnapshotRow) -> Result<bool>) -> Result<News> {
    let caller = Caller { by: "sync".into(), ..Caller::default() };
    let held = world.engine.lock(&caller, Claim::short("snapshot.create", vec![Want::container(source)]))?;
    let row = world.read(|c| containers::get(c, source))?;
    require_complete(&row)?;
    let mut base = None;
    for s in world.read(|c| snapshots::all(c, source))? {
        if known(&s)? {
            base = Some(s);
            break;
        }
    }
    if let Some(b) = &base
        && is_untouched(world, &row, b.generation)?
    {
        return Ok(News { snapshot: None, base });
    }
    let new = NewSnapshot {
        description: Some(format!("taken to bring copy {copy} up to date; deleted by the next sync")),
        labels: Some(BTreeMap::from([(LABEL.to_owned(), copy.to_string())])),
        ..Default::default()
    };
    let name = take_within(world, &caller, held.clone(), source, new, Trigger::Copy)?.snapshot.name;
    let taken = world.read(|c| snapshots::get(c, source, name.as_str()))?;
    let same = match &base {
        Some(b) => !snapshots_differ(world, source, &b.snapshot.name, &name)?,
        None => false,
    };
    if same {
        delete_named(world, &held, source, &name)?;
    }
    let newest = base.as_ref().filter(|_| same).map_or(&name, |b| &b.snapshot.name);
    drop_older(world, &held, source, copy, newest, base.as_ref().map(|b| &b.snapshot.name))?;
    Ok(News { snapshot: (!same).then_some(taken), base })
}

pub(super) fn snapshots_differ(world: &World, id: &ContainerId, base: &SnapshotName, new: &SnapshotName) -> Result<bool> {
    let volumes = |n: &SnapshotName| (Volume::Snapshot(id.clone(), n.clone()), Volume::SnapshotDatabases(id.clone(), n.clone()));
    let ((a, a_databases), (b, b_databases)) = (volumes(base), volumes(new));
    let exists = |v: &Volume| world.store.info(v).map(|i| i.is_some());
    Ok(match (exists(&a_databases)?, exists(&b_databases)?) {
        (true, true) => world.store.differs(&a_databases, &b_databases)?,
        (x, y) => x != y,
    } || world.store.differs(&a, &b)?)
}

/// Whether a container has a snapshot of this name.
fn has_snapshot(world: &World, id: &ContainerId, name: &SnapshotName) -> Result<bool> {
    world.read(|c| Ok(snapshots::by_name(c, id, name.as_str())?.is_some()))
}
