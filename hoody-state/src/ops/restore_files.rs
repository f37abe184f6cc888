//! Restores single paths of a snapshot into a container that may be running: each is copied to where nobody sees it, then put in its place.
//!
//! Steps: an undo snapshot, copies, the undo snapshot into the list, then path by path. Until the first path is placed everything can be undone. From then on
//! each path is before or after: what had begun to be placed is finished, what had not is forgotten. The undo snapshot stays in the list, and restoring it (or
//! `undo`) brings everything back.

use super::exchange::Kept;
use super::observed::thaw_unless_paused;
use super::restore::require_changeable;
use super::restore_paths::{Paths, Request, allow};
use super::snapshot::take_volumes;
use super::snapshot_row::measured;
use super::{Begun, Claim, Ended, Key, Op, Operation, Recovery, Want};
use crate::catalog::containers::ContainerRow;
use crate::catalog::history::{Entry, Parent};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::{DatabaseScope, DatabasesChoice, FilesRestored, NodeKind, RestoreFiles};
use crate::name::SnapshotName;
use crate::op::{Caller, cancelled};
use crate::snapshot::{FilesRequest, Volume};
use crate::tree::staged::Options;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BringFiles {
    pub container: ContainerId,
    pub snapshot: SnapshotName,
    /// What was asked for.
    pub files: RestoreFiles,
    /// The undo snapshot.
    pub keep: Box<SnapshotRow>,
    /// Whether the project's databases are in it.
    pub databases_kept: bool,
    /// The project whose databases are changed, if one of the paths is in them.
    pub databases_of: Option<ProjectId>,
    pub by: String,
}

impl Operation for BringFiles {
    type World = World;
    type Answer = FilesRestored;
    const TAG: &'static str = "restore_files";

    fn kind(&self) -> &'static str {
        "files.restore"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        let mut wants = vec![Want::container(&self.container)];
        wants.extend(self.databases_of.iter().map(|p| Key::Databases(p.clone()).into()));
        Claim::short("files.restore", wants)
    }

    fn run(mut self, op: &mut Op) -> Result<FilesRestored> {
        let world = op.world.clone();
        let id = self.container.clone();
        let row = world.read(|c| containers::get(c, &id))?;
        let mut paths = Paths::of(&Request::parse(&self.files)?, world.databases.backend().is_some());
        op.step("snapshot")?;
        self.keep.snapshot.consistency = take_volumes(&world, op, &id, &self.keep.snapshot.name, self.databases_kept)?;
        *self.keep = measured(&world, &id, (*self.keep).clone())?;
        self.bring(op, &row, &mut paths)?;
        let answer = FilesRestored { undo: Some(self.keep.snapshot.name.clone()), ..paths.answer(&id, &self.snapshot) };
        op.finish(Durability::Process, |tx| self.note(tx, &answer))?;
        world.upkeep.expiry();
        Ok(answer)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        let name = &self.keep.snapshot.name;
        thaw_unless_paused(world, id)?;
        world.store.settle_files(&Volume::Live(id.clone()), r.id)?;
        let mut gone = world.store.delete(&Volume::Staging(r.id.clone()))?;
        let volumes = [Volume::Snapshot(id.clone(), name.clone()), Volume::SnapshotDatabases(id.clone(), name.clone())];
        let complete = |v: &Volume| Ok::<_, Error>(world.store.info(v)?.is_some_and(|i| i.read_only) && !world.store.claims_identity(v)?);
        let all_there = complete(&volumes[0])? && (!self.databases_kept || complete(&volumes[1])?);
        let listed = world.read(|c| snapshots::by_name(c, id, name.as_str()))?.is_some();
        // Something may have been restored if it is in the list, or was when the power went: then it is the way back.
        if all_there && (listed || r.error.is_none()) {
            let kept = measured(world, id, (*self.keep).clone())?;
            r.undone(|tx| {
                tx.add_reclaim(&gone.volumes, &format!("copies of databases of container {id}"))?;
                if listed { Ok(()) } else { self.list(tx, &kept) }
            })?;
        } else {
            for volume in &volumes {
                gone.volumes.extend(world.store.delete(volume)?.volumes);
            }
            r.undone(|tx| tx.add_reclaim(&gone.volumes, &format!("snapshot {name} of container {id}")))?;
        }
        world.upkeep.expiry();
        world.upkeep.reclaim();
        Ok(())
    }
}

