//! One run of a schedule: which times it stands for, whether a snapshot is due, the snapshot, and the removal of what the schedule does not keep.

use super::prune::{caller, emit, prune};
use super::scheduled_snapshot::ScheduledSnapshot;
use super::snapshot::{claim_of, may_be_snapshotted};
use super::snapshot_row::{free_name, unmeasured};
use super::{Begun, Held};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::policies::{self, ScheduleRow, Slot};
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::{Code, Error, Kind, Result};
use crate::id::ContainerId;
use crate::model::{Snapshot, Status, Trigger, While};
use crate::name::{Alias, SnapshotName};
use crate::retention::PlannedSchedule;
use crate::snapshot::Volume;
use crate::units::Generation;
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// A run that was noticed this much later than it should have started was missed: the server was down, or the machine slept.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// The pause after the first failure; doubled with each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a snapshot, which makes up for so many missed runs.
    Taken { missed: u64 },
    /// Nothing had changed since the last snapshot.
    Unchanged,
    /// The container does not run.
    NotRunning,
    /// There is no such run any more.
    Gone,
}

/// Runs what is due of a schedule. `noticed`: when the runner saw first that it is due. Errors: `operation_in_progress` while another operation has the
/// container; whatever keeps the snapshot from being taken.
pub(crate) fn run(world: &World, due: &ScheduleRow, noticed: Timestamp) -> Result<Ended> {
    let id = &due.container;
    let Some(plan) = world.policies.plan_of(id)? else { return drop_rows(world, id) };
    let Some(schedule) = plan.schedule(&due.schedule) else { return drop_rows(world, id) };
    let Some((slot, missed)) = slot(world, due, schedule, noticed) else {
        // The clock was set back, or the schedule has changed.
        world.write(Durability::Process, |tx| tx.put_schedule(&policies::first_run(id, schedule, tx.now, Some(due))))?;
        return Ok(Ended::Gone);
    };
    let row = world.read(|c| containers::get(c, id))?;
    let held = world.engine.lock(&caller(), claim_of(&row))?;
    let mut ended = take(world, &held, schedule, &slot, missed);
    if ended.as_ref().is_err_and(is_lack_of_room) {
        // What the schedule does not keep may be all that is in the way.
        match prune(world, &held, id, &plan) {
            Ok(0) => {}
            Ok(_) => ended = take(world, &held, schedule, &slot, missed),
            Err(e) if e.code() == Code::Crashed => return Err(e),
            Err(e) => note_not_pruned(world, id, &e),
        }
    }
    let ended = ended?;
    if let Err(e) = prune(world, &held, id, &plan) {
        if e.code() == Code::Crashed {
            return Err(e);
        }
        note_not_pruned(world, id, &e);
    }
    Ok(ended)
}

/// Nothing applies to the container any more that has such a schedule.
fn drop_rows(world: &World, id: &ContainerId) -> Result<Ended> {
    world.write(Durability::Process, |tx| tx.align_schedules(id))?;
    Ok(Ended::Gone)
}

/// The run that is due: the last time by the schedule whose start has come. With it, how many times were missed. Nothing if none has come.
fn slot(world: &World, due: &ScheduleRow, schedule: &PlannedSchedule, noticed: Timestamp) -> Option<(Slot, u64)> {
    if policies::rule(schedule) != due.rule {
        return None;
    }
    let offset = schedule.offset(&due.container);
    let until = world.now().checked_sub(offset).ok()?;
    let before = due.due.checked_sub(SignedDuration::from_millis(1)).ok()?;
    let runs = schedule.between(before, until);
    let scheduled_for = runs.last?;
    let is_late = noticed.duration_since(scheduled_for) > offset + LATE;
    let missed = runs.count.saturating_sub(1) + u64::from(is_late);
    Some((Slot::new(schedule, &due.container, scheduled_for), missed))
}

fn is_lack_of_room(e: &Error) -> bool {
    e.kind() == Kind::NoSpace || e.code() == Code::ContainerSnapshotLimit
}

