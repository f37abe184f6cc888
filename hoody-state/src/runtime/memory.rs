//! In memory: runs are rows. For tests of what stands above.

use super::{ExecOutput, ExecSpec, Exit, ExitListener, Limits, OomListener, RunSpec, Running, Runtime, RuntimeStats};
use crate::cgroup::Limit;
use crate::error::{Code, Error, Result};
use crate::freeze::Freezer;
use crate::id::{ContainerId, RunId};
use crate::model::mount::Mount;
use crate::units::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A runtime without processes.
#[derive(Default)]
pub struct MemoryRuntime {
    world: Arc<Mutex<World>>,
    listener: OnceLock<ExitListener>,
    oom_listener: OnceLock<OomListener>,
    freezer: Option<Arc<dyn Freezer>>,
}

/// What outlives a [`MemoryRuntime`], as the kernel does.
#[derive(Default)]
struct World {
    containers: BTreeMap<ContainerId, Row>,
    fail_next_start: bool,
}

#[derive(Default)]
struct Row {
    running: Option<Running>,
    console: Vec<u8>,
    memory: Bytes,
}

impl MemoryRuntime {
    /// Nothing runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing runs; what is started, stopped and killed is thawed in `freezer`, as the kernel's groups are by a real runtime.
    #[must_use]
    pub fn with_freezer(freezer: Arc<dyn Freezer>) -> Self {
        MemoryRuntime { freezer: Some(freezer), ..Self::default() }
    }

    /// Another on the same world, as after a restart of the server: it has no listener and has adopted nothing.
    #[must_use]
    pub fn restarted(&self) -> Self {
        MemoryRuntime { world: Arc::clone(&self.world), listener: OnceLock::new(), oom_listener: OnceLock::new(), freezer: self.freezer.clone() }
    }

    /// The container's init exits with `code`, and it is reported. False when it does not run.
    pub fn crash(&self, container: &ContainerId, code: i32) -> bool {
        self.end(container, Some(code))
    }

    /// Something in the container is killed for lack of memory; init goes on.
    pub fn use_up_memory(&self, container: &ContainerId) {
        if let Some(listener) = self.oom_listener.get() {
            listener(container);
        }
    }

    /// The next start fails with `start_failed`.
    pub fn fail_next_start(&self) {
        self.lock().fail_next_start = true;
    }

    /// The container writes to its console.
    pub fn write_console(&self, container: &ContainerId, text: &[u8]) {
        self.lock().containers.entry(container.clone()).or_default().console.extend_from_slice(text);
    }

    /// What the container's memory is said to be.
    pub fn set_memory(&self, container: &ContainerId, memory: Bytes) {
        self.lock().containers.entry(container.clone()).or_default().memory = memory;
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thaw(&self, container: &ContainerId) {
        if let Some(f) = &self.freezer {
            // A group that was removed is not frozen.
            let _ = f.thaw(container);
        }
    }

    fn end(&self, container: &ContainerId, code: Option<i32>) -> bool {
        let ended = self.lock().containers.get_mut(container).and_then(|r| r.running.take());
        let Some(run) = ended.map(|r| r.run) else { return false };
        self.report(container, &run, code);
        true
    }

    fn report(&self, container: &ContainerId, run: &RunId, code: Option<i32>) {
        if let Some(listener) = self.listener.get() {
            listener(container, run, Exit::of_code(code));
        }
    }
}

impl Runtime for MemoryRuntime {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn set_exit_listener(&self, listener: ExitListener) {
        if self.listener.set(listener).is_err() {
            tracing::warn!("the exit listener was set twice; the first stays");
        }
    }

    fn set_oom_listener(&self, listener: OomListener) {
        if self.oom_listener.set(listener).is_err() {
            tracing::warn!("the listener for lack of memory was set twice; the first stays");
        }
    }

    fn prepare(&self, container: &ContainerId, limits: &Limits) -> Result<()> {
        Limit::memory(limits.memory)?;
        Limit::cpus(limits.cpus)?;
        self.lock().containers.entry(container.clone()).or_default();
        Ok(())
    }

