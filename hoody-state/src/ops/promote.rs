//! Takes the changes of a fork since its branch point over into another container: a three-way merge of files.
//!
//! Both are captured by temporary snapshots and compared with the branch point. Where they contradict each other nothing is changed, unless somebody is
//! preferred. A target that runs stands still while it is captured once more, so that nothing it writes is lost; then the result is made beside `live`,
//! exchanged as in a restore, and booted. The fork stays as it is.
//!
//! Databases that a project's containers share are not in the volumes, so they are none of this. Private ones are files: see [`crate::diff::merge`].

use super::branch_point::{self, Branch};
use super::copied::staging_of;
use super::exchange::{Boot, Exchange, Kept};
use super::restore::require_changeable;
use super::{Begun, Claim, Ended, Op, Operation, Recovery, Want};
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::history::{Entry, Parent};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, snapshots};
use crate::diff::merge::{Compare, Merged, Step, merge};
use crate::diff::options::{Method, Options};
use crate::diff::{Kind, Record};
use crate::error::{Code, Error, Result};
use crate::freeze::FreezeGuard;
use crate::id::{ContainerId, OperationId};
use crate::model::{BranchPoint, NodeKind, Prefer, PromoteRequest, Promoted, Status};
use crate::op::{Caller, cancelled};
use crate::progress::Progress;
use crate::services::databases::DatabasesPlan;
use crate::services::identity::is_own;
use crate::snapshot::{Mergeable, Volume, VolumePair};
use crate::tree::TreePath;
use crate::units::VolumeId;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::ControlFlow;

#[path = "promote_conflicts.rs"]
mod conflicts;

/// The most names that one side may have changed.
const MOST_CHANGES: usize = 2_000_000;
/// The most bytes that their paths may have: all are in memory.
const MOST_BYTES: usize = 256 << 20;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Promote {
    pub fork: ContainerId,
    pub branch_point: BranchPoint,
    pub prefer: Option<Prefer>,
    /// Of the target.
    #[serde(flatten)]
    pub exchange: Exchange,
    /// What the target had to be changed by, once that is known.
    #[serde(default)]
    pub outcome: Outcome,
}

/// What a promotion came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub changes: u64,
    pub conflict_count: u64,
    /// The first of them.
    pub conflicts: Vec<crate::model::PromoteConflict>,
}

impl Operation for Promote {
    type World = World;
    type Answer = Promoted;
    const TAG: &'static str = "promote";

    fn kind(&self) -> &'static str {
        "container.promote"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.target().as_str())
    }

    fn claim(&self) -> Claim {
        claim_of(&self.fork, self.target())
    }

    fn run(mut self, op: &mut Op) -> Result<Promoted> {
        let world = op.world.clone();
        let answer = self.steps(op, &world);
        world.upkeep.expiry();
        world.upkeep.reclaim();
        answer
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let world = r.world;
        let gone = self.delete_captures(world, r.id)?;
        if !self.exchange.took_place(world)? {
            super::observed::thaw_unless_paused(world, &self.fork)?;
            return self.exchange.undo(r, "a promotion", gone);
        }
        let kept = self.exchange.keep_old(world, || Ok(()))?;
        world.shares.owner_exchanged(self.target());
        let booted = self.exchange.boot_if_needed(world)?;
        r.finished(|tx| self.note(tx, kept.as_ref(), booted, &gone))
    }
}

/// Both containers, in one step. It may take as long as there are changes.
fn claim_of(fork: &ContainerId, target: &ContainerId) -> Claim {
    Claim::long("container.promote", vec![Want::container(fork), Want::container(target)])
}

/// The two sides as they were captured.
struct Sides {
    fork: Vec<Record>,
    target: Vec<Record>,
    /// Names of the fork's machine that are no part of its work.
    own: Vec<Vec<u8>>,
}

/// Objects of the winner's and the loser's capture are compared.
struct Captures<'a> {
    store: &'a dyn Mergeable,
    winner: &'a Volume,
    loser: &'a Volume,
    progress: &'a Progress,
}

