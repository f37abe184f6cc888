//! Merges equal data of live volumes and images.
//!
//! No lock of a container is taken: the kernel locks what it compares, and no content changes. One run at a time, for each reads what it is about. A crash leaves what was merged
//! merged, and there is nothing to recover.

use super::{Begun, Claim, Ended, Key, Op, Operation, Recovery, Want};
use crate::catalog::{Durability, containers, images, projects};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::{DedupeAnswer, DedupePool, LastDedupe, PoolDeduped};
use crate::op::Caller;
use crate::snapshot::{DedupeRequest, Deduped, Volume};
use crate::units::Bytes;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Files of up to 2 KiB lie in the file system's own tree, and all others take blocks of 4 KiB.
const LEAST: Bytes = Bytes(4096);
/// The most containers that are named.
const MOST_NAMED: usize = 10_000;
/// Where the catalog has what came of the last run.
const LAST: &str = "last_dedupe";

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MergeEqual {
    /// `None`: all of the pool, or containers of several projects.
    pub project: Option<ProjectId>,
    /// `None`: all.
    pub containers: Option<Vec<ContainerId>>,
    pub min_size: Bytes,
}

impl Operation for MergeEqual {
    type World = World;
    type Answer = PoolDeduped;
    const TAG: &'static str = "merge_equal";

    fn kind(&self) -> &'static str {
        "pool.dedupe"
    }

    fn resource(&self) -> (&'static str, &str) {
        self.project.as_ref().map_or(("pool", "pool"), |p| ("project", p.as_str()))
    }

    fn claim(&self) -> Claim {
        Claim::long("pool.dedupe", vec![Want::from(Key::Pool)])
    }

    fn run(self, op: &mut Op) -> Result<PoolDeduped> {
        let world = op.world.clone();
        op.progress.cancellable.store(true, Ordering::Relaxed);
        op.step("list")?;
        let volumes = self.volumes(&world)?;
        op.step("merge")?;
        let progress = Arc::clone(&op.progress);
        let request = DedupeRequest {
            volumes: &volumes,
            min_size: self.min_size.max(LEAST),
            stop: &|| progress.cancelled.load(Ordering::Relaxed) || world.engine.is_closing(),
            progress: &|done, total| {
                progress.total.store(total.0, Ordering::Relaxed);
                progress.done.store(done.0, Ordering::Relaxed);
            },
        };
        let done = world.store.dedupe().ok_or_else(unsupported)?.merge_equal(&request)?;
        op.progress.cancellable.store(false, Ordering::Relaxed);
        let result = self.result(op, &done);
        if done.stopped {
            world.write(Durability::Process, |tx| tx.set_meta(LAST, &text(&result)?))?;
            if world.engine.is_closing() {
                return Err(Error::new(Code::Interrupted, "the server stopped while data were merged; what was merged stays merged"));
            }
            let message = format!("merging was cancelled; {} had come back until then, and what was merged stays merged", done.gained);
            return Err(Error::new(Code::OperationCancelled, message));
        }
        op.finish(Durability::Process, |tx| {
            tx.set_meta(LAST, &text(&result)?)?;
            let (resource_type, resource) = self.resource();
            tx.emit("pool.deduped", resource_type, resource, self.project.as_ref(), json!({ "result": result }))?;
            Ok(result)
        })
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        r.undone(|_| Ok(()))
    }
}

impl MergeEqual {
    /// The live volumes that it is about, and all images.
    fn volumes(&self, world: &World) -> Result<Vec<Volume>> {
        world.read(|c| {
            let images = images::all(c)?.into_iter().map(|i| Volume::Image(i.name));
            let rows = containers::all(c, self.project.as_ref())?.into_iter();
            let wanted = rows.map(|r| r.id).filter(|id| self.containers.as_ref().is_none_or(|only| only.contains(id)));
            Ok(images.chain(wanted.map(Volume::Live)).collect())
        })
    }

    fn result(&self, op: &Op, d: &Deduped) -> PoolDeduped {
        PoolDeduped {
            operation_id: op.id.clone(),
            project_id: self.project.clone(),
            gained_bytes: d.gained,
            merged_bytes: d.merged,
            read_bytes: d.read,
            held_bytes: d.held,
            cancelled: d.stopped,
            finished_at: op.world.now(),
        }
    }
}

fn text(result: &PoolDeduped) -> Result<String> {
    serde_json::to_string(result).map_err(|e| Error::internal(format!("cannot write what came of a run: {e}")))
}

fn unsupported() -> Error {
    Error::new(Code::DedupeUnsupported, "the volumes of this server cannot share data that were written twice")
}

/// The projects and containers that a request is about, checked.
fn intent(world: &World, request: &DedupePool) -> Result<MergeEqual> {
    let project: Option<ProjectId> = request.project_id.as_deref().map(str::parse).transpose()?;
    let named = request.containers.as_deref().unwrap_or_default();
    if named.len() > MOST_NAMED {
        return Err(Error::new(Code::ValidationError, format!("containers names {} containers: not more than {MOST_NAMED} can be named", named.len())));
    }
    let containers: Option<Vec<ContainerId>> = request.containers.is_some().then(|| named.iter().map(|id| id.parse()).collect()).transpose()?;
    world.read(|c| {
        project.as_ref().map(|p| projects::get(c, world.catalog.user(), p)).transpose()?;
        let mut of: Option<Option<ProjectId>> = None;
        for id in containers.iter().flatten() {
            let row = containers::get(c, id)?;
            if project.as_ref().is_some_and(|p| *p != row.project) {
                return Err(Error::new(Code::ContainerNotFound, format!("there is no container {id} in this project")));
            }
            of = Some(match of {
                Some(before) => before.filter(|p| *p == row.project),
                None => Some(row.project),
            });
        }
        let project = project.or(of.flatten());
        Ok(MergeEqual { project, containers, min_size: request.min_size.flatten().unwrap_or(LEAST) })
    })
}

/// See [`crate::Host::dedupe_pool`].
pub(crate) fn dedupe(world: &World, caller: &Caller, request: &DedupePool) -> Result<DedupeAnswer> {
    let answer = |result: PoolDeduped| DedupeAnswer {
        message: format!("gained {}", result.gained_bytes),
        operation_id: result.operation_id.clone(),
        result: Some(result),
    };
    if let Some(result) = world.engine.replay(caller)? {
        return Ok(answer(result));
    }
    if world.store.dedupe().is_none() {
        return Err(unsupported());
    }
    let intent = intent(world, request)?;
    let held = world.engine.lock(caller, intent.claim())?;
    let project = intent.project.clone();
    let begun = Begun::journal(world, caller, held, Durability::Process, intent, project.as_ref(), |_| Ok(()))?;
    let operation_id = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(result) => Ok(answer(result)),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => {
            let message = format!("equal data are being merged: GET /operations/{operation_id} says how far it is");
            Ok(DedupeAnswer { message, operation_id, result: None })
        }
    }
}

/// See [`crate::Host::last_dedupe`].
pub(crate) fn last(world: &World, only: Option<&[ProjectId]>) -> Result<LastDedupe> {
    let last: Option<PoolDeduped> = world.catalog.meta(LAST)?.and_then(|text| serde_json::from_str(&text).ok());
    let seen = |d: &PoolDeduped| only.is_none_or(|only| d.project_id.as_ref().is_some_and(|p| only.contains(p)));
    Ok(LastDedupe { last: last.filter(seen) })
}
