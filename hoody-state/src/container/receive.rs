//! Copies of a peer's containers, on the side where they come into being.
//!
//! Snapshot after snapshot, each as an increment on one that is here already; then the live volume is a clone of the one the copy begins from. What is
//! here and whole is not asked for again, so everything may be repeated: after a cut, after a crash, by a sync that goes on with an unfinished copy.

use crate::catalog::containers::{ContainerRow, Handover};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, containers, operations, peers, projects, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, ServerId};
use crate::model::{Container, CopyState, Project, Status};
use crate::name::SnapshotName;
use crate::op::{Intent, Op};
use crate::snapshot::Volume;
use crate::transfer::{Answer, CopyOrder, Meter, Offered, PeerAddress, Request, StreamRequest, Transport, decompressed};
use crate::units::{Bytes, Generation};
use serde_json::json;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// How long a peer may take for a question; a snapshot of a busy container takes longest.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How often in a row a stream may break off without a whole snapshot between.
const ATTEMPTS: u32 = 6;

impl Host {
    pub(crate) fn transport(&self) -> Result<Arc<dyn Transport>> {
        self.0.transport.clone().ok_or_else(|| Error::new(Code::NoTransport, "this host cannot reach other servers: it was opened without a transport"))
    }

    pub(crate) fn peer_of(&self, server: &ServerId) -> Result<PeerAddress> {
        let found = self.0.catalog.read(|c| peers::of_server(c, server))?;
        let missing = || Error::new(Code::UnknownServer, format!("server {server} is no peer of {}: make it known there with POST /peers", self.0.server.name));
        Ok(found.ok_or_else(missing)?.address)
    }

