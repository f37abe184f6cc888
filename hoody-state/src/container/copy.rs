//! Copies on this host: clones of a snapshot, with all the snapshots of the container they come from.
//!
//! The live volume is cloned first, by one call, and the copy exists from then on; its snapshots come along behind, a call each and no data. What
//! recovery finds cut short it goes on with: everything here may be repeated.

use super::validate;
use crate::catalog::containers::{ContainerRow, ContainerState, Desired};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, OperationId, ProjectId, RunId};
use crate::model::{Container, CopyRequest, DatabaseScope, ForkRequest, ForkResult, Forked, NewSnapshot, Status};
use crate::name::{ContainerName, SnapshotName};
use crate::op::{DatabasesPlan, Intent, Op};
use crate::snapshot::Volume;
use crate::units::Generation;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Snapshots that are brought along between two writes to the catalog.
const AT_ONCE: usize = 64;
/// They share the transactions of the pool, which are what each waits for.
const THREADS: usize = 4;
/// The most copies one request may make.
const MOST_FORKS: u32 = 100;
/// Days after which the snapshot that a copy of the live state began from goes by itself, at the source; the copy has its own.
const TAKEN_FOR_COPY_DAYS: u32 = 1;

fn source_missing(e: Error, id: &ContainerId) -> Error {
    if e.code() == Code::ContainerNotFound {
        return Error::new(Code::SourceContainerNotFound, format!("there is no container {id} to copy"));
    }
    e
}

/// What a copy is to be called.
pub(super) fn copy_name(name: Option<&str>) -> Result<ContainerName> {
    match name {
        None | Some("rand") => Ok(ContainerName::made_up()),
        Some(n) => ContainerName::for_creation(n),
    }
}