impl Compare for Captures<'_> {
    fn equal(&self, winner: &[u8], loser: &[u8]) -> Result<bool> {
        if self.progress.must_stop() {
            return Err(cancelled());
        }
        self.store.equal((self.winner, winner), (self.loser, loser))
    }
}

impl Promote {
    fn target(&self) -> &ContainerId {
        &self.exchange.container
    }

    /// Where the fork (1) and the target (2) are captured.
    fn capture(op: &OperationId, number: usize) -> Result<Volume> {
        staging_of(op, number).map(Volume::Staging)
    }

    fn delete_captures(&self, world: &World, op: &OperationId) -> Result<Vec<VolumeId>> {
        let mut gone = Vec::new();
        for number in [1, 2] {
            gone.extend(world.store.delete(&Self::capture(op, number)?)?.volumes);
        }
        Ok(gone)
    }

    fn steps(&mut self, op: &mut Op, world: &World) -> Result<Promoted> {
        op.progress.cancellable.store(true, std::sync::atomic::Ordering::Relaxed);
        op.step("capture")?;
        self.take(op, &self.fork, 1)?;
        self.take(op, self.target(), 2)?;
        op.step("compare")?;
        let base = Volume::Snapshot(self.branch_point.container_id.clone(), self.branch_point.snapshot.clone());
        let (fork, own) = split_own(changes(op, &base, &Self::capture(&op.id, 1)?)?);
        let mut sides = Sides { fork, target: changes(op, &base, &Self::capture(&op.id, 2)?)?, own };
        if self.prefer == Some(Prefer::Fork) && Self::merged(op, &sides, None)?.conflicts.is_empty() {
            // Nobody need be preferred: the changes go into the target as it is.
            self.prefer = None;
        }
        let mut merged = self.merge(op, &sides)?;
        if sides.fork.is_empty() {
            return self.end_unchanged(op);
        }
        let _still = self.stand_still(op, world, &base, &mut sides, &mut merged)?;
        self.outcome = conflicts::outcome(&merged, self.prefer);
        if self.prefer == Some(Prefer::Fork) {
            // The steps are those that put the target's own changes into the fork's state.
            self.outcome.changes = sides.fork.len() as u64;
        }
        if merged.steps.is_empty() && self.prefer != Some(Prefer::Fork) {
            return self.end_unchanged(op);
        }
        let intent = self.clone();
        op.amend(Durability::Process, &intent, |_| Ok(()))?;
        op.step("clone")?;
        let winner = self.winner();
        world.store.clone_volume(&Volume::Live(winner.clone()), &self.exchange.next(), &op.id)?;
        op.step("apply")?;
        self.apply(op, &sides, &merged)?;
        op.step("delete captures")?;
        let gone = self.delete_captures(world, &op.id)?;
        op.progress.cancellable.store(false, std::sync::atomic::Ordering::Relaxed);
        self.put_in_place(op, world, &gone)
    }

    fn put_in_place(&self, op: &Op, world: &World, gone: &[VolumeId]) -> Result<Promoted> {
        op.step("kill")?;
        self.exchange.stop(world)?;
        op.step("exchange")?;
        self.exchange.swap(world)?;
        world.shares.owner_exchanged(self.target());
        let row = world.read(|c| containers::get(c, self.target()))?;
        let (started, kept) = self.exchange.boot_and_keep(op, &row)?;
        let booted = self.exchange.boot_result(&started);
        let promoted = op.finish(Durability::Process, |tx| self.note(tx, kept.as_ref(), booted, gone))?;
        world.exits.note(self.target())?;
        let before = kept.as_ref().map_or_else(String::new, |k| format!(" (the state before is kept as {})", k.snapshot.name));
        match started {
            Ok(_) => Ok(promoted),
            Err(e) => Err(e.context(format!("the changes of {} are taken over, but {} does not boot{before}", self.fork, self.target()))),
        }
    }

    fn winner(&self) -> &ContainerId {
        if self.prefer == Some(Prefer::Fork) { &self.fork } else { self.target() }
    }

