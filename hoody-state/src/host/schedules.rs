//! The runner of schedules: it sleeps until the next run is due, and runs what is due, a few containers at once. While nothing is due, nothing wakes. A run is a
//! time of day: a suspend, or a clock that is set, puts off none ([`crate::sys::alarm`]).

use super::Host;
use crate::catalog::policies::{self, ScheduleRow};
use crate::catalog::{Durability, containers};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{ScheduleCounts, Status};
use crate::ops::scheduled::{self, Ended};
use crate::services::policies::{AT_ONCE, Turn};
use crate::sys::alarm::Woken;
use crate::world::{WeakWorld, World};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// When the runner looks again at what could not be done and not even be written down.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// A next run that is further away than the schedule says by this much comes from a clock that was wrong.
const TOO_FAR: SignedDuration = SignedDuration::from_hours(24);
/// How long [`Host::run_due_schedules`] waits for what it began.
const PATIENCE: Duration = Duration::from_secs(600);

/// Starts the runner's thread, which ends with the host.
pub(crate) fn start(host: &Host) -> Result<()> {
    let weak = host.0.downgrade();
    let policies = Arc::clone(&host.0.policies);
    let run = move || {
        let mut next: Option<SystemTime> = Some(SystemTime::UNIX_EPOCH);
        let mut first = true;
        loop {
            let woken = policies.wait(next).unwrap_or_else(|e| {
                tracing::warn!(error = %e, "cannot wait for the next run of a schedule; looking again in a second");
                std::thread::sleep(Duration::from_secs(1));
                Woken { due: true, ..Woken::default() }
            });
            let Some(world) = weak.upgrade() else { return };
            if policies.line.is_closed() {
                return;
            }
            let clock = std::mem::take(&mut first) || woken.clock_changed;
            policies.looks();
            let start = look(&world, clock, clock || woken.due).unwrap_or_else(|e| {
                tracing::warn!(error = %e, "cannot read which schedules are due; trying again");
                world.now().checked_add(AGAIN).ok()
            });
            policies.sleeps(start);
            let left = start.map(|t| t.duration_since(world.now()).max(SignedDuration::from_millis(1)));
            next = left.and_then(|d| SystemTime::now().checked_add(d.unsigned_abs()));
        }
    };
    std::thread::Builder::new().name("schedules".into()).spawn(run).map_err(|e| Error::io("start the thread of the schedules", e))?;
    Ok(())
}

/// Starts what is due; when the next run starts, beside those that are due. `clock`: the clock may have been set. `all`: also what waits for another operation is tried.
fn look(world: &World, clock: bool, all: bool) -> Result<Option<Timestamp>> {
    if clock {
        // What the clock was when it was believed is written down before anything is removed by it.
        world.policies.clock_moved()?;
        bring_near(world)?;
    }
    let now = world.now();
    let (due, next) = world.read(|c| policies::due(c, now))?;
    let line = &world.policies.line;
    let due = if all { due } else { line.without_waiting(due) };
    for _ in 0..line.enter(due, now, AT_ONCE) {
        let weak = world.downgrade();
        if let Err(e) = std::thread::Builder::new().name("schedule".into()).spawn(move || work(&weak)) {
            line.worker_missing();
            line.look_again(now.checked_add(AGAIN).unwrap_or(now));
            tracing::warn!(error = %e, "cannot start a thread for scheduled snapshots");
        }
    }
    Ok(next.into_iter().chain(line.again_at()).min())
}

/// Next runs that a clock far ahead has put off come back to where the schedule has them.
fn bring_near(world: &World) -> Result<()> {
    let now = world.now();
    let mut changed = Vec::new();
    for row in world.read(policies::all_schedules)? {
        let Some(plan) = world.policies.plan_of(&row.container).unwrap_or_default() else { continue };
        let Some(schedule) = plan.schedule(&row.schedule) else { continue };
        let expected = policies::first_run(&row.container, schedule, now, Some(&row));
        let is_far = |a: Timestamp, b: Timestamp| a.duration_since(b) > TOO_FAR;
        if is_far(row.due, expected.due) || is_far(row.start, expected.start) {
            changed.push(expected);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    world.write(Durability::Process, |tx| changed.iter().try_for_each(|row| tx.put_schedule(row)))
}

/// A worker: takes turns until there are none.
fn work(weak: &WeakWorld) {
    loop {
        let Some(world) = weak.upgrade() else { return };
        let Some(turn) = world.policies.line.next() else {
            // What has ended has a next run, or is tried again: the runner did not know when, when it fell asleep.
            return world.policies.ring();
        };
        let id = turn.container.clone();
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_turn(&world, &turn)));
        if taken.is_err() {
            tracing::error!(container = %id, "a scheduled snapshot panicked: this is a bug of hoody-state, please report it");
            give_up(&world, &id);
        }
    }
}

