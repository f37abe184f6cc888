//! Where a fork branched off: the state that it and its source have in common.
//!
//! A copy has all snapshots of its source, the one that it began from among them, and a sync brings it another. The newest of those that both had is the
//! *branch point*. The copy keeps its own of it, so what becomes of the source's does not matter.

use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::Status;
use crate::snapshot::Volume;
use crate::world::World;

/// A branch point: a snapshot that exists.
pub(super) struct Branch {
    pub container: ContainerId,
    pub snapshot: SnapshotRow,
}

/// Where a fork branched off from its source.
///
/// # Errors
/// `not_a_copy`; `branch_point_not_found`: neither the fork nor its source has that snapshot any more.
pub(super) fn of(world: &World, fork: &ContainerRow) -> Result<Branch> {
    let id = &fork.id;
    let Some(source) = &fork.spec.source else {
        return Err(Error::new(Code::NotACopy, format!("container {id} is not a fork: it has no branch point")));
    };
    if let Some(synced) = &fork.state.synced
        && let Some(snapshot) = world.read(|c| snapshots::by_name(c, id, synced.as_str()))?
    {
        return Ok(Branch { container: id.clone(), snapshot });
    }
    if let (Some(at), None) = (fork.state.at, &fork.spec.origin) {
        for snapshot in world.read(|c| snapshots::all(c, source))? {
            let volume = Volume::Snapshot(source.clone(), snapshot.snapshot.name.clone());
            if world.store.info(&volume)?.is_some_and(|i| i.id == at) {
                return Ok(Branch { container: source.clone(), snapshot });
            }
        }
    }
    let message = format!("the snapshot from which container {id} branched off was deleted, in it and in its source: nothing says what it changed since");
    Err(Error::new(Code::BranchPointNotFound, message))
}

/// A container and those of this server that it was copied from, directly or not, itself first.
fn line(world: &World, row: &ContainerRow) -> Result<Vec<ContainerRow>> {
    let mut line = vec![row.clone()];
    while let Some(source) = line.last().filter(|r| r.spec.origin.is_none()).and_then(|r| r.spec.source.clone()) {
        match world.read(|c| containers::find(c, &source))?.filter(|r| !line.iter().any(|l| l.id == r.id)) {
            Some(r) => line.push(r),
            None => break,
        }
    }
    Ok(line)
}

/// The newest state that two containers have in common.
///
/// # Errors
/// `not_related`: they have no common source on this server; `branch_point_not_found`.
pub(super) fn common(world: &World, a: &ContainerRow, b: &ContainerRow) -> Result<Branch> {
    let (a_line, b_line) = (line(world, a)?, line(world, b)?);
    // One of the two came from the other: the one of its line that was copied from it.
    let child = |line: &[ContainerRow], of: &ContainerRow| line.iter().find(|r| r.spec.origin.is_none() && r.spec.source.as_ref() == Some(&of.id)).cloned();
    if let Some(child) = child(&a_line, b).or_else(|| child(&b_line, a)) {
        return of(world, &child);
    }
    // Both came from a third, which need not exist any more: the older of their branch points.
    let from = |r: &ContainerRow| r.spec.source.clone().filter(|_| r.spec.origin.is_none());
    let pairs = a_line.iter().flat_map(|x| b_line.iter().map(move |y| (x, y)));
    let Some((x, y)) = pairs.into_iter().find(|(x, y)| from(x).is_some() && from(x) == from(y)) else {
        let message = format!("containers {} and {} are not copies of one another, nor of one and the same on this server", a.id, b.id);
        return Err(Error::new(Code::NotRelated, message));
    };
    let (x, y) = (of(world, x)?, of(world, y)?);
    Ok(if x.snapshot.snapshot.created_at <= y.snapshot.snapshot.created_at { x } else { y })
}

/// The container that a fork came from, if it is here and not being deleted.
///
/// # Errors
/// `not_a_copy`, `source_container_not_found`.
pub(super) fn source(world: &World, fork: &ContainerRow) -> Result<ContainerRow> {
    let id = &fork.id;
    let Some(source) = &fork.spec.source else {
        return Err(Error::new(Code::NotACopy, format!("container {id} is not a fork: it came from no other container")));
    };
    if let Some(server) = &fork.spec.origin {
        let message = format!("container {source}, from which {id} was copied, is on server {server}: name a container of this server with `into`");
        return Err(Error::new(Code::SourceContainerNotFound, message));
    }
    let found = world.read(|c| containers::find(c, source))?.filter(|s| !matches!(s.status, Status::Deleting | Status::Deleted));
    found.ok_or_else(|| Error::new(Code::SourceContainerNotFound, format!("container {source}, from which {id} was forked, is no longer here")))
}
