//! Renames, pins and dates snapshots: changes of the list alone, under the container's lock, since operations rely on the aliases and pins they have seen.

use super::delete::deleting;
use super::own::require_own;
use super::{Claim, Want};
use crate::catalog::snapshots::alias_in_use;
use crate::catalog::{containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::validate;
use crate::model::{Snapshot, SnapshotAnswer, Status};
use crate::name::Alias;
use crate::op::Caller;
use crate::units::Age;
use crate::world::World;
use jiff::Timestamp;
use serde_json::json;

fn edit(world: &World, caller: &Caller, id: &ContainerId, name: &str, event: Option<&str>, f: impl FnOnce(&mut Snapshot)) -> Result<SnapshotAnswer> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    world.read(|c| containers::get(c, id).and_then(|_| snapshots::get_unambiguous(c, id, name)))?;
    let _held = world.engine.lock(caller, Claim::short("snapshot.update", vec![Want::container(id)]))?;
    world.engine.change(caller, |tx| {
        let c = containers::get(tx.conn, id)?;
        if c.status == Status::Deleting {
            return Err(deleting(id));
        }
        let mut row = snapshots::get_unambiguous(tx.conn, id, name)?;
        require_own(tx.conn, caller, id, &row)?;
        f(&mut row.snapshot);
        let shown = row.snapshot.alias.as_ref().map_or_else(|| row.snapshot.name.as_str(), Alias::as_str);
        if snapshots::showing(tx.conn, id, shown)?.is_some_and(|o| o.snapshot.name != row.snapshot.name) {
            return Err(match &row.snapshot.alias {
                Some(a) => alias_in_use(Some(a)),
                None => {
                    let m = format!("without its alias the snapshot is called {shown}, which is the alias of another by now: give it another alias");
                    Error::new(Code::AliasInUse, m)
                }
            });
        }
        tx.put_snapshot(id, &row)?;
        if let Some(event) = event {
            tx.emit_container(event, &c, json!({ "snapshot": row.snapshot }))?;
        }
        Ok(SnapshotAnswer { container_id: id.clone(), project_id: c.project, snapshot: row.snapshot })
    })
}

/// See [`crate::Host::rename_snapshot`].
pub(crate) fn rename(world: &World, caller: &Caller, id: &ContainerId, name: &str, alias: Option<String>) -> Result<SnapshotAnswer> {
    let alias = alias.map(|a| a.parse::<Alias>()).transpose()?;
    edit(world, caller, id, name, Some("container.snapshot.renamed"), |s| {
        if alias.is_some() {
            // It has a purpose of its own now: it is not deleted because others were replaced.
            s.replaced_alias = None;
        }
        s.alias = alias;
    })
}

/// See [`crate::Host::pin_snapshot`].
pub(crate) fn pin(world: &World, caller: &Caller, id: &ContainerId, name: &str, reason: Option<String>) -> Result<SnapshotAnswer> {
    validate::text("reason", reason.as_deref(), 1000)?;
    let answer = edit(world, caller, id, name, None, |s| s.pinned = reason)?;
    world.upkeep.expiry();
    Ok(answer)
}

/// See [`crate::Host::set_snapshot_expiry`].
pub(crate) fn set_expiry(world: &World, caller: &Caller, id: &ContainerId, name: &str, at: Option<Timestamp>) -> Result<SnapshotAnswer> {
    if at.is_some_and(|t| t <= world.now()) {
        return Err(Error::new(Code::InvalidExpiry, "expires_at is in the past: give a future time, or delete the snapshot"));
    }
    let answer = edit(world, caller, id, name, None, |s| s.expires_at = at)?;
    world.upkeep.expiry();
    Ok(answer)
}

/// See [`crate::Host::set_snapshot_expiry_in`].
pub(crate) fn set_expiry_in(world: &World, caller: &Caller, id: &ContainerId, name: &str, age: Age) -> Result<SnapshotAnswer> {
    set_expiry(world, caller, id, name, Some(age.after(world.now())))
}