    /// A temporary snapshot of a container's live volume. Nobody writes its databases meanwhile.
    fn take(&self, op: &Op, id: &ContainerId, number: usize) -> Result<()> {
        let world = &op.world;
        let (live, capture) = (Volume::Live(id.clone()), Self::capture(&op.id, number)?);
        let gone = world.store.delete(&capture)?;
        let row = world.read(|c| containers::get(c, id))?;
        let nested = world.store.info(&live)?.is_some_and(|i| i.nested > 0);
        let hold = world.freezing.hold_for_snapshot(&row, nested)?;
        let still = world.roots.hold(id)?;
        world.store.snapshot(&live, &capture, &op.id)?;
        drop(still);
        hold.release();
        world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "what a promotion compared"))
    }

    /// Makes what runs stand still, and captures and compares once more what was written since. It stands still until the guards are dropped.
    fn stand_still<'w>(&self, op: &Op, world: &'w World, base: &Volume, sides: &mut Sides, merged: &mut Merged) -> Result<Vec<FreezeGuard<'w>>> {
        let mut guards = Vec::new();
        let mut again = |id: &ContainerId, number: usize| -> Result<Option<Vec<Record>>> {
            if world.read(|c| containers::get(c, id))?.status != Status::Running {
                return Ok(None);
            }
            op.step("stand still")?;
            guards.push(world.freezing.stand_still(id)?);
            self.take_still(op, id, number)?;
            changes(op, base, &Self::capture(&op.id, number)?).map(Some)
        };
        let target = again(self.target(), 2)?;
        // Its live volume is what the result begins from.
        let fork = if self.prefer == Some(Prefer::Fork) { again(&self.fork, 1)? } else { None };
        if target.is_none() && fork.is_none() {
            return Ok(guards);
        }
        if let Some(target) = target {
            sides.target = target;
        }
        if let Some(fork) = fork {
            (sides.fork, sides.own) = split_own(fork);
        }
        *merged = self.merge(op, sides)?;
        Ok(guards)
    }

    /// The same as [`Promote::take`] of a container that stands still.
    fn take_still(&self, op: &Op, id: &ContainerId, number: usize) -> Result<()> {
        let world = &op.world;
        let capture = Self::capture(&op.id, number)?;
        let gone = world.store.delete(&capture)?;
        let still = world.roots.hold(id)?;
        world.store.snapshot(&Volume::Live(id.clone()), &capture, &op.id)?;
        drop(still);
        world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "what a promotion compared"))
    }

    /// Error: `promote_conflicts`, unless somebody is preferred.
    fn merge(&self, op: &Op, sides: &Sides) -> Result<Merged> {
        let merged = Self::merged(op, sides, self.prefer)?;
        if self.prefer.is_none() && !merged.conflicts.is_empty() {
            return Err(conflicts::refused(&self.fork, self.target(), &merged));
        }
        Ok(merged)
    }

    /// The merge in which `prefer` decides conflicts; of none, the target keeps what it has.
    fn merged(op: &Op, sides: &Sides, prefer: Option<Prefer>) -> Result<Merged> {
        let (fork, target) = (Self::capture(&op.id, 1)?, Self::capture(&op.id, 2)?);
        let fork_wins = prefer == Some(Prefer::Fork);
        let (winner, loser) = if fork_wins { (&fork, &target) } else { (&target, &fork) };
        let compare = Captures { store: merging(&op.world)?, winner, loser, progress: &op.progress };
        let (w, l) = if fork_wins { (&sides.fork, &sides.target) } else { (&sides.target, &sides.fork) };
        let merged = merge(w, l, &compare)?;
        require_short(&merged.steps)?;
        Ok(merged)
    }

    fn apply(&self, op: &Op, sides: &Sides, merged: &Merged) -> Result<()> {
        let store = merging(&op.world)?;
        let next = self.exchange.next();
        let go_on = || if op.progress.must_stop() { Err(cancelled()) } else { Ok(()) };
        let loser = Self::capture(&op.id, if self.prefer == Some(Prefer::Fork) { 2 } else { 1 })?;
        let mut steps = merged.steps.clone();
        if self.prefer == Some(Prefer::Fork) {
            // The result began from the fork: what is of its machine becomes the target's.
            steps.extend(sides.own.iter().map(|path| Step::Mirror { path: path.clone() }));
        }
        store.apply(&steps, &loser, &next, &go_on)
    }

    fn end_unchanged(&self, op: &Op) -> Result<Promoted> {
        op.step("delete captures")?;
        let gone = self.delete_captures(&op.world, &op.id)?;
        op.finish(Durability::Process, |tx| {
            tx.add_reclaim(&gone, "what a promotion compared")?;
            Ok(self.answer("there was nothing to take over".into(), None))
        })
    }

    fn note(&self, tx: &mut Tx<'_>, kept: Option<&SnapshotRow>, boot: Option<Boot>, gone: &[VolumeId]) -> Result<Promoted> {
        let id = self.target();
        tx.add_reclaim(gone, "what a promotion compared")?;
        if let Some(kept) = kept {
            tx.put_snapshot(id, kept)?;
        }
        let undo = kept.map(|k| k.snapshot.name.clone());
        tx.record(&Entry::new(NodeKind::Promote, id).from(Parent::Present(id)).from(Parent::Present(&self.fork)).overwrote(undo.as_ref()))?;
        // What began from the fork grew from the branch point, and from no later snapshot of the target: a diff relies on that.
        let point = &self.branch_point;
        let grown_from = match snapshots::by_name(tx.conn, id, point.snapshot.as_str())? {
            Some(s) if point.container_id == *id => Some(s.snapshot.name),
            _ => None,
        };
        let now = tx.now;
        let c = tx.change_container(id, &self.exchange.by, Some(json!({ "promoted": self.fork, "undo": undo })), |c| {
            let head = if self.prefer == Some(Prefer::Fork) { grown_from.clone() } else { c.state.head.clone() };
            self.exchange.note(c, now, head, undo.clone(), boot);
        })?;
        tx.emit_container("container.promoted", &c, json!({ "fork_id": self.fork, "undo": undo, "changes": self.outcome.changes }))?;
        let before = undo.as_ref().map_or_else(String::new, |u| format!("; the state before is kept as {u}"));
        Ok(self.answer(format!("the changes of {} are in {id}{before}", self.fork), undo))
    }

    fn answer(&self, message: String, undo: Option<crate::name::SnapshotName>) -> Promoted {
        let Outcome { changes, conflict_count, conflicts } = self.outcome.clone();
        Promoted {
            success: true,
            message,
            fork_id: self.fork.clone(),
            target_id: self.target().clone(),
            branch_point: self.branch_point.clone(),
            changes: Some(changes),
            conflict_count: Some(conflict_count),
            conflicts,
            undo,
            operation_id: None,
        }
    }
}