fn take(world: &World, held: &Held, schedule: &PlannedSchedule, slot: &Slot, missed: u64) -> Result<Ended> {
    let id = &slot.container;
    let row = world.read(|c| containers::get(c, id))?;
    let skip = |ended| {
        world.engine.step("snapshot.schedule", "skip")?;
        world.write(Durability::Process, |tx| tx.end_run(id, slot))?;
        Ok(ended)
    };
    if schedule.schedule().condition == While::Running && !matches!(row.status, Status::Running | Status::Paused) {
        return skip(Ended::NotRunning);
    }
    let last = if schedule.schedule().only_if_changed { world.read(|c| snapshots::newest_of_schedule(c, id, schedule.name()))? } else { None };
    if let Some(last) = &last
        && is_untouched(world, &row, last)?
    {
        return skip(Ended::Unchanged);
    }
    let intent = plan_snapshot(world, &row, schedule, slot, missed, last.map(|s| s.snapshot.name))?;
    let begun = Begun::journal(world, &caller(), held.clone(), Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
    Ok(if begun.run_here()?.is_some() { Ended::Taken { missed } } else { Ended::Unchanged })
}

/// Whether the container has certainly not been written since a snapshot of it. `false` says nothing.
fn is_untouched(world: &World, row: &ContainerRow, last: &SnapshotRow) -> Result<bool> {
    if world.databases.taken_along(row)?.is_some() {
        return Ok(false);
    }
    let seems = || Ok::<_, Error>(world.store.info(&Volume::Live(row.id.clone()))?.is_some_and(|i| i.nested == 0 && i.generation <= last.generation));
    if !seems()? {
        return Ok(false);
    }
    // What was written shows once the pool's transaction has ended.
    world.store.sync()?;
    seems()
}

fn plan_snapshot(
    world: &World,
    row: &ContainerRow,
    schedule: &PlannedSchedule,
    slot: &Slot,
    missed: u64,
    unless_equal_to: Option<SnapshotName>,
) -> Result<ScheduledSnapshot> {
    let id = &row.id;
    world.limits.check_space()?;
    world.limits.check_nested(&Volume::Live(id.clone()))?;
    let now = world.now();
    let (name, alias, alias_of) = world.read(|c| {
        may_be_snapshotted(world, c, row)?;
        let (alias, alias_of) = alias(c, row, schedule, slot.scheduled_for())?;
        Ok((free_name(c, id, SnapshotName::canonical(alias.as_ref(), now))?, alias, alias_of))
    })?;
    let snapshot = Snapshot {
        parent: row.state.head.clone(),
        trigger: Trigger::Schedule,
        schedule: Some(schedule.name().to_owned()),
        scheduled_for: Some(slot.scheduled_for()),
        missed: Some(missed).filter(|n| *n > 0),
        ..unmeasured(name, alias, now)
    };
    let databases = world.databases.taken_along(row)?.is_some();
    let row = Box::new(SnapshotRow { snapshot, generation: Generation(0) });
    Ok(ScheduledSnapshot { container: id.clone(), row, databases, slot: slot.clone(), unless_equal_to, alias_of })
}

/// The alias of a new snapshot, and the snapshot that loses it. An alias without a time in it always names the newest snapshot of its schedule; one with a time
/// gets a number if it is taken.
fn alias(c: &rusqlite::Connection, row: &ContainerRow, schedule: &PlannedSchedule, scheduled_for: Timestamp) -> Result<(Option<Alias>, Option<SnapshotName>)> {
    let wanted = schedule.alias(&row.name, scheduled_for);
    let rolls = schedule.schedule().alias_pattern.as_deref().is_some_and(|p| !p.contains('%'));
    let Some(holder) = snapshots::showing(c, &row.id, &wanted)? else { return Ok((wanted.parse().ok(), None)) };
    let is_own = holder.snapshot.trigger == Trigger::Schedule && holder.snapshot.schedule.as_deref() == Some(schedule.name());
    if rolls && is_own && holder.snapshot.alias.is_some() {
        return Ok((wanted.parse().ok(), Some(holder.snapshot.name)));
    }
    for n in 2..100 {
        let shorter: String = wanted.chars().take(96).collect();
        let numbered = format!("{shorter}-{n}");
        if snapshots::showing(c, &row.id, &numbered)?.is_none() {
            return Ok((numbered.parse().ok(), None));
        }
    }
    Ok((None, None))
}

/// Writes down that a run failed, and when it is tried again: after a pause that grows with each failure, but not later than the next run.
pub(crate) fn note_failed(world: &World, due: &ScheduleRow, e: &Error) -> Result<()> {
    let id = &due.container;
    let plan = world.policies.plan_of(id)?;
    world.write(Durability::Process, |tx| {
        let rows = policies::schedules(tx.conn, id)?;
        // It may have ended meanwhile, or have been changed.
        let Some(mut row) = rows.into_iter().find(|r| r.schedule == due.schedule && r.due == due.due && r.rule == due.rule) else { return Ok(()) };
        row.failures = row.failures.saturating_add(1);
        row.last_error = Some(e.message().chars().take(1000).collect());
        row.start = next_try(tx.now, &row, plan.as_deref().and_then(|p| p.schedule(&row.schedule)));
        tx.put_schedule(&row)?;
        if row.failures == 1 {
            let error = json!({ "code": e.code().as_str(), "message": row.last_error });
            emit(tx, id, "container.snapshot.schedule_failed", json!({ "schedule": row.schedule, "scheduled_for": time_json(row.due), "error": error }))?;
        }
        Ok(())
    })
}

fn next_try(now: Timestamp, row: &ScheduleRow, schedule: Option<&PlannedSchedule>) -> Timestamp {
    let doubled = 1i32.checked_shl(row.failures.saturating_sub(1).min(16)).unwrap_or(i32::MAX);
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    let after_pause = now.checked_add(pause).unwrap_or(now);
    let offset = schedule.map_or(SignedDuration::ZERO, |s| s.offset(&row.container));
    let next_run = schedule.and_then(|s| s.next_after(now.checked_sub(offset).ok()?)?.checked_add(offset).ok());
    next_run.map_or(after_pause, |next| after_pause.min(next))
}

fn time_json(t: Timestamp) -> String {
    crate::clock::rfc3339::format(t)
}

fn note_not_pruned(world: &World, id: &ContainerId, e: &Error) {
    world.policies.counts.prune_failed.add(1);
    tracing::warn!(container = %id, error = %e, "could not remove snapshots that their schedule does not keep; its next run tries again");
    let payload = json!({ "error": { "code": e.code().as_str(), "message": e.message() } });
    if let Err(e) = world.write(Durability::Process, |tx| emit(tx, id, "container.snapshot.prune_failed", payload)) {
        tracing::warn!(container = %id, error = %e, "and could not write that down");
    }
}
