//! Copies a container on this host: a clone of a snapshot, with all the snapshots of the container it comes from.
//!
//! The live volume is cloned first, by one call, and the copy exists from then on. Its snapshots are cloned in the background, a call each and no data. A
//! copy that was cut short is run on by the next start: every step may be repeated.

use super::copied::{copy_row, copy_snapshot, copyable, finish_copy, is_staging_of, target};
use super::copy_base::{base, drop_taken};
use super::create::{created, joining};
use super::observed::{drop_unlisted, note_failed, undo_unmade};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::history::{self, Entry, Parent};
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, RunId};
use crate::model::{Container, CopiedIdentity, CopyRequest, NodeKind};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Snapshots that are cloned between two writes to the catalog.
const AT_ONCE: usize = 64;
/// They share the transactions of the pool, which are what each waits for.
pub(super) const THREADS: usize = 4;
/// Days after which the snapshot that a copy of the live state began from is deleted at the source. The copy has its own.
pub(super) const TAKEN_FOR_COPY_DAYS: u32 = 1;

/// The intent. From when the live volume exists the caller may know the copy's id: then it is finished, before that it is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub container: ContainerId,
    pub source: ContainerId,
    pub snapshot: SnapshotName,
    pub run: RunId,
    pub start: bool,
    /// Whether it is one of several copies that were asked for at once.
    #[serde(default)]
    pub fork: bool,
}

impl Operation for Copy {
    type World = World;
    type Answer = Container;
    const TAG: &'static str = "copy";
    const ACKNOWLEDGES: bool = true;

    fn kind(&self) -> &'static str {
        "container.copy"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("container.copy", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<Container> {
        if !self.exists(&op.world)? {
            self.clone_live(op)?;
        }
        self.note_cloned(&op.world, &op.id)?;
        op.step("snapshots")?;
        self.copy_snapshots(op)?;
        finish_copy(op, &self.container, &self.snapshot, &self.run, self.start)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        if !self.exists(world)? {
            return undo_unmade(r, id);
        }
        let error = r.error.ok_or_else(|| Error::internal("a copy that exists is run on"))?;
        world.runtime.kill(id)?;
        for v in world.store.list(None)? {
            if matches!(&v, Volume::Staging(s) if is_staging_of(r.id, s)) {
                world.store.delete(&v)?;
            }
        }
        let gone = drop_unlisted(world, id)?;
        r.undone(|tx| {
            tx.add_reclaim(&gone, "what was copied in part")?;
            note_failed(tx, id, error.message())
        })?;
        world.upkeep.reclaim();
        Ok(())
    }

    fn continues(&self, world: &World) -> Result<bool> {
        self.exists(world)
    }
}

impl Copy {
    fn exists(&self, world: &World) -> Result<bool> {
        Ok(world.store.info(&Volume::Live(self.container.clone()))?.is_some())
    }

    fn clone_live(&self, op: &mut Op) -> Result<()> {
        let world = op.world.clone();
        let (id, source, snapshot) = (&self.container, &self.source, &self.snapshot);
        op.step("home")?;
        world.store.create_home(id)?;
        world.limits.apply_to(id)?;
        op.step("clone")?;
        let from = Volume::Snapshot(source.clone(), snapshot.clone());
        world.roots.create(id, &from, &op.id).map_err(|e| match e.code() {
            Code::VolumeNotFound => Error::new(Code::SnapshotNotFound, format!("snapshot {snapshot} of container {source} was deleted meanwhile")),
            _ => e,
        })?;
        let identity = self.own_identity(&world)?;
        // The clone is on the disk, and recovery goes by that: this need not be.
        let made = self.cloned(&world)?;
        op.acknowledge(|tx| {
            made(tx)?;
            if identity.is_some() {
                tx.change_container(id, "copy", None, |r| r.state.identity = identity)?;
            }
            world.view.container(tx.conn, &containers::get(tx.conn, id)?)
        })
    }

    /// Gives a copy that is about to boot an identity of its own, so that the answer can say so. If it fails, the start tries again.
    fn own_identity(&self, world: &World) -> Result<Option<CopiedIdentity>> {
        let row = world.read(|c| containers::get(c, &self.container))?;
        let Some(root) = world.roots.mount(&self.container)?.filter(|_| self.start) else { return Ok(None) };
        Ok(world.starter.renew(&row, &root).unwrap_or_else(|e| {
            tracing::warn!(container = %self.container, error = %e, "this copy has no identity of its own yet");
            None
        }))
    }

    /// Writes down that the live volume exists.
    #[allow(clippy::type_complexity)]
    fn cloned(&self, world: &World) -> Result<impl Fn(&mut Tx<'_>) -> Result<()> + use<'_>> {
        let id = &self.container;
        let made = world.store.info(&Volume::Live(id.clone()))?.ok_or_else(|| Error::internal(format!("copy {id} has no live volume")))?.created;
        let at = world.store.info(&Volume::Snapshot(self.source.clone(), self.snapshot.clone()))?.map(|i| i.id);
        Ok(move |tx: &mut Tx<'_>| {
            tx.change_container(id, "copy", None, |r| {
                r.state.origin = made;
                r.state.partial = false;
                r.state.at = at;
            })?;
            let kind = if self.fork { NodeKind::Fork } else { NodeKind::Copy };
            let (from, source) = (&self.source, &self.snapshot);
            let entry = Entry::new(kind, id).from(Parent::Snapshot(from, source)).source(history::source(None, None, from, Some(source)));
            tx.record_origin(&entry)
        })
    }

