//! Deletes a project and its containers, each by the operation that deletes a container. All or nothing.

use super::delete::{claim_of, mark_deleting, planned};
use super::{Begun, Claim, Key, Want};
use crate::catalog::{Durability, containers, projects};
use crate::error::{Code, Error, Result};
use crate::id::ProjectId;
use crate::model::{DeleteOptions, DeletedContainer, DeletedCounts, DeletedItems, ProjectDeleted, Status};
use crate::op::Caller;
use crate::world::World;
use std::time::Duration;

/// See [`crate::Host::delete_project_with`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ProjectId, items: bool, options: DeleteOptions) -> Result<ProjectDeleted> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let rows = world.read(|c| {
        projects::get(c, world.catalog.user(), id)?;
        containers::all(c, Some(id))
    })?;
    let live: Vec<_> = rows.iter().filter(|r| r.status != Status::Deleting).collect();
    let mut deletions = Vec::new();
    for r in &live {
        let held = world.engine.lock(caller, claim_of(&r.id))?;
        deletions.push(Begun::planned(world, held, planned(world, r, options)?));
    }
    let whole_project = vec![Key::Databases(id.clone()).into(), Want::from(Key::Project(id.clone()))];
    let _project = world.engine.lock(caller, Claim::short("project.delete", whole_project))?;
    let answer = ProjectDeleted {
        deleted: DeletedCounts { containers: deletions.len() as u64, permissions: 0, aliases: 0 },
        deleted_items: items.then(|| DeletedItems { containers: live.iter().map(|r| DeletedContainer { id: r.id.clone(), name: r.name.clone() }).collect() }),
    };
    let mut ended = Vec::new();
    world.engine.step("project.delete", "intent")?;
    world.write(Durability::Disk, |tx| {
        tx.claim_key(caller.idempotency.as_ref(), None)?;
        for d in &deletions {
            d.journal_in(tx, Some(id))?;
            ended.extend(mark_deleting(tx, &d.intent().container, &caller.by)?);
        }
        if containers::count(tx.conn, Some(id))? > 0 {
            return Err(Error::new(Code::OperationInProgress, format!("a container has just been added to project {id}: try again")));
        }
        ended.extend(tx.delete_shares_with(id)?);
        tx.delete_project(id)?;
        tx.emit("project.deleted", "project", id.as_str(), Some(id), serde_json::json!({ "project_id": id }))?;
        tx.answer_key(caller.idempotency.as_ref(), &answer)
    })?;
    for d in deletions {
        // Whatever keeps one from being deleted now is tried again.
        if let Err(e) = d.in_background(Duration::ZERO) {
            tracing::warn!(project = %id, error = %e, "a container of a deleted project is not deleted yet");
        }
    }
    world.shares.ended(&ended);
    let deleted = world.ramdisks.remove_project(id).and_then(|()| world.databases.delete_project(id));
    world.upkeep.reclaim();
    if let Err(e) = deleted {
        tracing::warn!(project = %id, error = %e, "its databases are not deleted yet; the next start deletes them");
    }
    Ok(answer)
}
