use crate::catalog::containers::Desired;
use crate::catalog::{Durability, containers, ms};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, RunId};
use crate::model::{LifecycleAnswer, Status, Verb};
use crate::op::{Intent, Op};
use std::time::Duration;

/// Whether a verb is allowed in a state, and if so whether there is anything to do. Pure.
fn allowed(verb: Verb, status: Status) -> Result<bool, &'static str> {
    use Status as S;
    match (verb, status) {
        (_, S::Creating | S::Copying | S::Claiming) => Err("it is still being made"),
        (_, S::Deleting | S::Deleted) => Err("it is being deleted"),
        (Verb::Start, S::Running) => Err("it runs already"),
        (Verb::Start, S::Paused) => Err("it is paused: resume it"),
        (Verb::Start, S::Stopped | S::Failed) => Ok(true),
        (Verb::Stop | Verb::ForceStop, S::Running | S::Paused) => Ok(true),
        (Verb::Stop | Verb::ForceStop, S::Stopped | S::Failed) => Err("it does not run"),
        (Verb::Restart, _) => Ok(true),
        (Verb::Pause, S::Running) => Ok(true),
        (Verb::Pause, S::Paused) => Err("it is paused already"),
        (Verb::Pause, S::Stopped | S::Failed) => Err("it does not run"),
        (Verb::Resume, S::Paused) => Ok(true),
        (Verb::Resume, _) => Err("it is not paused"),
    }
}

impl Host {
    /// Starts, stops, restarts, pauses or resumes. Work that outlasts `caller.wait` continues in the background: the answer then has the state so far.
    /// `timeout` is how long a stop waits for init before it kills.
    ///
    /// # Errors
    /// `container_not_found`, `operation_state_conflict`, `operation_in_progress`, `start_failed`, `runtime_not_found`, `freeze_timeout`.
    pub fn lifecycle(&self, caller: &Caller, id: &ContainerId, verb: Verb, timeout: Option<Duration>) -> Result<LifecycleAnswer> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let seen = self.0.catalog.read(|c| containers::get(c, id))?;
        let run = RunId::generate();
        let intent = Intent::Lifecycle { container: id.clone(), verb, run: run.clone() };
        let lock = self.0.locks.take(id.as_str(), intent.kind())?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        super::copy::whole(&row)?;
        if let Err(why) = allowed(verb, row.status) {
            return Err(Error::new(Code::OperationStateConflict, format!("cannot {} container {id} while it is {}: {why}", verb.as_str(), row.status)));
        }
        let quick = matches!(verb, Verb::Pause | Verb::Resume);
        // What is frozen ends with the host's uptime. Whether a container runs after the next boot does not, and the answer may come before the change is made.
        let durability = if quick { Durability::Process } else { Durability::Disk };
        let op = self.begin(caller, lock, durability, intent, Some(&row.project), |tx| {
            if matches!(verb, Verb::Start | Verb::Restart) {
                tx.change_container(id, &caller.by, None, |r| r.state.run = Some(run.clone()))?;
            }
            Ok(())
        })?;
        let op_id = op.id.clone();
        let by = caller.by.clone();
        let timeout = timeout.unwrap_or(self.0.settings.stop_timeout);
        let done = if quick {
            self.perform(op, |op| self.lifecycle_steps(op, &by, timeout)).map(Some)?
        } else {
            self.behind(op, caller.wait, move |host, op| host.lifecycle_steps(op, &by, timeout))?
        };
        Ok(done.unwrap_or_else(|| LifecycleAnswer {
            error: false,
            operation: verb,
            container_id: id.clone(),
            project_id: row.project,
            message: format!("{} is under way: poll the container or GET /operations/{op_id}", verb.as_str()),
            status: seen.status,
            operation_id: Some(op_id),
        }))
    }

    fn lifecycle_steps(&self, op: &mut Op, by: &str, timeout: Duration) -> Result<LifecycleAnswer> {
        let Intent::Lifecycle { container: id, verb, run } = op.intent.clone() else { return Err(Error::internal("not a lifecycle verb")) };
        let mut started = None;
        match verb {
            Verb::Start | Verb::Restart => {
                if verb == Verb::Restart {
                    op.step("stop")?;
                    self.0.runtime.stop(&id, timeout)?;
                }
                op.step("boot")?;
                started = Some(self.boot(&self.0.catalog.read(|c| containers::get(c, &id))?, &run)?);
            }
            Verb::Stop => {
                op.step("stop")?;
                self.0.runtime.stop(&id, timeout)?;
            }
            Verb::ForceStop => {
                op.step("kill")?;
                self.0.runtime.kill(&id)?;
            }
            Verb::Pause => {
                op.step("freeze")?;
                self.freeze(&id)?;
            }
            Verb::Resume => {
                op.step("thaw")?;
                self.0.freezer.thaw(&id)?;
            }
        }
        let status = match verb {
            Verb::Start | Verb::Restart | Verb::Resume => Status::Running,
            Verb::Stop | Verb::ForceStop => Status::Stopped,
            Verb::Pause => Status::Paused,
        };
        let desired = if status == Status::Stopped { Desired::Stopped } else { Desired::Running };
        let answer = op.finish(Durability::Process, |tx| {
            let r = tx.change_container(&id, by, None, |r| {
                r.status = status;
                r.state.message = None;
                r.state.desired = desired;
                if let Some(s) = &started {
                    r.state.started_ms = Some(ms(s.started_at));
                }
            })?;
            if verb == Verb::Restart {
                // The status is what it was, but the processes are others.
                tx.emit_container("container.running", &r, serde_json::json!({ "triggered_by": by, "restarted": true }))?;
            }
            Ok(LifecycleAnswer {
                error: false,
                operation: verb,
                container_id: id.clone(),
                project_id: r.project,
                message: format!("the container is {status}"),
                status,
                operation_id: Some(op.id.clone()),
            })
        })?;
        self.note_exit(&id)?;
        if started.is_none() {
            return Ok(answer);
        }
        // An init that ends at once has said why by now, perhaps.
        let now = self.0.catalog.read(|c| containers::get(c, &id))?;
        let ended = now.state.message.filter(|_| now.status == Status::Stopped);
        Ok(ended.map_or(answer.clone(), |why| LifecycleAnswer {
            status: Status::Stopped,
            message: format!("the container was started and has ended: {why}"),
            ..answer
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_states() {
        assert_eq!(allowed(Verb::Start, Status::Stopped), Ok(true));
        assert!(allowed(Verb::Start, Status::Running).is_err());
        assert!(allowed(Verb::Pause, Status::Paused).is_err());
        assert!(allowed(Verb::Resume, Status::Running).is_err());
        assert!(allowed(Verb::Restart, Status::Deleting).is_err());
        assert_eq!(allowed(Verb::Restart, Status::Paused), Ok(true));
    }
}