    /// What was written down after the clone may have been lost to a power cut.
    fn note_cloned(&self, world: &World, op: &OperationId) -> Result<()> {
        if !world.read(|c| containers::get(c, &self.container))?.state.partial {
            return Ok(());
        }
        let made = self.cloned(world)?;
        world.write(Durability::Process, |tx| {
            tx.operation = Some(op.clone());
            made(tx)
        })
    }

    fn copy_snapshots(&self, op: &Op) -> Result<()> {
        let world = &op.world;
        let (source, id) = (&self.source, &self.container);
        let (theirs, ours) = world.read(|c| Ok((snapshots::all(c, source)?, snapshots::all(c, id)?)))?;
        let mut have: BTreeSet<SnapshotName> = ours.into_iter().map(|s| s.snapshot.name).collect();
        let missing: Vec<SnapshotRow> = theirs.into_iter().rev().filter(|s| !have.contains(&s.snapshot.name)).collect();
        op.progress.total.store(missing.len() as u64, Ordering::Relaxed);
        for (n, some) in missing.chunks(AT_ONCE).enumerate() {
            op.step("snapshot")?;
            let rows = self.copy_some(op, n * AT_ONCE, some)?;
            have.extend(rows.iter().map(|r| r.snapshot.name.clone()));
            world.write(Durability::Process, |tx| {
                for mut row in rows {
                    row.snapshot.parent = row.snapshot.parent.filter(|p| have.contains(p));
                    if row.snapshot.name == self.snapshot {
                        // The copy is measured by it, whatever becomes of it at the source.
                        row.snapshot.expires_at = None;
                    }
                    tx.operation = Some(op.id.clone());
                    tx.record_copied_snapshot(id, &row, Some((source, &row.snapshot.name)), None)?;
                    tx.put_snapshot(id, &row)?;
                }
                Ok(())
            })?;
            op.progress.done.fetch_add(some.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn copy_some(&self, op: &Op, first: usize, some: &[SnapshotRow]) -> Result<Vec<SnapshotRow>> {
        let next = AtomicUsize::new(0);
        let copied = Mutex::new(BTreeMap::new());
        let work = || -> Result<()> {
            while let Some((i, s)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| some.get(i).map(|s| (i, s))) {
                if let Some(row) = copy_snapshot(op, first + i, &self.source, &self.container, s, None)? {
                    copied.lock().unwrap_or_else(PoisonError::into_inner).insert(i, row);
                }
            }
            Ok(())
        };
        std::thread::scope(|s| {
            let others: Vec<_> = (1..THREADS.min(some.len())).filter_map(|_| std::thread::Builder::new().spawn_scoped(s, work).ok()).collect();
            let own = work();
            others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::internal("a thread of the copy panicked")))).fold(own, Result::and)
        })?;
        Ok(copied.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
    }
}

/// See [`crate::Host::copy_container`].
pub(crate) fn copy(world: &World, caller: &Caller, id: &ContainerId, request: CopyRequest) -> Result<Container> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    if let Some(server) = request.target_server_id.as_deref()
        && server != world.server.id.as_str()
    {
        return super::order::copy_to_peer(world, caller, id, server, &request);
    }
    let source = copyable(world, id)?;
    let (project, name) = target(&request)?;
    let start = request.start.unwrap_or(true);
    let row = copy_row(world, &source, project, name.clone(), request.ssh_public_key, start, request.new_identity.unwrap_or(true));
    could_be_made(world, caller, &row)?;
    let named = request.source_snapshot.as_deref();
    let snapshot = base(world, caller, id, named, &format!("taken to copy it to {name}"), Some(TAKEN_FOR_COPY_DAYS))?;
    clone_container(world, caller, row, &snapshot, start, false).inspect_err(|e| {
        // Something has changed since it was asked.
        if named.is_none() && e.code() != Code::Crashed {
            drop_taken(world, id, &snapshot.snapshot.name);
        }
    })
}

/// Refuses a copy that could not be made, before anything is changed for it.
pub(super) fn could_be_made(world: &World, caller: &Caller, row: &ContainerRow) -> Result<()> {
    super::room::check_in(world, caller, &row.project)?;
    world.engine.would(|tx| {
        world.limits.check_count(tx.conn, &row.project)?;
        tx.insert_container(row, "copy")
    })
}

pub(super) fn clone_container(world: &World, caller: &Caller, row: ContainerRow, snapshot: &SnapshotRow, start: bool, fork: bool) -> Result<Container> {
    super::room::check_in(world, caller, &row.project)?;
    let id = row.id.clone();
    let source = row.spec.source.clone().ok_or_else(|| Error::internal("a copy without a source"))?;
    let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
    let intent = Copy { container: id.clone(), source, snapshot: snapshot.snapshot.name.clone(), run, start, fork };
    let held = world.engine.lock(caller, intent.claim())?;
    let joining = world.engine.lock(caller, joining("container.copy", &row.project))?;
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        world.limits.check_count(tx.conn, &row.project)?;
        tx.insert_container(&row, &caller.by)
    })?;
    drop(joining);
    world.policies.ring();
    created(world, &id, begun, caller)
}
