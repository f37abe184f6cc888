//! Compares a snapshot with another, or with the present state of a container.
//!
//! Two snapshots are only read, unless rows of databases are counted, which copies these. For the present state a temporary snapshot is made, which is what the journal is for: it is in no list, is deleted as soon as
//! the records are known, and a crash leaves the deletion to recovery. No lock is taken: other operations on the container go on.

use super::copied::staging_of;
use super::diff_databases::{self, Candidates, Counted, Side};
use super::{Begun, Claim, Op, Operation, Recovery};
use crate::catalog::containers::ContainerRow;
use crate::catalog::{Durability, containers, snapshots};
use crate::diff::options::{Compared, Options, Sink};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::services::databases::DATABASES;
use crate::snapshot::{Volume, VolumePair};
use crate::units::VolumeId;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

/// One of two trees.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub container: ContainerRow,
    /// `None`: the present state.
    pub snapshot: Option<SnapshotName>,
}

/// What came of a comparison.
pub(crate) struct Outcome {
    pub compared: Compared,
    /// Whether the databases of the project were compared too: `false` if one of the trees does not have them.
    pub databases: bool,
    /// The rows of databases, if they were wanted.
    pub counted: Counted,
}

/// The intent: temporary snapshots of a container's present state, and copies of databases, exist until they have been compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CompareLive {
    pub container: ContainerId,
}

impl Operation for CompareLive {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "compare_live";

    fn kind(&self) -> &'static str {
        "snapshot.diff"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    /// Nothing: what is compared is read, and the temporary snapshots are nobody else's.
    fn claim(&self) -> Claim {
        Claim::short("snapshot.diff", Vec::new())
    }

    fn keeps_locks(&self) -> bool {
        false
    }

    /// Nobody waits for the records of one that the next start takes up.
    fn run(self, op: &mut Op) -> Result<()> {
        end_temporary(op)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        delete_temporary(r)
    }
}

const WHAT: &str = "a temporary snapshot";

/// Where the temporary snapshots of the container's own volume and of the databases are.
fn places(op: &OperationId) -> Result<[Volume; 2]> {
    Ok([Volume::Staging(staging_of(op, 1)?), Volume::Staging(staging_of(op, 2)?)])
}

fn delete(world: &World, op: &OperationId) -> Result<Vec<VolumeId>> {
    let mut gone = world.store.delete(&Volume::Staging(op.clone()))?.volumes;
    for place in places(op)? {
        gone.extend(world.store.delete(&place)?.volumes);
    }
    Ok(gone)
}

/// Deletes the temporary snapshots of an operation that was cut short.
pub(super) fn delete_temporary(r: &Recovery<'_>) -> Result<()> {
    let gone = delete(r.world, r.id)?;
    r.undone(|tx| tx.add_reclaim(&gone, WHAT))?;
    r.world.upkeep.reclaim();
    Ok(())
}

/// Deletes the temporary snapshots of an operation and ends it.
pub(super) fn end_temporary(op: &Op) -> Result<()> {
    op.step("delete")?;
    let gone = delete(&op.world, &op.id)?;
    op.finish(Durability::Process, |tx| tx.add_reclaim(&gone, WHAT))?;
    op.world.upkeep.reclaim();
    Ok(())
}

/// The volumes of a tree: the container's own, and the project's databases if it has them.
pub(super) struct Volumes {
    pub(super) own: Volume,
    pub(super) databases: Option<Volume>,
}

fn of_snapshot(world: &World, container: &ContainerId, name: &SnapshotName) -> Result<Volumes> {
    let along = Volume::SnapshotDatabases(container.clone(), name.clone());
    let databases = world.store.info(&along)?.map(|_| along);
    Ok(Volumes { own: Volume::Snapshot(container.clone(), name.clone()), databases })
}

/// Gives every name in which the tree `new` differs from `old` to `sink`, in the order of the paths; then counts the rows of the databases that `sink` has put
/// into `wanted`.
///
/// # Errors
/// As [`crate::snapshot::SnapshotStore::compare`], `pool_full` and `operation_state_conflict` where there is no present state to take a snapshot of.
pub(crate) fn compare(
    world: &World,
    caller: &Caller,
    (old, new): (&Tree, &Tree),
    options: &Options<'_>,
    sink: Sink<'_>,
    wanted: Option<&RefCell<Candidates>>,
) -> Result<Outcome> {
    let of = |tree: &Tree| tree.snapshot.as_ref().map(|name| of_snapshot(world, &tree.container.id, name)).transpose();
    let Some(before) = of(old)? else {
        return Err(Error::new(Code::ValidationError, "the first of two trees that are compared is a snapshot"));
    };
    let after = of(new)?;
    if let (Some(after), None) = (&after, wanted) {
        return volumes(world, (old, &before), (new, after), options, sink);
    }
    let changed = &new.container;
    let intent = CompareLive { container: changed.id.clone() };
    let held = world.engine.lock(caller, intent.claim())?;
    let nobody = Caller { idempotency: None, ..caller.clone() };
    let begun = Begun::journal(world, &nobody, held, Durability::Disk, intent, Some(&changed.project), |_| Ok(()))?;
    let mut outcome = None;
    begun.run_with(|_, op| {
        let after = after.map_or_else(|| snapshot_of_now(op, changed), Ok)?;
        op.step("compare")?;
        let progress = std::sync::Arc::clone(&op.progress);
        let stop = || progress.must_stop() || options.stop.is_some_and(|stop| stop());
        let options = Options { stop: Some(&stop), ..options.clone() };
        let mut done = volumes(world, (old, &before), (new, &after), &options, sink)?;
        if let Some(wanted) = wanted {
            op.step("count_rows")?;
            let (old, new) = sides(&before, &after);
            let staging = Volume::Staging(op.id.clone());
            done.counted = diff_databases::count(&*world.store, &staging, (&old, &new), &wanted.borrow(), &stop).map_err(|e| match e.code() {
                Code::VolumeNotFound => Error::new(Code::SnapshotNotFound, "a snapshot was deleted while rows were counted: nothing incomplete is shown"),
                _ => e,
            })?;
        }
        outcome = Some(done);
        end_temporary(op)
    })?;
    outcome.ok_or_else(|| Error::internal("a comparison ended without an outcome"))
}