impl BringFiles {
    fn bring(&self, op: &Op, row: &ContainerRow, paths: &mut Paths) -> Result<()> {
        let (world, id) = (&op.world, &self.container);
        let (from, into) = (Volume::Snapshot(id.clone(), self.snapshot.clone()), Volume::Live(id.clone()));
        let taken = world.read(|c| snapshots::by_name(c, id, self.snapshot.as_str()))?;
        let taken = taken.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {} has gone", self.snapshot)))?;
        let has_databases = world.databases.backend().is_some();
        let go_on = || if op.progress.must_stop() { Err(cancelled()) } else { Ok(()) };
        let request = FilesRequest {
            from: &from,
            into: &into,
            staging: &op.id,
            options: Options { to: paths.to().cloned(), delete_new: self.files.delete_new, taken: taken.snapshot.created_at.as_second() },
            allow: &|place| allow(place, has_databases),
            go_on: &go_on,
        };
        if paths.has_own() {
            op.step("stage")?;
            let mut staged = world.store.stage_files(request)?;
            paths.stage(|path| {
                op.step("copy")?;
                staged.stage(path)
            })?;
            paths.require_some(op, || world.store.settle_files(&into, &op.id))?;
            // The undo snapshot is on the disk, and no power cut separates a copy from its place (see `StagedFiles::place`): there is nothing to wait for yet.
            self.list_before(op)?;
            paths.place(|number| {
                op.step("place")?;
                staged.place(number)
            })?;
        } else {
            paths.require_some(op, || Ok(()))?;
            self.list_before(op)?;
        }
        if let Some(names) = paths.databases() {
            op.step("databases")?;
            let done = world.databases.restore_names(row, &self.snapshot, &names, self.files.delete_new, &op.id)?;
            paths.databases_done(done);
        }
        op.step("clear")?;
        world.store.settle_files(&into, &op.id)?;
        op.step("sync")?;
        world.store.sync()
    }

    fn list_before(&self, op: &Op) -> Result<()> {
        op.step("list")?;
        op.world.write(Durability::Process, |tx| self.list(tx, &self.keep))
    }

    /// Puts the undo snapshot into the list. The live state grows from it now.
    fn list(&self, tx: &mut Tx<'_>, kept: &SnapshotRow) -> Result<()> {
        let id = &self.container;
        tx.put_snapshot(id, kept)?;
        let name = kept.snapshot.name.clone();
        let c = tx.change_container(id, &self.by, None, |c| {
            c.state.head = Some(name.clone());
            c.state.since_ms = ms(kept.snapshot.created_at);
            c.state.undo = Some(name);
        })?;
        tx.emit_container("container.snapshot.created", &c, json!({ "snapshot": kept.snapshot }))
    }

    fn note(&self, tx: &mut Tx<'_>, answer: &FilesRestored) -> Result<FilesRestored> {
        let (id, snapshot) = (&self.container, &self.snapshot);
        if let Some(mut source) = snapshots::by_name(tx.conn, id, snapshot.as_str())? {
            source.snapshot.last_used_at = Some(tx.now);
            tx.put_snapshot(id, &source)?;
        }
        let entry = Entry::new(NodeKind::RestoreFiles, id).from(Parent::Present(id)).from(Parent::Snapshot(id, snapshot));
        tx.record(&entry.restored(snapshot).overwrote(answer.undo.as_ref()))?;
        let said = json!({ "restored_files": answer.restored.len(), "from": snapshot, "undo": answer.undo });
        let c = tx.change_container(id, &self.by, Some(said), |_| {})?;
        tx.emit_container(
            "container.files.restored",
            &c,
            json!({ "restored": answer.restored, "failed": answer.failed, "snapshot": snapshot, "undo": answer.undo }),
        )?;
        Ok(answer.clone())
    }
}

/// See [`crate::Host::restore_files`].
pub(crate) fn restore_files(world: &World, caller: &Caller, id: &ContainerId, name: &str, files: RestoreFiles) -> Result<FilesRestored> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let request = Request::parse(&files)?;
    let has_databases = world.databases.backend().is_some();
    request.check(has_databases)?;
    let seen = world.read(|c| containers::get(c, id).and_then(|row| snapshots::get(c, id, name).map(|_| row)))?;
    let databases_of =
        (Paths::of(&request, has_databases).databases().is_some() && seen.spec.databases == DatabaseScope::Project).then(|| seen.project.clone());
    let mut wants = vec![Want::container(id)];
    match (&databases_of, seen.spec.databases) {
        (Some(p), _) => wants.push(Key::Databases(p.clone()).into()),
        // The undo snapshot takes them along.
        (None, DatabaseScope::Project) => wants.push(Want::shared(Key::Databases(seen.project.clone()))),
        (None, DatabaseScope::Private) => {}
    }
    let held = world.engine.lock(caller, Claim::short("files.restore", wants))?;
    super::room::check(world, caller, id)?;
    world.limits.check_nested(&Volume::Live(id.clone()))?;
    let (row, target) = world.read(|c| Ok((containers::get(c, id)?, snapshots::get(c, id, name)?)))?;
    require_changeable(&row)?;
    if databases_of.is_some() {
        if files.databases == Some(DatabasesChoice::Keep) {
            let message = "databases: keep means nothing where single databases are restored: leave their paths out; nothing was changed";
            return Err(Error::new(Code::ValidationError, message));
        }
        world.databases.require_choice(&row, files.databases)?;
    }
    let snapshot = target.snapshot.name;
    let kept = Kept::for_undo(world, id, format!("the state before files of {snapshot} were restored"))?;
    let keep = kept.row(world.now(), row.state.head.clone());
    let undo = keep.snapshot.name.clone();
    let databases_kept = world.databases.taken_along(&row)?.is_some();
    let intent = BringFiles { container: id.clone(), snapshot: snapshot.clone(), files, keep, databases_kept, databases_of, by: caller.by.clone() };
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
    let operation = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(restored) => Ok(restored),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => {
            Ok(FilesRestored { container_id: id.clone(), snapshot, restored: Vec::new(), failed: Vec::new(), undo: Some(undo), operation_id: Some(operation) })
        }
    }
}
