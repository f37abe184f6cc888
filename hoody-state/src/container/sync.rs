//! Bringing a copy up to its source: one way, by increments on what both have.
//!
//! The source takes a snapshot, unless nothing has changed since the last one that the copy has; that comes over, and is put in the place of the copy's live
//! volume as a restore does it. What the copy changed of its own is kept as a snapshot first.

use super::receive::wrong_answer;
use super::restore::kept_row;
use crate::catalog::containers::{ContainerRow, Handover};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, OperationId, RunId};
use crate::model::{NewSnapshot, Status, SyncAnswer, SyncRequest};
use crate::name::SnapshotName;
use crate::op::{DatabasesPlan, Intent, LockGuard, Op};
use crate::snapshot::Volume;
use crate::transfer::{Answer, PeerAddress, Request};
use crate::units::{Bytes, Generation, VolumeId};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// The label of snapshots that syncs took, with the copy they were taken for.
pub(crate) const LABEL: &str = "hoody.sync";
/// How many of the copy's newest snapshots the source is told of.
const TOLD: usize = 16;

/// What a sync is to put in the place of the copy's live volume.
struct Brought {
    /// The copy's snapshot that is as the source.
    name: SnapshotName,
    /// Whether that is another than before.
    changed: bool,
    /// The source's snapshot, where it is on this host.
    at: Option<VolumeId>,
}

/// The answer that a sync has begun.
fn begun(op: &OperationId, id: &ContainerId, source: ContainerId) -> SyncAnswer {
    SyncAnswer { container_id: id.clone(), source_container_id: source, status: Status::Copying, operation_id: op.clone(), changed: None, kept: None }
}

fn source_gone(e: Error, peer: &PeerAddress) -> Error {
    if e.code() == Code::ContainerNotFound {
        return Error::new(Code::SourceContainerNotFound, format!("what this is a copy of is no longer on server {}", peer.name));
    }
    e
}

/// What the source has for a copy.
pub(crate) struct Fresh {
    /// To be brought over; nothing: nothing has changed.
    pub snapshot: Option<SnapshotRow>,
    /// The newest that both have.
    pub base: Option<SnapshotRow>,
}