/// The volumes that have the databases that were compared.
fn sides<'a>(before: &'a Volumes, after: &'a Volumes) -> (Side<'a>, Side<'a>) {
    let prefix = DATABASES.trim_start_matches('/').as_bytes();
    match (&before.databases, &after.databases) {
        (Some(a), Some(b)) => (Side { volume: a, prefix }, Side { volume: b, prefix }),
        _ => (Side { volume: &before.own, prefix: b"" }, Side { volume: &after.own, prefix: b"" }),
    }
}

/// Takes the temporary snapshots.
pub(super) fn snapshot_of_now(op: &Op, live: &ContainerRow) -> Result<Volumes> {
    let world = &op.world;
    crate::model::space::check_space(&world.store.space()?, crate::units::Bytes(0))?;
    let [own, databases] = places(&op.id)?;
    op.step("snapshot")?;
    let along = world.databases.taken_along(live)?;
    let still = world.roots.hold(&live.id)?;
    world.store.snapshot(&Volume::Live(live.id.clone()), &own, &op.id).map_err(|e| match e.code() {
        Code::VolumeNotFound => Error::new(Code::OperationStateConflict, format!("container {} is {}: it has no files now", live.id, live.status)),
        _ => e,
    })?;
    drop(still);
    op.step("databases")?;
    let databases = along.map(|from| world.store.snapshot(&from, &databases, &op.id).map(|_| databases)).transpose()?;
    Ok(Volumes { own, databases })
}

/// Compares the volumes of two trees, all of which are read-only.
fn volumes(world: &World, (old, before): (&Tree, &Volumes), (new, after): (&Tree, &Volumes), options: &Options<'_>, sink: Sink<'_>) -> Result<Outcome> {
    let prefix = DATABASES.trim_start_matches('/').as_bytes();
    let databases = before.databases.as_ref().zip(after.databases.as_ref());
    let own = VolumePair { old: Some(&before.own), new: Some(&after.own), prefix: b"", ancestor: None, small: false };
    let mut pairs = vec![own];
    pairs.extend(databases.map(|(a, b)| VolumePair { old: Some(a), new: Some(b), prefix, ancestor: None, small: true }));
    let databases = databases.is_some();
    let by_lines = Options { walk: false, ..options.clone() };
    let compared = match world.store.compare(&pairs, &by_lines, &mut *sink) {
        // Nothing was given to the sink yet. Volumes between the two were deleted, or there never were any.
        Err(e) if e.code() == Code::DiffNeedsWalk => {
            let ancestor = ancestor(world, old, new)?;
            let ancestor = ancestor.as_ref().filter(|a| world.store.info(a).is_ok_and(|i| i.is_some()));
            pairs[0].ancestor = ancestor;
            world.store.compare(&pairs, options, sink)
        }
        compared => compared,
    };
    let named = |e: Error| match (e.code(), &old.snapshot) {
        (Code::VolumeNotFound, Some(_)) => Error::new(Code::SnapshotNotFound, "a snapshot was deleted while it was compared: nothing incomplete is shown"),
        _ => e,
    };
    Ok(Outcome { compared: compared.map_err(named)?, databases, counted: Counted::default() })
}

/// A snapshot that both trees grew from, as the list of snapshots says. Not of copies: a sync or a reset puts a state of the source into their list, behind a
/// snapshot that it did not grow from.
fn ancestor(world: &World, old: &Tree, new: &Tree) -> Result<Option<Volume>> {
    if old.container.id != new.container.id || old.container.spec.source.is_some() {
        return Ok(None);
    }
    let id = &old.container.id;
    let line = |tree: &Tree| -> Result<Vec<SnapshotName>> {
        let mut at = tree.snapshot.clone().or(tree.container.state.head.clone());
        let mut line = Vec::new();
        while let Some(name) = at.take().filter(|n| !line.contains(n)) {
            at = world.read(|c| snapshots::by_name(c, id, name.as_str()))?.and_then(|r| r.snapshot.parent);
            line.push(name);
        }
        Ok(line)
    };
    let (a, b) = (line(old)?, line(new)?);
    let common = a.iter().find(|name| b.contains(name));
    Ok(common.map(|name| Volume::Snapshot(id.clone(), name.clone())))
}

/// A tree by its container and the name or alias of a snapshot, or `live`.
///
/// # Errors
/// `container_not_found`, `snapshot_not_found`.
pub(crate) fn tree(world: &World, id: &ContainerId, at: &str) -> Result<Tree> {
    world.read(|c| {
        let container = containers::get(c, id)?;
        let snapshot = if at == crate::model::LIVE { None } else { Some(snapshots::get(c, id, at)?.snapshot.name) };
        Ok(Tree { container, snapshot })
    })
}
