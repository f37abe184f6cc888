//! Starts, stops, restarts, pauses and resumes a container.

use super::automatic::{self, Occasion};
use super::observed::{Observed, lifecycle_answer, note_observed, observe, recover_start, thaw};
use super::snapshot;
use super::{Begun, Claim, Ended, Held, Op, Operation, Recovery, Want};
use crate::catalog::containers::Desired;
use crate::catalog::{Durability, containers, ms};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, RunId};
use crate::model::{AutomaticEvent, LifecycleAnswer, Status, Verb};
use crate::op::Caller;
use crate::runtime::Running;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lifecycle {
    pub container: ContainerId,
    pub verb: Verb,
    /// The run that a start or restart begins.
    pub run: RunId,
    /// Who asked, for the status log.
    #[serde(default = "user")]
    pub by: String,
    /// How long a stop waits for init before it kills it.
    #[serde(default)]
    pub stop_timeout: Option<Duration>,
}

fn user() -> String {
    "user".into()
}

fn kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "container.start",
        Verb::Stop => "container.stop",
        Verb::ForceStop => "container.force-stop",
        Verb::Restart => "container.restart",
        Verb::Pause => "container.pause",
        Verb::Resume => "container.resume",
    }
}

impl Operation for Lifecycle {
    type World = World;
    type Answer = LifecycleAnswer;
    const TAG: &'static str = "lifecycle";

    fn kind(&self) -> &'static str {
        kind(self.verb)
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short(kind(self.verb), vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<LifecycleAnswer> {
        let world = op.world.clone();
        let id = &self.container;
        let started = self.act(op, &world)?;
        if self.verb == Verb::Stop {
            self.keep_stopped(&world, &op.held()?)?;
        }
        let status = self.status_after();
        let answer = op.finish(Durability::Process, |tx| {
            let r = tx.change_container(id, &self.by, None, |r| {
                r.status = status;
                r.state.message = None;
                r.state.desired = if status == Status::Stopped { Desired::Stopped } else { Desired::Running };
                if let Some(s) = &started {
                    r.state.started_ms = Some(ms(s.started_at));
                }
            })?;
            if self.verb == Verb::Restart {
                // The status is what it was, but the processes are others.
                tx.emit_container("container.running", &r, serde_json::json!({ "triggered_by": self.by, "restarted": true }))?;
            }
            Ok(LifecycleAnswer { message: format!("the container is {status}"), ..lifecycle_answer(&r, self.verb, &op.id) })
        })?;
        world.exits.note(id)?;
        if started.is_none() {
            return Ok(answer);
        }
        // An init that ends at once has said why by now, perhaps.
        let now = world.read(|c| containers::get(c, id))?;
        let ended = now.state.message.filter(|_| now.status == Status::Stopped);
        Ok(ended.map_or(answer.clone(), |why| LifecycleAnswer {
            status: Status::Stopped,
            message: format!("the container was started and has ended: {why}"),
            ..answer
        }))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id, verb) = (r.world, &self.container, self.verb);
        match verb {
            Verb::Start | Verb::Restart => {
                recover_start(r, id, &self.run, |_, row| Ok(serde_json::to_value(lifecycle_answer(row, verb, r.id)).unwrap_or_default()))
            }
            Verb::Stop | Verb::ForceStop => {
                world.runtime.kill(id)?;
                if verb == Verb::Stop {
                    snapshot::recover_inner(r, id)?;
                    self.keep_stopped(world, &r.held()?)?;
                }
                r.finished(|tx| {
                    let row = tx.change_container(id, "system", None, |r| {
                        r.status = Status::Stopped;
                        r.state.desired = Desired::Stopped;
                    })?;
                    Ok(lifecycle_answer(&row, verb, r.id))
                })
            }
            Verb::Pause | Verb::Resume => {
                thaw(world, id)?;
                let observed = observe(world, id)?;
                // A pause is undone. A resume is thereby finished, and must not be refused when it is asked for again with its key.
                if verb == Verb::Resume && r.error.is_none() && matches!(observed, Observed::Running(..)) {
                    return r.finished(|tx| {
                        note_observed(tx, id, &observed)?;
                        Ok(lifecycle_answer(&containers::get(tx.conn, id)?, verb, r.id))
                    });
                }
                r.undone(|tx| match observed {
                    // Its processes ended with the host's uptime. What it is now follows when containers are compared with what runs.
                    Observed::Nothing => Ok(()),
                    observed => note_observed(tx, id, &observed),
                })
            }
        }
    }
}