/// Runs what is due of a container, one schedule after the other.
fn take_turn(world: &World, turn: &Turn) {
    let (line, id) = (&world.policies.line, &turn.container);
    loop {
        let due = match world.read(|c| policies::due_of(c, id, world.now())) {
            Ok(due) => due,
            Err(e) => {
                tracing::warn!(container = %id, error = %e, "cannot read what is due");
                return give_up(world, id);
            }
        };
        if due.is_empty() {
            if line.leave(id) {
                return announce_next(world, id);
            }
            continue;
        }
        for row in due {
            match run_one(world, turn, &row) {
                Next::GoOn => {}
                Next::Wait if line.wait(id) => return,
                Next::Wait => break,
                Next::GiveUp => return give_up(world, id),
                Next::Stop => return line.abandon(id),
            }
        }
    }
}

/// The runner did not see the container's next run: its present one was due.
fn announce_next(world: &World, id: &ContainerId) {
    match world.read(|c| policies::first_start_of(c, id)) {
        Ok(next) => world.policies.next_run(next),
        Err(e) => {
            tracing::warn!(container = %id, error = %e, "cannot read when it runs next");
            world.policies.ring();
        }
    }
}

enum Next {
    GoOn,
    /// Another operation has the container.
    Wait,
    GiveUp,
    /// A test wants it to look like a crash.
    Stop,
}

fn run_one(world: &World, turn: &Turn, row: &ScheduleRow) -> Next {
    let (line, counts) = (&world.policies.line, &world.policies.counts);
    let noticed = line.noticed(turn, &row.schedule);
    match scheduled::run(world, row, noticed) {
        Ok(ended) => {
            match ended {
                Ended::Taken { missed } => {
                    counts.taken.add(1);
                    counts.made_up.add(missed);
                }
                Ended::Unchanged => counts.unchanged.add(1),
                Ended::NotRunning => counts.not_running.add(1),
                Ended::Gone => {}
            }
            line.run_ended(&row.container, &row.schedule);
            Next::GoOn
        }
        Err(e) if e.code() == Code::Crashed => Next::Stop,
        Err(e) if e.kind() == crate::error::Kind::Busy => Next::Wait,
        Err(_) if is_gone(world, &row.container) => {
            line.run_ended(&row.container, &row.schedule);
            let gone = world.write(Durability::Process, |tx| tx.keep_schedules(&row.container, &std::collections::BTreeSet::new()));
            if gone.is_ok() { Next::GoOn } else { Next::GiveUp }
        }
        Err(e) => {
            counts.failed.add(1);
            tracing::warn!(container = %row.container, schedule = row.schedule, error = %e, "a scheduled snapshot could not be taken; trying again");
            match scheduled::note_failed(world, row, &e) {
                Ok(()) => Next::GoOn,
                Err(e) => {
                    tracing::warn!(container = %row.container, error = %e, "and that could not be written down");
                    Next::GiveUp
                }
            }
        }
    }
}

fn is_gone(world: &World, id: &ContainerId) -> bool {
    world.read(|c| containers::find(c, id)).is_ok_and(|row| row.is_none_or(|r| r.status == Status::Deleting))
}

fn give_up(world: &World, id: &ContainerId) {
    let now = world.now();
    world.policies.line.give_up_until(id, now.checked_add(AGAIN).unwrap_or(now));
    world.policies.ring();
}

impl Host {
    /// Runs all schedules that are due, and waits until they are done; in how long the next run is. Public for hosts whose clock is moved, in tests: the
    /// runner's thread does the same at the right time.
    ///
    /// # Errors
    /// Those of the catalog. A snapshot that fails is no error here: it is in the events of its container.
    pub fn run_due_schedules(&self) -> Result<Option<Duration>> {
        look(&self.0, true, true)?;
        self.0.policies.line.wait_idle(PATIENCE);
        let now = self.0.now();
        let first = self.0.read(policies::first_start)?;
        Ok(first.map(|t| t.duration_since(now).max(SignedDuration::ZERO).unsigned_abs()))
    }

    /// What the runner of schedules did since the start, and what it has before it.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn schedule_counts(&self) -> Result<ScheduleCounts> {
        let (under_way, waiting) = self.0.policies.line.lengths();
        let (next_due, failing) = self.0.read(|c| Ok((policies::first_start(c)?, policies::count_failing(c)?)))?;
        Ok(ScheduleCounts { under_way, waiting, failing, next_due, ..self.0.policies.counts.read() })
    }
}