    fn start(&self, spec: &RunSpec) -> Result<Running> {
        self.prepare(&spec.container, &spec.limits)?;
        self.thaw(&spec.container);
        let mut world = self.lock();
        if std::mem::take(&mut world.fail_next_start) {
            return Err(Error::new(Code::StartFailed, format!("container {} could not run {:?}: a test asked for it", spec.container, spec.command)));
        }
        let row = world.containers.entry(spec.container.clone()).or_default();
        if row.running.is_some() {
            return Err(Error::new(Code::AlreadyRunning, format!("container {} has processes already: stop it first", spec.container)));
        }
        let running = Running { run: spec.run.clone(), pid: 0, started_at: Timestamp::now() };
        row.running = Some(running.clone());
        Ok(running)
    }

    fn adopt(&self, container: &ContainerId) -> Result<Option<Running>> {
        Ok(self.lock().containers.get(container).and_then(|r| r.running.clone()))
    }

    fn stop(&self, container: &ContainerId, _timeout: Duration) -> Result<()> {
        self.thaw(container);
        self.end(container, Some(143));
        Ok(())
    }

    fn kill(&self, container: &ContainerId) -> Result<()> {
        self.thaw(container);
        self.end(container, Some(137));
        Ok(())
    }

    /// Succeeds, and gives back what it was fed.
    fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        if self.adopt(container)?.is_none() {
            return Err(Error::new(Code::NotRunning, format!("container {container} is not running: start it first")));
        }
        let mut timed_out = false;
        if let [program, seconds] = &spec.command[..]
            && program == "sleep"
        {
            let asked = seconds.parse().map_or(Duration::ZERO, Duration::from_secs);
            let time = spec.timeout.map_or(asked, |t| t.min(asked));
            timed_out = time < asked;
            match &spec.cancel {
                Some(cancel) if cancel.wait(time) => return Err(super::cancelled(container)),
                Some(_) => {}
                None => std::thread::sleep(time),
            }
        }
        let keep = spec.stdin.len().min(spec.output_limit);
        let exit_code = i32::from(spec.command.first().is_some_and(|c| c == "false"));
        Ok(ExecOutput { exit_code, stdout: spec.stdin[..keep].to_vec(), truncated: keep < spec.stdin.len(), timed_out, ..ExecOutput::default() })
    }

    fn remount(&self, _container: &ContainerId, _mount: &Mount) -> Result<()> {
        Ok(())
    }

    fn stats(&self, container: &ContainerId) -> Result<RuntimeStats> {
        let world = self.lock();
        let Some(row) = world.containers.get(container) else { return Ok(RuntimeStats::default()) };
        Ok(RuntimeStats { processes: u64::from(row.running.is_some()), memory: Some(row.memory), ..RuntimeStats::default() })
    }

    fn console(&self, container: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        let world = self.lock();
        let all = world.containers.get(container).map_or(&[][..], |r| &r.console);
        let from = last.map_or(0, |b| all.len().saturating_sub(usize::try_from(b.0).unwrap_or(usize::MAX)));
        Ok(all[from..].to_vec())
    }

    fn remove(&self, container: &ContainerId) -> Result<()> {
        self.kill(container)?;
        self.lock().containers.remove(container);
        Ok(())
    }

    fn list(&self) -> Result<Vec<ContainerId>> {
        Ok(self.lock().containers.keys().cloned().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runtime::suite::{self, Exits, spec};

    struct World {
        runtime: MemoryRuntime,
        exits: Exits,
    }

    impl suite::World for World {
        fn runtime(&self) -> &dyn Runtime {
            &self.runtime
        }
        fn spec(&self, c: &ContainerId) -> RunSpec {
            spec(c, None, &["sleep", "1000"])
        }
        fn failing(&self, c: &ContainerId) -> RunSpec {
            self.runtime.fail_next_start();
            self.spec(c)
        }
        fn end(&self, c: &ContainerId, code: i32) {
            assert!(self.runtime.crash(c, code));
        }
        fn say(&self, c: &ContainerId, text: &str) {
            self.runtime.write_console(c, text.as_bytes());
        }
        fn exits(&self) -> &Exits {
            &self.exits
        }
        fn restart(&mut self) {
            self.runtime = self.runtime.restarted();
            self.runtime.set_exit_listener(self.exits.listener());
        }
    }

    #[test]
    fn contract() {
        let mut w = World { runtime: MemoryRuntime::new(), exits: Exits::default() };
        w.runtime.set_exit_listener(w.exits.listener());
        suite::run(&mut w);
    }
}