fn merging(world: &World) -> Result<&dyn Mergeable> {
    world.store.merging().ok_or_else(|| Error::new(Code::DiffUnsupported, "the volumes of this server cannot be merged"))
}

/// Refuses a path that no program can name in one call, so that it is refused before anything stands still.
fn require_short(steps: &[Step]) -> Result<()> {
    let longest = steps.iter().flat_map(Step::paths).flatten().max_by_key(|path| path.len());
    match longest.map(TreePath::new) {
        Some(Err(_)) => Err(Error::new(
            Code::PathTooLong,
            "a path that would have to be changed is longer than 4095 bytes: shorten it, or move what is there; nothing was changed",
        )),
        _ => Ok(()),
    }
}

/// What changed in a capture since the branch point. Where it is not known any more when the two parted, both are read completely.
fn changes(op: &Op, base: &Volume, capture: &Volume) -> Result<Vec<Record>> {
    let read = |walk: bool| {
        let stop = || op.progress.must_stop();
        let options = Options { walk, stop: Some(&stop), ..Options::default() };
        let pair = VolumePair { old: Some(base), new: Some(capture), prefix: b"", ancestor: None, small: false };
        let (mut records, mut bytes) = (Vec::new(), 0);
        let compared = op.world.store.compare(&[pair], &options, &mut |r| {
            if records.len() == MOST_CHANGES {
                return Err(Error::new(Code::DiffTooLarge, format!("more than {MOST_CHANGES} names were changed since the branch point")));
            }
            bytes += r.path.len() + r.link_of.as_ref().map_or(0, Vec::len) + if let Kind::Renamed { from } = &r.kind { from.len() } else { 0 };
            if bytes > MOST_BYTES {
                return Err(Error::new(Code::DiffTooLarge, "the paths that were changed since the branch point take more than 256 MiB"));
            }
            records.push(r);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok::<_, Error>((records, compared))
    };
    let (records, compared) = match read(false) {
        Err(e) if e.code() == Code::DiffNeedsWalk => {
            tracing::info!(operation = %op.id, why = e.message(), "a promotion reads both volumes completely");
            read(true)?
        }
        found => found?,
    };
    if compared.method == Method::Walk {
        return Err(Error::new(Code::NotRelated, "the volumes share no history: what changed in one cannot be told from what is another's"));
    }
    Ok(records)
}

/// The records without those of names that are a machine's own, and those names.
fn split_own(records: Vec<Record>) -> (Vec<Record>, Vec<Vec<u8>>) {
    let mut own = Vec::new();
    let mut work = records;
    work.retain(|r| {
        let mine = is_own(&r.path) || matches!(&r.kind, Kind::Renamed { from } if is_own(from));
        if mine {
            own.push(r.path.clone());
            own.extend(if let Kind::Renamed { from } = &r.kind { Some(from.clone()) } else { None });
        }
        !mine
    });
    (work, own)
}

/// See [`crate::Host::promote_container`].
pub(crate) fn promote(world: &World, caller: &Caller, id: &ContainerId, request: &PromoteRequest) -> Result<Promoted> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let target = target_of(world, id, request)?;
    if target == *id {
        return Err(Error::new(Code::ValidationError, "into: a container cannot take over its own changes: name another"));
    }
    let held = world.engine.lock(caller, claim_of(id, &target))?;
    super::room::check(world, caller, &target)?;
    merging(world)?;
    let (fork, target) = world.read(|c| Ok((containers::get(c, id)?, containers::get(c, &target)?)))?;
    require_changeable(&fork)?;
    require_changeable(&target)?;
    let at: Branch = branch_point::common(world, &fork, &target)?;
    let kept = Kept::for_undo(world, &target.id, format!("the state before the changes of {} were taken over", fork.name))?;
    let exchange = Exchange::plan(world, &target, kept, None, DatabasesPlan::Keep, &caller.by)?;
    let branch_point = BranchPoint { container_id: at.container, snapshot: at.snapshot.snapshot.name };
    let intent = Promote { fork: fork.id, branch_point, prefer: request.prefer, exchange, outcome: Outcome::default() };
    begin(world, caller, held, intent, &target)
}

fn begin(world: &World, caller: &Caller, held: super::Held, intent: Promote, target: &ContainerRow) -> Result<Promoted> {
    let mut going_on = intent.answer(String::new(), None);
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&target.project), |_| Ok(()))?;
    let operation = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(promoted) => Ok(promoted),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => {
            going_on.message = format!("the changes are being taken over: GET /operations/{operation} says how it ends");
            (going_on.changes, going_on.conflict_count, going_on.operation_id) = (None, None, Some(operation));
            Ok(going_on)
        }
    }
}

/// The container that takes a fork's changes over.
///
/// # Errors
/// `not_a_copy`, `source_container_not_found`, `container_not_found`, `invalid_id_format`.
pub(crate) fn target_of(world: &World, fork: &ContainerId, request: &PromoteRequest) -> Result<ContainerId> {
    let row = world.read(|c| containers::get(c, fork))?;
    match &request.into {
        Some(into) => into.parse(),
        None => branch_point::source(world, &row).map(|s| s.id),
    }
}