impl Host {
    /// Copies a container, here or to a peer. The copy has its own id and takes all snapshots along; it boots by itself when they are there.
    /// Returns when it exists; the rest is waited for up to `caller.wait`. Here that costs one clone, whatever the container's size.
    ///
    /// # Errors
    /// `source_container_not_found`, `project_not_found`, `snapshot_not_found`, `container_name_in_use`, `ssh_public_key_in_use`,
    /// `invalid_container_name`, `validation_error`, `project_container_limit`, `server_container_limit`, `unknown_server`, `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`; to a peer also `peer_unreachable` and what the peer says. Nothing is left then.
    pub fn copy_container(&self, caller: &Caller, id: &ContainerId, request: CopyRequest) -> Result<Container> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        if let Some(server) = request.target_server_id.as_deref()
            && server != self.0.server.id.as_str()
        {
            return self.copy_to_peer(caller, id, server, &request);
        }
        let source = self.copyable(id)?;
        let project = match request.target_project_id.as_deref() {
            Some(p) => p.parse()?,
            None => return Err(Error::new(Code::ValidationError, "target_project_id is missing: say which project the copy belongs to")),
        };
        let name = copy_name(request.name.as_deref())?;
        validate::text("ssh_public_key", request.ssh_public_key.as_deref(), 16_384)?;
        let start = request.start.unwrap_or(true);
        let row = self.copy_row(&source, ContainerId::generate(), project, name.clone(), request.ssh_public_key, start);
        self.could_copy(&row)?;
        let named = request.source_snapshot.as_deref();
        let snapshot = self.copy_base(caller, id, named, &format!("taken to copy it to {name}"), Some(TAKEN_FOR_COPY_DAYS))?;
        let refused = |e: Error| {
            // Something has changed since it was asked.
            if named.is_none() && e.code() != Code::Crashed {
                self.drop_taken(id, &snapshot.snapshot.name);
            }
            e
        };
        self.clone_container(caller, row, &snapshot, start).map_err(refused)
    }

    /// Refuses a copy that could not be made, before anything is changed for it.
    fn could_copy(&self, row: &ContainerRow) -> Result<()> {
        self.guard_space()?;
        self.would(|tx| {
            self.check_limits(tx.conn, &row.project)?;
            tx.insert_container(row, "copy")
        })
    }

    /// Makes `count` copies at once in the container's project; each has its own result. One that fails keeps no other from being made.
    ///
    /// # Errors
    /// Those that concern all: `source_container_not_found`, `snapshot_not_found`, `validation_error`, `operation_in_progress`, `pool_full`.
    pub fn fork_container(&self, caller: &Caller, id: &ContainerId, request: &ForkRequest) -> Result<Forked> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let count = request.count.filter(|n| (1..=MOST_FORKS).contains(n));
        let count = count.ok_or_else(|| Error::new(Code::ValidationError, format!("count: how many copies, 1 to {MOST_FORKS}")))?;
        let source = self.copyable(id)?;
        let prefix = request.name_prefix.as_deref().unwrap_or(source.name.as_str());
        let names: Vec<String> = (1..=count).map(|n| format!("{prefix}-{n}")).collect();
        for n in &names {
            ContainerName::for_creation(n)?;
        }
        let start = request.start.unwrap_or(true);
        let row = |name: ContainerName| self.copy_row(&source, ContainerId::generate(), source.project.clone(), name, None, start);
        if request.source_snapshot.is_none() {
            // A snapshot is not taken for nothing: where no copy at all could be made, the first one's reason is the answer.
            let could: Vec<Result<()>> = names.iter().map(|n| self.could_copy(&row(ContainerName::for_creation(n)?))).collect();
            if could.iter().all(Result::is_err) {
                could.into_iter().next().unwrap_or(Ok(()))?;
            }
        }
        let why = format!("taken to fork it {count} times");
        let snapshot = self.copy_base(caller, id, request.source_snapshot.as_deref(), &why, Some(TAKEN_FOR_COPY_DAYS))?;
        let next = std::sync::atomic::AtomicUsize::new(0);
        let made = std::sync::Mutex::new(BTreeMap::new());
        let inner = Caller { idempotency: None, wait: Duration::ZERO, ..caller.clone() };
        let work = || {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(name) = names.get(n) else { return };
                let copy = ContainerName::for_creation(name).and_then(|name| self.clone_container(&inner, row(name), &snapshot, start));
                made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(n, ForkResult::of(name.clone(), copy));
            }
        };
        std::thread::scope(|s| {
            for _ in 1..THREADS {
                // Where there is no thread to be had, the others do it.
                let _ = std::thread::Builder::new().spawn_scoped(s, work);
            }
            work();
        });
        let results = made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect();
        let forked = Forked { source_container_id: id.clone(), source_snapshot: snapshot.snapshot.name, results };
        self.change(caller, |_| Ok(forked.clone()))
    }

    /// A container that can be copied.
    pub(super) fn copyable(&self, id: &ContainerId) -> Result<ContainerRow> {
        let row = self.0.catalog.read(|c| containers::get(c, id)).map_err(|e| source_missing(e, id))?;
        if matches!(row.status, Status::Deleting | Status::Deleted) {
            return Err(super::delete::deleting(id));
        }
        whole(&row)?;
        Ok(row)
    }

    /// The snapshot a copy begins from: the one that is named, or one of the live state.
    pub(super) fn copy_base(&self, caller: &Caller, id: &ContainerId, named: Option<&str>, why: &str, days: Option<u32>) -> Result<SnapshotRow> {
        if let Some(name) = named {
            return self.0.catalog.read(|c| snapshots::get(c, id, name));
        }
        let plain = Caller { idempotency: None, ..caller.clone() };
        let new = NewSnapshot { description: Some(why.to_owned()), expiry: days.map(Into::into), ..Default::default() };
        let taken = self.create_snapshot(&plain, id, new)?.snapshot.name;
        self.0.catalog.read(|c| snapshots::get(c, id, taken.as_str()))
    }

    fn clone_container(&self, caller: &Caller, row: ContainerRow, snapshot: &SnapshotRow, start: bool) -> Result<Container> {
        self.guard_space()?;
        let id = row.id.clone();
        let source = row.spec.source.clone().ok_or_else(|| Error::internal("a copy without a source"))?;
        let lock = self.0.locks.take(id.as_str(), "container.copy")?;
        let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
        let intent = Intent::Copy { container: id.clone(), source, snapshot: snapshot.snapshot.name.clone(), run, start };
        let mut op = self.begin(caller, lock, Durability::Disk, intent.clone(), Some(&row.project), |tx| {
            self.check_limits(tx.conn, &row.project)?;
            tx.insert_container(&row, &caller.by)
        })?;
        let told = match self.copy_live(&mut op, intent) {
            Ok(view) => view,
            Err(e) => return self.perform(op, |_| Err(e)),
        };
        match self.behind(op, caller.wait, |host, op| host.copy_rest(op)) {
            Ok(Some(view)) => Ok(view),
            Ok(None) => Ok(told),
            Err(e) if e.code() == Code::Crashed => Err(e),
            // It exists and the caller must learn its id: what failed is in its status.
            Err(_) => self.container(&id),
        }
    }

    /// The row of a copy that is about to be made.
    pub(super) fn copy_row(
        &self,
        source: &ContainerRow,
        id: ContainerId,
        project: ProjectId,
        name: ContainerName,
        ssh_public_key: Option<String>,
        start: bool,
    ) -> ContainerRow {
        let now = self.0.clock.now();
        let mut spec = source.spec.clone();
        spec.source = Some(source.id.clone());
        spec.origin = None;
        let state = self.copy_state_row(start);
        ContainerRow { id, project, name, status: Status::Copying, status_since: now, ssh_public_key, spec, state, created: now, updated: now }
    }

    /// What is true of a copy before anything of it is there.
    pub(super) fn copy_state_row(&self, start: bool) -> ContainerState {
        ContainerState {
            desired: if start { Desired::Running } else { Desired::Stopped },
            run: Some(RunId::generate()),
            started_ms: None,
            head: None,
            since_ms: ms(self.0.clock.now()),
            origin: Generation(0),
            last_used: None,
            undo: None,
            message: None,
            partial: true,
            follows_databases: false,
            at: None,
            synced: None,
            synced_live: None,
            handover: None,
        }
    }

    fn copy_live(&self, op: &mut Op, intent: Intent) -> Result<Container> {
        let Intent::Copy { container: id, source, snapshot, .. } = intent else { return Err(Error::internal("not a copy")) };
        op.step("home")?;
        self.0.store.create_home(&id)?;
        self.apply_disk_limit_of(&id)?;
        op.step("clone")?;
        let from = Volume::Snapshot(source.clone(), snapshot.clone());
        let info = self.0.store.clone_volume(&from, &Volume::Live(id.clone()), &op.id).map_err(|e| match e.code() {
            Code::VolumeNotFound => Error::new(Code::SnapshotNotFound, format!("snapshot {snapshot} of container {source} was deleted meanwhile")),
            _ => e,
        })?;
        let at = self.0.store.info(&from)?.map(|i| i.id);
        // The clone is on the disk, and recovery goes by that: this need not be.
        op.tell(|tx| {
            let r = tx.change_container(&id, "user", None, |r| {
                r.state.origin = info.created;
                r.state.partial = false;
                r.state.at = at;
            })?;
            self.container_view(tx.conn, &r)
        })
    }

    /// What comes after the clone; may be repeated from its beginning.
    pub(crate) fn copy_rest(&self, op: &mut Op) -> Result<Container> {
        let Intent::Copy { container: id, source, snapshot, run, start, .. } = op.intent.clone() else { return Err(Error::internal("not a copy")) };
        // What was written down after the clone may have been lost to a power cut.
        if self.0.catalog.read(|c| containers::get(c, &id))?.state.partial {
            let made = self.0.store.info(&Volume::Live(id.clone()))?.ok_or_else(|| Error::internal(format!("copy {id} has no live volume")))?;
            let at = self.0.store.info(&Volume::Snapshot(source.clone(), snapshot.clone()))?.map(|i| i.id);
            self.write(Durability::Process, |tx| {
                tx.change_container(&id, "copy", None, |r| {
                    r.state.origin = made.created;
                    r.state.partial = false;
                    r.state.at = at;
                })
            })?;
        }
        op.step("snapshots")?;
        self.copy_snapshots(op, &source, &id, &snapshot)?;
        self.finish_copy(op, &id, &snapshot, &run, start)
    }

    fn copy_snapshots(&self, op: &Op, source: &ContainerId, id: &ContainerId, base: &SnapshotName) -> Result<()> {
        let (theirs, ours) = self.0.catalog.read(|c| Ok((snapshots::all(c, source)?, snapshots::all(c, id)?)))?;
        let mut have: BTreeSet<SnapshotName> = ours.into_iter().map(|s| s.snapshot.name).collect();
        let missing: Vec<SnapshotRow> = theirs.into_iter().rev().filter(|s| !have.contains(&s.snapshot.name)).collect();
        op.progress.total.store(missing.len() as u64, std::sync::atomic::Ordering::Relaxed);
        for (n, some) in missing.chunks(AT_ONCE).enumerate() {
            op.step("snapshot")?;
            let next = std::sync::atomic::AtomicUsize::new(0);
            let copied = std::sync::Mutex::new(BTreeMap::new());
            let work = || -> Result<()> {
                while let Some((i, s)) = Some(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).and_then(|i| some.get(i).map(|s| (i, s))) {
                    if let Some(row) = self.copy_snapshot(op, n * AT_ONCE + i, source, id, s, None)? {
                        copied.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(i, row);
                    }
                }
                Ok(())
            };
            std::thread::scope(|s| {
                let others: Vec<_> = (1..THREADS.min(some.len())).filter_map(|_| std::thread::Builder::new().spawn_scoped(s, work).ok()).collect();
                let own = work();
                others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::internal("a thread of the copy ended badly")))).fold(own, Result::and)
            })?;
            let rows: Vec<SnapshotRow> = copied.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect();
            have.extend(rows.iter().map(|r| r.snapshot.name.clone()));
            self.write(Durability::Process, |tx| {
                for mut row in rows {
                    row.snapshot.parent = row.snapshot.parent.filter(|p| have.contains(p));
                    if row.snapshot.name == *base {
                        // The copy is measured by it, whatever becomes of it at the source.
                        row.snapshot.expires_at = None;
                    }
                    tx.put_snapshot(id, &row)?;
                }
                Ok(())
            })?;
            op.progress.done.fetch_add(some.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// One snapshot, with its databases; nothing if it was deleted meanwhile.
    pub(super) fn copy_snapshot(
        &self,
        op: &Op,
        number: usize,
        source: &ContainerId,
        id: &ContainerId,
        s: &SnapshotRow,
        name: Option<&SnapshotName>,
    ) -> Result<Option<SnapshotRow>> {
        let (theirs, ours) = (s.snapshot.name.clone(), name.unwrap_or(&s.snapshot.name).clone());
        // A name of its own for what each of several threads has half-made; the operation's for one that works alone.
        let staging = if number == 0 { op.id.clone() } else { staging_of(&op.id, number)? };
        let pairs = [
            (Volume::SnapshotDatabases(source.clone(), theirs.clone()), Volume::SnapshotDatabases(id.clone(), ours.clone())),
            (Volume::Snapshot(source.clone(), theirs), Volume::Snapshot(id.clone(), ours.clone())),
        ];
        for (from, to) in &pairs {
            let own = matches!(from, Volume::Snapshot(..));
            match self.0.store.snapshot(from, to, &staging) {
                Ok(_) => {}
                Err(e) if e.code() == Code::VolumeExists => {}
                Err(e) if e.is_not_found() && !own => {}
                Err(e) if e.is_not_found() => {
                    self.0.store.delete(&pairs[0].1)?;
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
        }
        let info = self.0.store.info(&pairs[1].1)?.ok_or_else(|| Error::internal(format!("snapshot {ours} is not there")))?;
        let mut row = s.clone();
        row.generation = info.created;
        row.snapshot.name = ours;
        row.snapshot.last_used_at = None;
        // A pin keeps a container from being deleted: that was said of the source.
        row.snapshot.pinned = None;
        Ok(Some(row))
    }

    /// Databases, boot, and the end of a copy whose live volume and snapshots are there.
    pub(super) fn finish_copy(&self, op: &mut Op, id: &ContainerId, snapshot: &SnapshotName, run: &RunId, start: bool) -> Result<Container> {
        op.step("databases")?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        let seeded = self.seed_databases(&row, snapshot, &op.id)?;
        let running = if start {
            op.step("boot")?;
            // A crash may have come after the boot and before it was written down.
            Some(match self.0.runtime.adopt(id)? {
                Some(found) if found.run == *run => found,
                Some(_) => {
                    self.0.runtime.kill(id)?;
                    self.boot(&row, run)?
                }
                None => self.boot(&row, run)?,
            })
        } else {
            None
        };
        let live = self.0.store.info(&Volume::Live(id.clone()))?.map(|i| i.id);
        let view = op.finish(Durability::Process, |tx| {
            let head = snapshots::by_name(tx.conn, id, snapshot.as_str())?.map(|s| s.snapshot.name);
            let r = tx.change_container(id, "copy", None, |r| {
                r.status = if running.is_some() { Status::Running } else { Status::Stopped };
                r.state.started_ms = running.as_ref().map(|s| ms(s.started_at));
                r.state.head.clone_from(&head);
                r.state.partial = false;
                r.state.synced.clone_from(&head);
                r.state.synced_live = live;
                r.state.follows_databases = matches!(seeded, Seeded::Yes);
                r.state.message = match &seeded {
                    Seeded::HasOwn => Some(format!("project {} has databases of its own: they were left as they are, and the copy sees them", r.project)),
                    _ => None,
                };
            })?;
            let note = json!({ "operation_id": op.id, "operation": "copy", "source_container_id": r.spec.source, "databases": seeded.word(), "sent": op.progress.sent_bytes() });
            tx.emit_container("container.operation.completed", &r, note)?;
            self.container_view(tx.conn, &r)
        })?;
        self.note_exit(id)?;
        Ok(view)
    }

    /// Gives the copy's project the databases that the snapshot took along, if it has none yet.
    fn seed_databases(&self, r: &ContainerRow, snapshot: &SnapshotName, op: &OperationId) -> Result<Seeded> {
        let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
        if self.0.databases.backend().is_none() || r.spec.databases != DatabaseScope::Project || self.0.store.info(&taken)?.is_none() {
            return Ok(Seeded::Nothing);
        }
        let source = r.spec.source.as_ref().map(|s| self.0.catalog.read(|c| containers::find(c, s))).transpose()?.flatten();
        if r.spec.origin.is_none() && source.is_some_and(|s| s.project == r.project) {
            // The same project on the same host: it sees the same ones.
            return Ok(Seeded::Nothing);
        }
        let present = Volume::Databases(r.project.clone());
        let next = Volume::NextDatabases(r.id.clone());
        let mut gone = self.0.store.delete(&next)?;
        let follows = |yes: bool| self.write(Durability::Disk, |tx| tx.change_container(&r.id, "copy", None, |r| r.state.follows_databases = yes).map(drop));
        let empty = |v: &Volume| self.0.store.path(v).is_some_and(|p| std::fs::read_dir(p).is_ok_and(|mut d| d.next().is_none()));
        let seeded = match self.0.store.info(&present)? {
            // Cut short after they were brought along.
            Some(_) if !empty(&present) => r.state.follows_databases,
            None => {
                follows(true)?;
                match self.0.store.clone_volume(&taken, &present, op) {
                    Ok(_) => true,
                    // Another container of the project was first.
                    Err(e) if e.code() == Code::VolumeExists => false,
                    Err(e) => return Err(e),
                }
            }
            Some(info) => {
                follows(true)?;
                let exchange = |was| self.restore_databases(&r.id, snapshot, &DatabasesPlan::Exchange { project: r.project.clone(), was }, op);
                let info_of = |v: &Volume| Ok::<_, Error>(self.0.store.info(v)?.map(|i| i.id));
                self.0.store.clone_volume(&taken, &next, op)?;
                exchange(info.id)?;
                // Somebody may have made the first one just before the exchange: theirs then.
                let theirs = !empty(&next);
                if let (true, Some(ours)) = (theirs, info_of(&present)?) {
                    exchange(ours)?;
                }
                gone.volumes.extend(self.0.store.delete(&next)?.volumes);
                !theirs
            }
        };
        if !seeded {
            follows(false)?;
        }
        self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "the empty databases of a project"))?;
        Ok(if seeded { Seeded::Yes } else { Seeded::HasOwn })
    }
}

/// What became of the project's databases.
enum Seeded {
    Nothing,
    Yes,
    HasOwn,
}

impl Seeded {
    fn word(&self) -> &'static str {
        match self {
            Seeded::Nothing => "none",
            Seeded::Yes => "copied",
            Seeded::HasOwn => "left",
        }
    }
}

/// A name for half-made things of one of an operation's threads: its digits with the last ones exchanged, so that two threads have two. What a crash leaves
/// under it is swept up at the next start like any other.
fn staging_of(op: &OperationId, number: usize) -> Result<OperationId> {
    format!("{}{:06x}", &op.as_str()[..26], number % 0x100_0000).parse()
}

/// Refuses to change a copy that is not all there.
pub(super) fn whole(r: &ContainerRow) -> Result<()> {
    if r.state.partial && r.status != Status::Creating {
        let message = format!("container {} is a copy that was not finished: sync goes on with it, delete removes it", r.id);
        return Err(Error::new(Code::OperationStateConflict, message));
    }
    Ok(())
}