impl Lifecycle {
    /// The snapshot at a stop, if the policy asks for one. It is taken of a container that is stopped, within this operation: after a crash it is not forgotten.
    fn keep_stopped(&self, world: &World, held: &Held) -> Result<()> {
        let id = &self.container;
        if !automatic::is_wanted(world, id, AutomaticEvent::Stop)? {
            return Ok(());
        }
        world.write(Durability::Process, |tx| {
            tx.change_container(id, &self.by, None, |r| {
                r.status = Status::Stopped;
                r.state.message = None;
            })
        })?;
        automatic::take_under(world, held, id, Occasion { event: AutomaticEvent::Stop, why: "taken when the container was stopped" })
    }

    fn act(&self, op: &Op, world: &World) -> Result<Option<Running>> {
        let id = &self.container;
        let timeout = self.stop_timeout.unwrap_or(world.settings.stop_timeout);
        match self.verb {
            Verb::Start | Verb::Restart => {
                if self.verb == Verb::Restart {
                    op.step("stop")?;
                    world.runtime.stop(id, timeout)?;
                }
                op.step("boot")?;
                return world.starter.start(&world.read(|c| containers::get(c, id))?, &self.run).map(Some);
            }
            Verb::Stop => {
                op.step("stop")?;
                world.runtime.stop(id, timeout)?;
            }
            Verb::ForceStop => {
                op.step("kill")?;
                world.runtime.kill(id)?;
            }
            Verb::Pause => {
                op.step("freeze")?;
                world.freezing.freeze(id)?;
            }
            Verb::Resume => {
                op.step("thaw")?;
                world.freezer.thaw(id)?;
            }
        }
        Ok(None)
    }

    fn status_after(&self) -> Status {
        match self.verb {
            Verb::Start | Verb::Restart | Verb::Resume => Status::Running,
            Verb::Stop | Verb::ForceStop => Status::Stopped,
            Verb::Pause => Status::Paused,
        }
    }
}

/// Whether a verb is allowed in a state, else why not. Pure.
fn allowed(verb: Verb, status: Status) -> Result<(), &'static str> {
    use Status as S;
    match (verb, status) {
        (_, S::Creating | S::Copying | S::Claiming) => Err("it is still being made"),
        (_, S::Deleting | S::Deleted) => Err("it is being deleted"),
        (Verb::Start, S::Running) => Err("it runs already"),
        (Verb::Start, S::Paused) => Err("it is paused: resume it"),
        (Verb::Stop | Verb::ForceStop | Verb::Pause, S::Stopped | S::Failed) => Err("it does not run"),
        (Verb::Pause, S::Paused) => Err("it is paused already"),
        (Verb::Resume, S::Paused) => Ok(()),
        (Verb::Resume, _) => Err("it is not paused"),
        _ => Ok(()),
    }
}

/// See [`crate::Host::lifecycle`].
pub(crate) fn lifecycle(world: &World, caller: &Caller, id: &ContainerId, verb: Verb, timeout: Option<Duration>) -> Result<LifecycleAnswer> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let seen = world.read(|c| containers::get(c, id))?;
    let run = RunId::generate();
    let intent = Lifecycle { container: id.clone(), verb, run: run.clone(), by: caller.by.clone(), stop_timeout: timeout };
    let held = world.engine.lock(caller, intent.claim())?;
    let row = world.read(|c| containers::get(c, id))?;
    super::copied::require_complete(&row)?;
    if let Err(why) = allowed(verb, row.status) {
        return Err(Error::new(Code::OperationStateConflict, format!("cannot {} container {id} while it is {}: {why}", verb.as_str(), row.status)));
    }
    let quick = matches!(verb, Verb::Pause | Verb::Resume);
    // What is frozen ends with the host's uptime. Whether a container runs after the next boot does not, and the answer may come before the change is made.
    let durability = if quick { Durability::Process } else { Durability::Disk };
    let begun = Begun::journal(world, caller, held, durability, intent, Some(&row.project), |tx| {
        if matches!(verb, Verb::Start | Verb::Restart) {
            tx.change_container(id, &caller.by, None, |r| r.state.run = Some(run.clone()))?;
        }
        Ok(())
    })?;
    if quick {
        return begun.run_here();
    }
    let op_id = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(answer) => Ok(answer),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => Ok(LifecycleAnswer {
            error: false,
            operation: verb,
            container_id: id.clone(),
            project_id: row.project,
            message: format!("{} is under way: poll the container or GET /operations/{op_id}", verb.as_str()),
            status: seen.status,
            operation_id: Some(op_id),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_states() {
        assert_eq!(allowed(Verb::Start, Status::Stopped), Ok(()));
        assert!(allowed(Verb::Start, Status::Running).is_err());
        assert!(allowed(Verb::Pause, Status::Paused).is_err());
        assert!(allowed(Verb::Resume, Status::Running).is_err());
        assert!(allowed(Verb::Restart, Status::Deleting).is_err());
        assert_eq!(allowed(Verb::Restart, Status::Paused), Ok(()));
    }
}
