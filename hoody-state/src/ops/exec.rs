//! Runs a command in a container, and a snapshot before it, an undo after it, or a list of what it changed.
//!
//! No lock is held while the command runs, which may be an hour: others may take snapshots meanwhile, and an undo takes back what they did in the container too. If the server ends before the
//! command does, nothing is undone; the snapshot is there.

use super::automatic::{self, Occasion};
use super::{restore, snapshot, snapshot_delete};
use crate::catalog::containers;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::validate;
use crate::model::{AutomaticEvent, ExecDiff, ExecRecord, ExecSnapshot, NewSnapshot, RestoreOptions, Restored, Snapshot, Status, Trigger};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::runtime::{ExecOutput, ExecSpec};
use crate::world::World;
use std::time::Duration;

/// Days after which the snapshot before a command is deleted.
const KEPT_DAYS: u32 = 1;
/// The most characters of a command that a snapshot's description shows.
const SHOWN: usize = 200;
/// How long an undo may take before the answer says that it goes on.
const UNDO_WAIT: Duration = Duration::from_secs(300);

/// A command that has ended.
#[derive(Debug)]
pub struct Executed {
    /// What it gave.
    pub output: ExecOutput,
    /// The snapshot that was taken before it.
    pub snapshot: Option<Snapshot>,
    /// What changed while it ran, if that was asked for, or why that cannot be said.
    pub diff: Option<Result<ExecDiff>>,
    /// The restore of that snapshot, if the command failed and was to be undone.
    pub undone: Option<Restored>,
}

/// Compares a snapshot with the present state.
pub(crate) type Differ<'a> = &'a dyn Fn(&SnapshotName) -> Result<ExecDiff>;

/// See [`crate::Host::exec`].
pub(crate) fn exec(world: &World, id: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
    let output = run(world, id, spec)?;
    if failed(&output) {
        keep_failed(world, id, spec, &output)?;
    }
    Ok(output)
}

fn failed(output: &ExecOutput) -> bool {
    output.exit_code != 0 || output.timed_out
}

/// The snapshot after a command that failed, if the policy asks for one.
fn keep_failed(world: &World, id: &ContainerId, spec: &ExecSpec, output: &ExecOutput) -> Result<()> {
    let how = if output.timed_out { "ran out of time".to_owned() } else { format!("failed with exit code {}", output.exit_code) };
    automatic::take(world, id, Occasion { event: AutomaticEvent::ExecFailure, why: &format!("taken after the command {} {how}", shown(spec)) })
}

fn run(world: &World, id: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
    check(spec)?;
    let r = world.read(|c| containers::get(c, id))?;
    match r.status {
        Status::Running => world.runtime.exec(id, spec),
        Status::Paused => Err(Error::new(Code::ContainerPaused, format!("container {id} is paused: resume it first"))),
        Status::Creating | Status::Copying => {
            Err(Error::new(Code::ContainerNotRunning, format!("container {id} is still {}: wait until it runs (GET /containers/{id})", r.status)))
        }
        other => {
            let why = r.state.message.map_or_else(String::new, |why| format!(" ({why})"));
            Err(Error::new(Code::ContainerNotRunning, format!("container {id} is {other}{why}: start it first")))
        }
    }
}

fn check(spec: &ExecSpec) -> Result<()> {
    validate::command(&spec.command)?;
    spec.env.iter().try_for_each(|(k, v)| validate::variable(k, v, 0, 32768))
}

/// See [`crate::Host::exec_recorded`].
pub(crate) fn recorded(world: &World, caller: &Caller, id: &ContainerId, spec: &ExecSpec, record: &ExecRecord, differ: Differ<'_>) -> Result<Executed> {
    if record.snapshot.is_none() && !record.diff {
        return Ok(Executed { output: exec(world, id, spec)?, snapshot: None, diff: None, undone: None });
    }
    let undoes = record.snapshot == Some(ExecSnapshot::OnFailureUndo);
    check(spec)?;
    let status = world.read(|c| containers::get(c, id))?.status;
    if status != Status::Running {
        // Refused before a snapshot is taken for it, with the reason.
        run(world, id, spec)?;
    }
    if undoes {
        // What could not be undone is refused before anything is done for it.
        world.databases.require_choice(&world.read(|c| containers::get(c, id))?, record.databases)?;
    }
    let caller = Caller { idempotency: None, wait: UNDO_WAIT, ..caller.clone() };
    let before = take(world, &caller, id, spec)?;
    let name = before.name.as_str();
    let output = match run(world, id, spec) {
        Ok(output) => output,
        // The client went away in the middle: what the command did is half done.
        Err(e) if e.code() == Code::ExecCancelled && record.snapshot.is_some() => {
            if undoes {
                undo(world, &caller, id, name, record, "was ended by its caller")?;
            }
            return Err(e);
        }
        Err(e) => {
            // It did not run, or nobody has asked for a snapshot.
            drop_taken(world, &caller, id, &before);
            return Err(e);
        }
    };
    let diff = record.diff.then(|| differ(&before.name));
    if record.snapshot.is_none() {
        drop_taken(world, &caller, id, &before);
        if failed(&output) {
            keep_failed(world, id, spec, &output)?;
        }
        return Ok(Executed { output, snapshot: None, diff, undone: None });
    }
    let failed = failed(&output);
    if failed && !undoes {
        keep_failed(world, id, spec, &output)?;
    }
    // What is undone is in the undo snapshot.
    let undone = (failed && undoes).then(|| undo(world, &caller, id, name, record, &format!("failed with exit code {}", output.exit_code))).transpose()?;
    Ok(Executed { output, snapshot: Some(before), diff, undone })
}

fn take(world: &World, caller: &Caller, id: &ContainerId, spec: &ExecSpec) -> Result<Snapshot> {
    let new = NewSnapshot { description: Some(format!("taken before the command {}", shown(spec))), expiry: Some(KEPT_DAYS.into()), ..Default::default() };
    Ok(snapshot::create_for(world, caller, id, new, Trigger::Exec)?.snapshot)
}

fn shown(spec: &ExecSpec) -> String {
    spec.command.join(" ").chars().take(SHOWN).collect()
}

fn undo(world: &World, caller: &Caller, id: &ContainerId, name: &str, record: &ExecRecord, ended: &str) -> Result<Restored> {
    let options = RestoreOptions { databases: record.databases, ..Default::default() };
    restore::restore(world, caller, id, name, options)
        .map_err(|e| e.context(format!("the command {ended}, and it could not be undone; the snapshot before it is {name}")))
}

/// Deletes a snapshot that was taken for a command which then did not run.
fn drop_taken(world: &World, caller: &Caller, id: &ContainerId, s: &Snapshot) {
    if let Err(e) = snapshot_delete::delete(world, caller, id, s.name.as_str()) {
        tracing::warn!(container = %id, snapshot = %s.name, error = %e, "a snapshot that was taken for a command stays");
    }
}