impl Host {
    /// Brings a copy up to its source. Returns when it has begun; the rest is waited for up to `caller.wait`. Cost follows what changed: on the
    /// source's own host no data are written at all.
    ///
    /// # Errors
    /// `container_not_found`, `not_a_copy`, `source_container_not_found`, `unknown_server`, `copy_has_changes` (with `force: false`), `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`, `peer_unreachable`, and what the peer says.
    pub fn sync_container(&self, caller: &Caller, id: &ContainerId, request: &SyncRequest) -> Result<SyncAnswer> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let lock = self.0.locks.take(id.as_str(), "container.sync")?;
        self.guard_space()?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        let Some(source) = row.spec.source.clone() else {
            return Err(Error::new(Code::NotACopy, format!("container {id} is no copy: there is nothing to sync it with")));
        };
        if matches!(row.status, Status::Deleting | Status::Deleted) {
            return Err(super::delete::deleting(id));
        }
        match &row.spec.origin {
            Some(server) => drop(self.peer_of(server)?),
            None => {
                let gone = || Error::new(Code::SourceContainerNotFound, format!("container {source}, of which {id} is a copy, is no longer here"));
                let source = self.0.catalog.read(|c| containers::find(c, &source))?.filter(|s| s.status != Status::Deleting).ok_or_else(gone)?;
                super::copy::whole(&source)?;
            }
        }
        let intent = if row.state.partial {
            self.unfinished(&row, request.rate_limit)?
        } else {
            Intent::Sync { container: id.clone(), force: request.force.unwrap_or(true), limit: request.rate_limit, advance: None }
        };
        self.sync_behind(caller, lock, &row, source, intent)
    }

    /// What a container is a copy of, and whether that is on this host.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn source_of_copy(&self, id: &ContainerId) -> Result<Option<(ContainerId, bool)>> {
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        Ok(row.spec.source.map(|s| (s, row.spec.origin.is_none())))
    }

    pub(super) fn sync_behind(&self, caller: &Caller, lock: LockGuard, row: &ContainerRow, source: ContainerId, intent: Intent) -> Result<SyncAnswer> {
        let id = &row.id;
        let resumes = matches!(intent, Intent::Receive { .. });
        let mut op = self.begin(caller, lock, Durability::Disk, intent, Some(&row.project), |tx| {
            if resumes {
                tx.change_container(id, &caller.by, None, |r| {
                    r.status = Status::Copying;
                    r.state.message = None;
                })?;
            } else {
                tx.emit_container("container.copying", row, json!({ "triggered_by": caller.by }))?;
            }
            Ok(())
        })?;
        let mut answer = begun(&op.id, id, source);
        op.forget_key();
        if resumes {
            // What it ends with is a copy's answer, not a sync's.
            let told = serde_json::to_value(&answer).map_err(|e| Error::internal(e.to_string()))?;
            self.write(Durability::Process, |tx| tx.answer_key_of(&op.id, &told))?;
        }
        let done = if resumes {
            self.behind(op, caller.wait, |host, op| host.receive_steps(op).map(|_| (true, None)))?
        } else {
            self.behind(op, caller.wait, |host, op| host.sync_steps(op))?
        };
        // Where it continues in the background, the answer to its key is that it has begun: what it comes to is the operation's.
        let told = serde_json::to_value(&answer).map_err(|e| Error::internal(e.to_string()))?;
        self.write(Durability::Process, |tx| tx.answer_key_of(&answer.operation_id, &told))?;
        if let Some((changed, kept)) = done {
            answer.status = self.container(id)?.status;
            answer.changed = Some(changed);
            answer.kept = kept;
        }
        Ok(answer)
    }

    fn unfinished(&self, row: &ContainerRow, limit: Option<Bytes>) -> Result<Intent> {
        if row.spec.origin.is_none() {
            return Err(Error::new(Code::OperationStateConflict, format!("container {} is a copy that was not finished: delete it and copy again", row.id)));
        }
        let snapshot = row.state.head.clone();
        let snapshot = snapshot.ok_or_else(|| Error::internal(format!("what copy {} was to begin from is not known", row.id)))?;
        let run = row.state.run.clone().unwrap_or_else(RunId::generate);
        let start = row.state.desired == crate::catalog::containers::Desired::Running;
        Ok(Intent::Receive { container: row.id.clone(), snapshot, run, start, limit, resumes: true })
    }

    /// Whether anything was brought over, and where the copy's own changes are kept.
    pub(crate) fn sync_steps(&self, op: &mut Op) -> Result<(bool, Option<SnapshotName>)> {
        let Intent::Sync { container: id, force, limit, advance } = op.intent.clone() else { return Err(Error::internal("not a sync")) };
        op.progress.cancellable.store(true, Ordering::Relaxed);
        let row = self.0.catalog.read(|c| containers::get(c, &id))?;
        op.step("compare")?;
        let has_changes = || {
            let message =
                format!("container {id} was changed since it was last brought up to its source: say force: true to keep that as a snapshot and go on");
            Error::new(Code::CopyHasChanges, message)
        };
        let mut own = self.changed_here(op, &row)?;
        if own && !force {
            return Err(has_changes());
        }
        op.step("fresh")?;
        let Brought { name: to, changed, at } =
            if row.spec.origin.is_some() { self.bring_over(op, &row, advance, limit)? } else { self.bring_local(op, &row)? };
        op.progress.cancellable.store(false, Ordering::Relaxed);
        let source = row.spec.source.clone().unwrap_or_else(|| id.clone());
        let told = serde_json::to_value(begun(&op.id, &id, source)).map_err(|e| Error::internal(e.to_string()))?;
        let this = op.id.clone();
        if !changed && !own {
            op.finish(Durability::Process, |tx| {
                tx.answer_key_of(&this, &told)?;
                tx.emit_container("container.operation.completed", &row, json!({ "operation_id": op.id, "operation": "sync", "changed": false }))
            })?;
            return Ok((false, None));
        }
        // It may have gone on writing while the transfer was under way: once more, while it stands still until it is replaced.
        let mut _still = None;
        if row.status == Status::Running && !own {
            op.step("stand still")?;
            match self.stand_still(&id) {
                Ok(guard) => {
                    _still = Some(guard);
                    own = self.changed_here(op, &row)?;
                }
                // Then it is taken for changed: what is kept for nothing goes by itself.
                Err(e) => {
                    tracing::warn!(container = %id, error = %e, "could not be made to stand still: what it was is kept");
                    own = true;
                }
            }
            if own && !force {
                return Err(has_changes());
            }
        }
        let advancing = matches!(op.intent, Intent::Sync { advance: Some(_), .. });
        let intent = self.sync_restore(&row, to.clone(), advancing, own, told)?;
        let Intent::Restore { keep, .. } = &intent else { return Err(Error::internal("not a restore")) };
        let kept = keep.snapshot.name.clone();
        op.amend(Durability::Disk, intent, |tx| {
            let change = |r: &mut ContainerRow| {
                r.state.synced = Some(to.clone());
                r.state.at = at;
            };
            tx.change_container(&id, "sync", None, change).map(drop)
        })?;
        let (_, failed) = self.restore_steps(op)?;
        // The restore has ended the operation; the lock is still held.
        let live = self.0.store.info(&Volume::Live(id.clone()))?.map(|i| i.id);
        self.drop_older_syncs(&id, &id, &to, None)?;
        self.write(Durability::Process, |tx| {
            let r = tx.change_container(&id, "sync", None, |r| r.state.synced_live = live)?;
            tx.emit_container(
                "container.operation.completed",
                &r,
                json!({ "operation_id": op.id, "operation": "sync", "changed": changed, "kept": own.then_some(&kept), "sent": op.progress.sent_bytes() }),
            )
        })?;
        match failed {
            Some(e) => Err(e),
            None => Ok((changed, own.then_some(kept))),
        }
    }

    /// Whether the live state differs from the snapshot it grew from.
    fn changed_here(&self, op: &Op, row: &ContainerRow) -> Result<bool> {
        let (Some(head), Some(synced)) = (&row.state.head, &row.state.synced) else { return Ok(true) };
        if head != synced {
            return Ok(true);
        }
        let base = Volume::Snapshot(row.id.clone(), head.clone());
        if self.0.store.info(&base)?.is_none() {
            return Ok(true);
        }
        let made = self.0.store.info(&Volume::Live(row.id.clone()))?.filter(|i| Some(i.id) == row.state.synced_live).map(|i| i.created);
        if made.is_some_and(|g| self.untouched(row, g).unwrap_or(false)) {
            return Ok(false);
        }
        if row.state.follows_databases && self.databases_changed(op, row, synced)? {
            return Ok(true);
        }
        let probe = Volume::Next(row.id.clone());
        self.0.store.delete(&probe)?;
        self.0.store.snapshot(&Volume::Live(row.id.clone()), &probe, &op.id)?;
        let differs = self.0.store.differs(&base, &probe);
        let gone = self.0.store.delete(&probe)?;
        self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "what a sync compared"))?;
        self.0.upkeep.reclaim();
        differs
    }

    /// Whether the project's databases, which a sync would exchange, are other than those that came along.
    fn databases_changed(&self, op: &Op, row: &ContainerRow, synced: &SnapshotName) -> Result<bool> {
        let Some(present) = self.databases_along(row)? else { return Ok(false) };
        let base = Volume::SnapshotDatabases(row.id.clone(), synced.clone());
        if self.0.store.info(&base)?.is_none() {
            return Ok(true);
        }
        let probe = Volume::NextDatabases(row.id.clone());
        self.0.store.delete(&probe)?;
        self.0.store.snapshot(&present, &probe, &op.id)?;
        let differs = self.0.store.differs(&base, &probe);
        let gone = self.0.store.delete(&probe)?;
        self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "what a sync compared"))?;
        differs
    }

    /// Whether a container that does not run has certainly not been written since a transaction: nobody can be writing it just now, and whatever was written
    /// before is told by its volume's generation once the pool's transaction has ended. False says nothing.
    fn untouched(&self, row: &ContainerRow, since: Generation) -> Result<bool> {
        if !matches!(row.status, Status::Stopped | Status::Failed) || self.databases_along(row)?.is_some() {
            return Ok(false);
        }
        let seems = || Ok::<_, Error>(self.0.store.info(&Volume::Live(row.id.clone()))?.is_some_and(|i| i.nested == 0 && i.generation <= since));
        if !seems()? {
            return Ok(false);
        }
        self.0.store.sync()?;
        seems()
    }

    /// On the source's host: the source's state as a snapshot of the copy; its name, and whether it is another than before.
    fn bring_local(&self, op: &Op, row: &ContainerRow) -> Result<Brought> {
        let id = &row.id;
        let source = row.spec.source.clone().ok_or_else(|| Error::internal("a copy without a source"))?;
        let fresh = self.persistently(op, || {
            self.fresh(&source, id, &|s: &SnapshotRow| {
                let info = self.0.store.info(&Volume::Snapshot(source.clone(), s.snapshot.name.clone()))?;
                Ok(info.is_some_and(|i| Some(i.id) == row.state.at))
            })
        })?;
        let head = row.state.head.clone();
        let has = |n: &SnapshotName| self.0.catalog.read(|c| Ok(snapshots::by_name(c, id, n.as_str())?.is_some()));
        let here = row.state.synced.as_ref().map(|s| has(s).map(|there| there.then(|| s.clone()))).transpose()?.flatten();
        let new = match (fresh.snapshot, here) {
            (Some(new), _) => new,
            (None, Some(name)) => return Ok(Brought { name, changed: false, at: row.state.at }),
            // What it was brought up to was deleted here: once more.
            (None, None) => fresh.base.ok_or_else(|| Error::internal(format!("copy {id} has nothing in common with its source")))?,
        };
        op.step("copy")?;
        let name = self.0.catalog.read(|c| super::snapshots::free_name(c, id, new.snapshot.name.clone()))?;
        let mut copied = self
            .copy_snapshot(op, 0, &source, id, &new, Some(&name))?
            .ok_or_else(|| Error::new(Code::SnapshotNotFound, "the snapshot of the source was deleted meanwhile: sync again"))?;
        copied.snapshot.parent = head;
        copied.snapshot.alias = None;
        let at = self.0.store.info(&Volume::Snapshot(source, new.snapshot.name.clone()))?.map(|i| i.id);
        copied.snapshot.expires_at = None;
        self.write(Durability::Process, |tx| tx.put_snapshot(id, &copied))?;
        Ok(Brought { name, changed: true, at })
    }

    /// From a peer.
    fn bring_over(&self, op: &Op, row: &ContainerRow, advance: Option<SnapshotName>, limit: Option<Bytes>) -> Result<Brought> {
        let id = &row.id;
        let (source, peer) = self.source_of(row)?;
        let mut have = self.identities(id)?;
        let own_name = |u: Uuid| have.iter().find(|(_, x)| *x == u).map(|(r, _)| r.snapshot.name.clone());
        let (new, base) = match advance {
            Some(name) => {
                let Answer::Inventory { snapshots } =
                    self.persistently(op, || self.ask(&peer, &Request::Inventory { container: source.clone(), copy: id.clone() }))?
                else {
                    return Err(wrong_answer(&peer));
                };
                let wanted = snapshots.iter().find(|o| o.snapshot.name == name).cloned();
                let wanted = wanted.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {name} is not at server {}", peer.name)))?;
                (Some(wanted), snapshots)
            }
            None => {
                let synced = |r: &SnapshotRow| row.state.synced.as_ref() == Some(&r.snapshot.name);
                let told: Vec<Uuid> = have.iter().enumerate().filter(|(n, (r, _))| *n < TOLD || synced(r)).map(|(_, (_, u))| *u).collect();
                let request = Request::Fresh { container: source.clone(), copy: id.clone(), have: told };
                let Answer::Fresh { snapshot, base, base_identity } = self.persistently(op, || self.ask(&peer, &request).map_err(|e| source_gone(e, &peer)))?
                else {
                    return Err(wrong_answer(&peer));
                };
                // Where nothing has changed the copy goes back to what both have.
                let Some(new) = snapshot.map(|s| *s) else {
                    let name = base_identity.and_then(own_name).ok_or_else(|| wrong_answer(&peer))?;
                    return Ok(Brought { changed: row.state.synced.as_ref() != Some(&name), name, at: None });
                };
                let mut all = Vec::new();
                if let (Some(name), Some(identity)) = (base, base_identity) {
                    let mut o = new.clone();
                    // All that is known of it, and needed: what it is called there, and that its databases, if any, are here too.
                    let mine = own_name(identity).map(|n| Volume::SnapshotDatabases(id.clone(), n));
                    let databases = mine.map(|v| self.0.store.identity(&v)).transpose()?.flatten();
                    (o.snapshot.name, o.snapshot.parent, o.identity, o.databases) = (name, None, identity, databases);
                    all.push(o);
                }
                (Some(new), all)
            }
        };
        let Some(new) = new else { return Err(wrong_answer(&peer)) };
        op.progress.total.store(new.bytes.0, Ordering::Relaxed);
        op.progress.begin_transfer();
        let name = self.0.catalog.read(|c| super::snapshots::free_name(c, id, new.snapshot.name.clone()))?;
        let name = self.receive_snapshot(op, row, &peer, &source, &new, &base, &mut have, limit, Some(name))?;
        Ok(Brought { changed: row.state.synced.as_ref() != Some(&name), name, at: None })
    }

    /// What puts a snapshot that has come over in the place of the copy's live volume.
    fn sync_restore(&self, row: &ContainerRow, to: SnapshotName, advancing: bool, own: bool, told: serde_json::Value) -> Result<Intent> {
        let id = &row.id;
        let now = self.0.clock.now();
        let live = self.0.store.info(&Volume::Live(id.clone()))?.ok_or_else(|| Error::internal(format!("container {id} has no live volume")))?;
        let name = self.0.catalog.read(|c| super::snapshots::free_name(c, id, now.strftime("before-sync-%Y%m%d-%H%M%S").to_string().parse()?))?;
        let expires = now.checked_add(self.0.settings.undo_expiry).ok();
        let keep = kept_row(name, None, now, expires, row.state.head.clone(), format!("what this copy was before it was brought up to {to}"));
        // The same lock is held: it cannot have changed since.
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        let was_running = matches!(row.status, Status::Running | Status::Paused);
        let databases = if row.state.follows_databases {
            match self.databases_plan(&row, &to, None) {
                // Others of the project use them by now: they are not the copy's alone to exchange.
                Err(e) if e.code() == Code::DatabasesShared => DatabasesPlan::Keep,
                plan => plan?,
            }
        } else {
            DatabasesPlan::Keep
        };
        Ok(Intent::Restore {
            container: id.clone(),
            snapshot: to,
            keep: Box::new(keep),
            live: live.id,
            boot: was_running && !advancing,
            was_running,
            run: RunId::generate(),
            by: "sync".into(),
            databases,
            discard: !own,
            told: Some(told),
        })
    }

    pub(super) fn drop_row(&self, id: &ContainerId, name: &SnapshotName) -> Result<()> {
        let found = |c: &rusqlite::Connection| {
            snapshots::by_name(c, id, name.as_str())?.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("there is no snapshot {name}")))
        };
        match self.delete_under_lock(&Caller { by: "sync".into(), ..Caller::default() }, id, found) {
            Err(e) if e.is_not_found() || e.code() == Code::SnapshotPinned => Ok(()),
            r => r.map(drop),
        }
    }

    /// Deletes what earlier syncs for `copy` took in container `id`, but for what is in use. At once, not behind: the next sync would meet the delete.
    fn drop_older_syncs(&self, id: &ContainerId, copy: &ContainerId, newest: &SnapshotName, base: Option<&SnapshotName>) -> Result<()> {
        let rows = self.0.catalog.read(|c| snapshots::all(c, id))?;
        let ours = |s: &&SnapshotRow| s.snapshot.labels.get(LABEL).is_some_and(|l| l == copy.as_str()) && s.snapshot.pinned.is_none();
        for s in rows.iter().filter(ours).filter(|s| s.snapshot.name != *newest && Some(&s.snapshot.name) != base) {
            self.drop_row(id, &s.snapshot.name)?;
        }
        Ok(())
    }

    /// The source's side: its state as a snapshot for `copy`, unless nothing has changed since the newest that `known` says the copy has. Earlier ones that were
    /// taken for this copy go.
    pub(crate) fn fresh(&self, source: &ContainerId, copy: &ContainerId, known: &dyn Fn(&SnapshotRow) -> Result<bool>) -> Result<Fresh> {
        let caller = Caller { by: "sync".into(), ..Caller::default() };
        let lock = self.0.locks.take(source.as_str(), "snapshot.create")?;
        let row = self.0.catalog.read(|c| containers::get(c, source))?;
        super::copy::whole(&row)?;
        let mut base = None;
        for s in self.0.catalog.read(|c| snapshots::all(c, source))? {
            if known(&s)? {
                base = Some(s);
                break;
            }
        }
        if let Some(b) = &base
            && self.untouched(&row, b.generation)?
        {
            return Ok(Fresh { snapshot: None, base });
        }
        let new = NewSnapshot {
            description: Some(format!("taken to bring copy {copy} up to date; goes with the next one")),
            labels: Some(BTreeMap::from([(LABEL.to_owned(), copy.to_string())])),
            ..Default::default()
        };
        // The same lock for what follows.
        let within = LockGuard::of_another(&self.0.locks);
        let name = self.take_snapshot(&caller, Ok(within), source, new)?.snapshot.name;
        let taken = self.0.catalog.read(|c| snapshots::get(c, source, name.as_str()))?;
        let same = match &base {
            Some(b) => !self.snapshots_differ(source, &b.snapshot.name, &name)?,
            None => false,
        };
        if same {
            self.drop_row(source, &name)?;
        }
        let newest = base.as_ref().filter(|_| same).map_or(&name, |b| &b.snapshot.name);
        self.drop_older_syncs(source, copy, newest, base.as_ref().map(|b| &b.snapshot.name))?;
        drop(lock);
        Ok(Fresh { snapshot: (!same).then_some(taken), base })
    }

    fn snapshots_differ(&self, id: &ContainerId, base: &SnapshotName, new: &SnapshotName) -> Result<bool> {
        let volumes = |n: &SnapshotName| (Volume::Snapshot(id.clone(), n.clone()), Volume::SnapshotDatabases(id.clone(), n.clone()));
        let ((a, a_databases), (b, b_databases)) = (volumes(base), volumes(new));
        let there = |v: &Volume| self.0.store.info(v).map(|i| i.is_some());
        Ok(match (there(&a_databases)?, there(&b_databases)?) {
            (true, true) => self.0.store.differs(&a_databases, &b_databases)?,
            (x, y) => x != y,
        } || self.0.store.differs(&a, &b)?)
    }
}

/// The move that an operation on a copy belongs to.
pub(super) fn handover_of(row: &ContainerRow, id: &OperationId) -> Result<Handover> {
    match &row.state.handover {
        Some(h) if h.id == *id => Ok(h.clone()),
        _ => Err(Error::new(Code::HandoverRefused, format!("container {} is not waiting for this move: it was made for another one, or for none", row.id))),
    }
}