    pub(crate) fn ask(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, ANSWER_TIME)
    }

    /// The same, where nobody can be kept waiting.
    pub(crate) fn ask_briefly(&self, peer: &PeerAddress, request: &Request) -> Result<Answer> {
        self.call(peer, request, Duration::from_secs(5))
    }

    /// A token that was made for no server in particular, or before tokens belonged to servers, becomes this server's by its first use.
    fn call(&self, peer: &PeerAddress, request: &Request, timeout: Duration) -> Result<Answer> {
        let transport = self.transport()?;
        match transport.call(peer, request, timeout) {
            Err(e) if e.code() == Code::TokenNotBound => {
                transport.call(peer, &self.hello(), timeout)?;
                transport.call(peer, request, timeout)
            }
            answered => answered,
        }
    }

    /// Asks a peer who it is, and says who asks.
    pub(crate) fn hello(&self) -> Request {
        Request::Hello { from: Some(self.0.server.id.clone()) }
    }

    /// Whether an order for a copy would be taken now: nothing is changed by asking. The copy, if this very order was taken before.
    pub(crate) fn check_copy(&self, order: &CopyOrder) -> Result<Answer> {
        if let Ok(state) = self.copy_state(&order.copy) {
            return Ok(Answer::Copy(Box::new(state)));
        }
        let row = self.ordered_row(order)?;
        self.would(|tx| self.insert_ordered(tx, order, &row))?;
        Ok(Answer::Possible {})
    }

    /// Takes an order for a copy; the same order again is answered with the copy as it is.
    pub(crate) fn accept_copy(&self, order: CopyOrder) -> Result<CopyState> {
        if let Ok(state) = self.copy_state(&order.copy) {
            return Ok(state);
        }
        let row = self.ordered_row(&order)?;
        let caller = Caller { by: "copy".into(), wait: Duration::ZERO, ..Caller::default() };
        let lock = self.0.locks.take(order.copy.as_str(), "container.copy")?;
        let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
        let (copy, start) = (order.copy.clone(), order.start);
        let intent = Intent::Receive { container: copy.clone(), snapshot: order.snapshot.clone(), run, start, limit: order.rate_limit, resumes: false };
        let op = self.begin(&caller, lock, Durability::Disk, intent, Some(&order.project), |tx| self.insert_ordered(tx, &order, &row))?;
        self.behind(op, Duration::ZERO, |host, op| host.receive_steps(op))?;
        self.copy_state(&copy)
    }

    fn insert_ordered(&self, tx: &mut Tx<'_>, order: &CopyOrder, row: &ContainerRow) -> Result<()> {
        self.ensure_project(tx, &order.project, order.project_alias.clone())?;
        self.check_limits(tx.conn, &order.project)?;
        tx.insert_container(row, "copy")
    }

    /// The row of a copy that was ordered, if all that it says is well.
    fn ordered_row(&self, order: &CopyOrder) -> Result<ContainerRow> {
        self.peer_of(&order.server)?;
        self.0.settings.host_network.check(order.spec.network, true)?;
        super::validate::environment(&order.spec.env)?;
        super::validate::cpu(order.spec.cpu)?;
        super::validate::memory(order.spec.memory_mib)?;
        super::validate::text("comment", order.spec.comment.as_deref(), 16_000)?;
        super::validate::text("ssh_public_key", order.ssh_public_key.as_deref(), 16_384)?;
        if !order.spec.command.is_empty() {
            super::validate::command(&order.spec.command)?;
        }
        crate::host::color(&order.spec.color)?;
        self.guard_space()?;
        let now = self.0.clock.now();
        let mut row = ContainerRow {
            id: order.copy.clone(),
            project: order.project.clone(),
            name: order.name.clone(),
            status: Status::Copying,
            status_since: now,
            ssh_public_key: order.ssh_public_key.clone(),
            spec: order.spec.clone(),
            state: self.copy_state_row(order.start),
            created: now,
            updated: now,
        };
        row.state.head = Some(order.snapshot.clone());
        row.state.handover = order.handover.clone().map(|id| Handover { id, taken: false, called_off: false });
        row.spec.source = Some(order.source.clone());
        row.spec.origin = Some(order.server.clone());
        Ok(row)
    }

    fn ensure_project(&self, tx: &mut Tx<'_>, id: &crate::id::ProjectId, named: Option<(crate::name::ProjectAlias, String)>) -> Result<()> {
        if projects::exists(tx.conn, id)? {
            return Ok(());
        }
        let missing = || Error::new(Code::ProjectNotFound, format!("there is no project {id} on server {}", self.0.server.name));
        let (alias, color) = named.ok_or_else(missing)?;
        let mut project = Project {
            id: id.clone(),
            user_id: self.0.catalog.user().clone(),
            alias,
            color,
            max_containers: None,
            disk: None,
            is_default: false,
            realm_ids: Vec::new(),
            created_at: tx.now,
            updated_at: tx.now,
        };
        if projects::alias_taken(tx.conn, &project.alias)? {
            // Another project has the name here: this one gets its own by its id.
            project.alias = format!("{}-{}", project.alias.as_str().chars().take(80).collect::<String>(), &id.as_str()[16..]).parse()?;
        }
        tx.insert_project(&project)?;
        tx.emit("project.created", "project", id.as_str(), Some(id), json!({ "project": project }))
    }

    /// A copy and what is being done to it, for the server it comes from.
    pub(crate) fn copy_state(&self, id: &ContainerId) -> Result<CopyState> {
        self.0.catalog.read(|c| {
            let row = containers::get(c, id)?;
            if row.spec.origin.is_none() {
                return Err(Error::new(Code::ContainerNotFound, format!("there is no container {id} that was copied from another server")));
            }
            let operation = operations::latest_of(c, id.as_str())?;
            Ok(CopyState { container: self.container_view(c, &row)?, operation })
        })
    }

    /// Brings everything over, or what is missing of it.
    pub(crate) fn receive_steps(&self, op: &mut Op) -> Result<Container> {
        let Intent::Receive { container: id, snapshot, run, start, limit, .. } = op.intent.clone() else {
            return Err(Error::internal("not a copy from a peer"));
        };
        op.progress.cancellable.store(true, Ordering::Relaxed);
        op.step("inventory")?;
        let row = self.0.catalog.read(|c| containers::get(c, &id))?;
        let (source, peer) = self.source_of(&row)?;
        let offered = self.persistently(op, || match self.ask(&peer, &Request::Inventory { container: source.clone(), copy: id.clone() })? {
            Answer::Inventory { snapshots } => Ok(snapshots),
            _ => Err(wrong_answer(&peer)),
        })?;
        self.0.store.create_home(&id)?;
        self.apply_disk_limit_of(&id)?;
        let mut have = self.identities(&id)?;
        let missing = |o: &Offered| !have.iter().any(|(_, u)| *u == o.identity);
        op.progress.total.store(offered.iter().filter(|o| missing(o)).map(|o| o.bytes.0).sum(), Ordering::Relaxed);
        op.progress.begin_transfer();
        let mut wanted_here = self.0.catalog.read(|c| snapshots::by_name(c, &id, snapshot.as_str()))?.map(|s| s.snapshot.name);
        if wanted_here.is_none() && !offered.iter().any(|o| o.snapshot.name == snapshot) {
            return Err(Error::new(Code::SnapshotNotFound, format!("snapshot {snapshot} is no longer at server {}: copy again", peer.name)));
        }
        for o in &offered {
            let wanted = o.snapshot.name == snapshot;
            match self.receive_snapshot(op, &row, &peer, &source, o, &offered, &mut have, limit, None) {
                // Deleted at the source since it was listed.
                Err(e) if e.code() == Code::SnapshotNotFound && !wanted => {
                    tracing::info!(container = %id, snapshot = %o.snapshot.name, "went at the source meanwhile")
                }
                r => {
                    let name = r?;
                    if wanted {
                        wanted_here = Some(name);
                    }
                }
            }
        }
        // From here on it is a matter of moments.
        op.progress.cancellable.store(false, Ordering::Relaxed);
        let snapshot = wanted_here.ok_or_else(|| Error::internal(format!("snapshot {snapshot} of copy {id} did not come")))?;
        let from = Volume::Snapshot(id.clone(), snapshot.clone());
        let live = Volume::Live(id.clone());
        op.step("clone")?;
        let info = match self.0.store.info(&live)? {
            Some(cloned_before_a_crash) => cloned_before_a_crash,
            None => self.0.store.clone_volume(&from, &live, &op.id)?,
        };
        op.step("note clone")?;
        self.write(Durability::Process, |tx| {
            tx.change_container(&id, "copy", None, |r| {
                r.state.origin = info.created;
                r.state.partial = false;
            })
        })?;
        self.finish_copy(op, &id, &snapshot, &run, start)
    }

    /// The container a copy was made of, and the peer that has it.
    pub(super) fn source_of(&self, row: &ContainerRow) -> Result<(ContainerId, PeerAddress)> {
        let (Some(source), Some(server)) = (row.spec.source.clone(), row.spec.origin.clone()) else {
            return Err(Error::internal(format!("container {} is no copy from a peer", row.id)));
        };
        Ok((source, self.peer_of(&server)?))
    }

    /// The snapshots that a container has, newest first, by identity.
    pub(crate) fn identities(&self, id: &ContainerId) -> Result<Vec<(SnapshotRow, Uuid)>> {
        let rows = self.0.catalog.read(|c| snapshots::all(c, id))?;
        let mut out = Vec::new();
        for r in rows {
            if let Some(u) = self.0.store.identity(&Volume::Snapshot(id.clone(), r.snapshot.name.clone()))? {
                out.push((r, u));
            }
        }
        Ok(out)
    }

    /// Brings one snapshot over, if it is not here yet; the name it has here. `have`: what is here, which grows by it. `name`: what it is to be called, if not as there.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn receive_snapshot(
        &self,
        op: &Op,
        row: &ContainerRow,
        peer: &PeerAddress,
        source: &ContainerId,
        o: &Offered,
        offered: &[Offered],
        have: &mut Vec<(SnapshotRow, Uuid)>,
        limit: Option<Bytes>,
        name: Option<SnapshotName>,
    ) -> Result<SnapshotName> {
        let id = &row.id;
        if let Some((r, _)) = have.iter().find(|(_, u)| *u == o.identity) {
            return Ok(r.snapshot.name.clone());
        }
        op.step("receive")?;
        // One that was made anew at the source has the name of another here.
        let name = match name {
            Some(n) => n,
            None => self.0.catalog.read(|c| super::snapshots::free_name(c, id, o.snapshot.name.clone()))?,
        };
        // What it grew from is nearest to it; else the newest that both have.
        let parent = o.snapshot.parent.as_ref().and_then(|p| offered.iter().find(|x| x.snapshot.name == *p));
        let own = |x: &Offered| have.iter().find(|(_, u)| *u == x.identity).map(|(r, _)| r.snapshot.name.clone());
        let to = Volume::Snapshot(id.clone(), name.clone());
        let mut lost: Vec<Uuid> = Vec::new();
        let mut whole = false;
        loop {
            let common = |x: &&Offered| !whole && have.iter().any(|(_, u)| *u == x.identity) && !lost.contains(&x.identity);
            let base = parent.filter(common).or_else(|| offered.iter().rev().find(common));
            let request = |databases, base: Option<&Offered>| StreamRequest {
                container: source.clone(),
                copy: id.clone(),
                snapshot: o.snapshot.name.clone(),
                databases,
                base: base.map(|b| b.snapshot.name.clone()),
            };
            let received = (|| {
                if o.databases.is_some() {
                    let along = Volume::SnapshotDatabases(id.clone(), name.clone());
                    let base = base.filter(|b| b.databases.is_some());
                    let base_here = base.and_then(own).map(|n| Volume::SnapshotDatabases(id.clone(), n));
                    self.receive_volume(op, peer, &request(true, base), &along, base_here.as_ref(), o.databases, limit)?;
                }
                let base_here = base.and_then(own).map(|n| Volume::Snapshot(id.clone(), n));
                self.receive_volume(op, peer, &request(false, base), &to, base_here.as_ref(), Some(o.identity), limit)
            })();
            match (received, base) {
                // It went at the source, or here: the next nearest will do.
                (Err(e), Some(b)) if e.code() == Code::BaseMissing => lost.push(b.identity),
                // An increment that cannot be applied must not keep the copy from its source for ever: the whole snapshot needs no base.
                (Err(e), Some(_)) if matches!(e.code(), Code::StreamRefused | Code::StreamCorrupt) => {
                    tracing::warn!(operation = %op.id, snapshot = %o.snapshot.name, error = %e, "an increment cannot be applied: the whole snapshot is sent");
                    whole = true;
                }
                (r, _) => break r?,
            }
        }
        op.step("list")?;
        let info = self.0.store.info(&to)?.ok_or_else(|| Error::internal(format!("{to} is not there")))?;
        let mut new = SnapshotRow { snapshot: o.snapshot.clone(), generation: Generation(info.created.0) };
        new.snapshot.name.clone_from(&name);
        new.snapshot.last_used_at = None;
        new.snapshot.pinned = None;
        new.snapshot.parent = parent.and_then(own);
        self.write(Durability::Process, |tx| {
            // Its alias may be another's here by now.
            if let Some(a) = &new.snapshot.alias
                && snapshots::showing(tx.conn, id, a.as_str())?.is_some()
            {
                new.snapshot.alias = None;
            }
            tx.put_snapshot(id, &new)
        })?;
        have.push((new, o.identity));
        Ok(name)
    }

    /// One volume, through cuts.
    #[allow(clippy::too_many_arguments)]
    fn receive_volume(
        &self,
        op: &Op,
        peer: &PeerAddress,
        request: &StreamRequest,
        to: &Volume,
        base: Option<&Volume>,
        identity: Option<Uuid>,
        limit: Option<Bytes>,
    ) -> Result<()> {
        let transport = self.transport()?;
        // What is here without being in the list was received before a crash.
        if self.0.store.info(to)?.is_some() {
            if self.0.store.identity(to)? == identity {
                return Ok(());
            }
            self.0.store.delete(to)?;
        }
        self.persistently(op, || {
            let (input, progress) = (transport.stream(peer, request)?, Arc::clone(&op.progress));
            let metered = Meter::new(input, Arc::clone(&progress), limit.map(|l| l.0));
            let mut plain = decompressed(metered, progress)?;
            let before = op.progress.done.load(Ordering::Relaxed);
            let received = self.0.store.receive(to, base, &op.id, &mut plain).and_then(|info| {
                // The checksum of the compressed whole comes at its very end, and a peer that goes on after that may do so for ever.
                match plain.read(&mut [0]) {
                    Ok(0) => Ok(info),
                    _ => Err(Error::new(Code::StreamCorrupt, "the stream from the other server does not end where it should")),
                }
            });
            let received = match received {
                Ok(_) if self.0.store.identity(to)? == identity => return Ok(()),
                Ok(_) => Err(Error::new(Code::StreamCorrupt, "what was received is not what was announced")),
                Err(e) => Err(e),
            };
            op.progress.done.store(before, Ordering::Relaxed);
            self.0.store.delete(&Volume::Staging(op.id.clone()))?;
            self.0.store.delete(to)?;
            received
        })
    }

    /// Tries again what a network may have spoilt, until it is plain that it goes on doing so.
    pub(super) fn persistently<T>(&self, op: &Op, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = self.0.settings.transfer_pause;
        let mut attempt = 1;
        loop {
            let error = match f() {
                Ok(t) => return Ok(t),
                Err(e) => e,
            };
            if op.progress.cancelled.load(Ordering::Relaxed) {
                return Err(crate::op::cancelled());
            }
            let passing = matches!(
                error.code(),
                Code::TooManyStreams
                    | Code::TransferCut
                    | Code::PeerUnreachable
                    | Code::StreamCorrupt
                    | Code::OperationInProgress
                    | Code::SnapshotOperationInProgress
            );
            if !passing || attempt >= ATTEMPTS {
                return Err(error);
            }
            tracing::info!(operation = %op.id, attempt, error = %error, "trying again");
            attempt += 1;
            self.sleep(op, pause)?;
            pause *= 2;
        }
    }

    /// Waits, unless the operation is cancelled or the host ends.
    pub(super) fn sleep(&self, op: &Op, time: Duration) -> Result<()> {
        let end = std::time::Instant::now() + time;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()).filter(|l| !l.is_zero()) {
            if op.progress.cancelled.load(Ordering::Relaxed) {
                return Err(crate::op::cancelled());
            }
            if self.0.upkeep.is_closed() {
                return Err(Error::new(Code::Crashed, "the server ended meanwhile; its next start goes on"));
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }
}

pub(super) fn wrong_answer(peer: &PeerAddress) -> Error {
    Error::new(Code::PeerRefused, format!("server {} gave an answer that this version does not understand: bring both to one version", peer.name))
}
