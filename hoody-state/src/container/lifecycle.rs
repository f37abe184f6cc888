use super::places::Places;
use crate::catalog::containers::{ContainerRow, Desired};
use crate::catalog::{Durability, containers, ms};
use crate::error::{Code, Error, Result};
use crate::freeze::{FreezeGuard, FreezeState};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, RunId};
use crate::model::{LifecycleAnswer, Status, Verb};
use crate::op::{Intent, Op};
use crate::runtime::{Limits, RunSpec, Running};
use crate::services::databases::Served;
use crate::snapshot::Volume;
use crate::units::Bytes;
use std::path::Path;
use std::time::Duration;

/// What init is when neither the caller nor the image says: a shell that waits and ends on TERM.
const WAITING_SHELL: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"];

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

    /// Freezes a container. What its processes wait for at the databases does not put that off: see [`LockedDb::park`](crate::locked_db::LockedDb::park).
    pub(super) fn freeze(&self, id: &ContainerId) -> Result<FreezeState> {
        self.0.freezer.freeze_waking(id, self.0.settings.freeze_timeout, &|pids| self.0.databases.end_lock_waits(pids))
    }

    /// The same until the guard is dropped.
    pub(super) fn stand_still(&self, id: &ContainerId) -> Result<FreezeGuard<'_>> {
        FreezeGuard::waking(&*self.0.freezer, id, self.0.settings.freeze_timeout, &|pids| self.0.databases.end_lock_waits(pids))
    }

    /// Boots a container from its live volume.
    pub(crate) fn boot(&self, r: &ContainerRow, run: &RunId) -> Result<Running> {
        self.0.settings.host_network.check(r.spec.network, false)?;
        let root = self.0.store.path(&Volume::Live(r.id.clone()));
        let limits = Limits { memory: r.spec.memory_mib.map(Bytes::mib), cpus: r.spec.cpu };
        let command = if r.spec.command.is_empty() { default_command(root.as_deref()) } else { r.spec.command.clone() };
        self.0.runtime.prepare(&r.id, &limits)?;
        if let Some(root) = &root {
            self.put_etc_right(root, &hostname(r.name.as_str()));
        }
        let seen = self.0.shares.changes();
        let start = |places: Places| {
            self.0.runtime.start(&RunSpec {
                container: r.id.clone(),
                run: run.clone(),
                root: root.clone(),
                command: command.clone(),
                env: r.spec.env.clone(),
                cwd: "/".into(),
                hostname: hostname(r.name.as_str()),
                network: r.spec.network,
                limits,
                mounts: places.mounts,
                shares: places.shares,
            })
        };
        let places = self.places(r, root.as_deref())?;
        let with_shares = places.shares.as_ref().is_some_and(|s| !s.is_empty());
        let mut served = places.databases.clone();
        let mut started = start(places);
        if started.is_err() && served.as_ref().is_some_and(Served::died) {
            let places = self.places(r, root.as_deref())?;
            served = places.databases.clone();
            started = start(places);
        }
        let running = started?;
        if served.as_ref().is_some_and(Served::died) {
            self.0.databases.remount(r, &*self.0.runtime);
        }
        // What changed meanwhile was left to us; a runtime without files has mounted nothing.
        let changed = self.0.shares.changes() != seen;
        if changed || (with_shares && root.is_none()) {
            self.0.shares.sync_each(&[&r.id]);
        }
        Ok(running)
    }
}

/// A host name of the container's name: `_` is not allowed in one, 63 characters are the most.
fn hostname(name: &str) -> String {
    let h: String = name.chars().map(|c| if c == '_' { '-' } else { c }).take(63).collect();
    let h = h.trim_matches('-');
    if h.is_empty() { "container".into() } else { h.to_owned() }
}

/// The image's own init if it has one, else a shell that waits. Links are resolved inside the root, whatever they say.
fn default_command(root: Option<&Path>) -> Vec<String> {
    let Some(root) = root else { return vec!["/sbin/init".into()] };
    for init in ["sbin/init", "init"] {
        if exists_in_root(root, init) {
            return vec![format!("/{init}")];
        }
    }
    WAITING_SHELL.map(String::from).to_vec()
}

fn exists_in_root(root: &Path, path: &str) -> bool {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let Ok(dir) = std::fs::File::open(root) else { return false };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&dir, path, how).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_made_of_any_container_name() {
        assert_eq!(hostname("web_1"), "web-1");
        assert_eq!(hostname("---"), "container");
        assert_eq!(hostname(&"a".repeat(100)).len(), 63);
    }

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
