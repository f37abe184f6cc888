//! A runtime of your own, here one that runs nothing but says that it does: `cargo run --example runtime`. It passes the suite of all runtimes, and then
//! serves a host on this machine, whose other parts are the machine's own. Needs root.

use hoody_state::cgroup::Limit;
use hoody_state::id::ContainerId;
use hoody_state::model::mount::Mount;
use hoody_state::runtime::{ExecOutput, ExecSpec, Exit, ExitListener, Limits, RunSpec, Running, Runtime, RuntimeStats, suite};
use hoody_state::{Code, Error, Host, HostConfig, Result, units::Bytes};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Each container's run, and the text of its console.
type Rows = BTreeMap<ContainerId, (Option<Running>, Vec<u8>)>;

/// The rows stand in for the kernel: they outlive the process that uses them.
#[derive(Default)]
pub struct RowRuntime(Arc<Mutex<Rows>>, OnceLock<ExitListener>);

impl RowRuntime {
    fn end(&self, c: &ContainerId, code: i32) {
        let ended = self.0.lock().unwrap().get_mut(c).and_then(|row| row.0.take());
        if let (Some(run), Some(listener)) = (ended, self.1.get()) {
            listener(c, &run.run, Exit::of_code(Some(code)));
        }
    }
}

#[rustfmt::skip]
impl Runtime for RowRuntime {
    fn name(&self) -> String { "rows".into() }
    fn probe(&self) -> Result<()> { Ok(()) }
    fn set_exit_listener(&self, listener: ExitListener) { let _ = self.1.set(listener); }
    fn remount(&self, _: &ContainerId, _: &Mount) -> Result<()> { Ok(()) }
    fn stop(&self, c: &ContainerId, _: Duration) -> Result<()> { self.end(c, 143); Ok(()) }
    fn kill(&self, c: &ContainerId) -> Result<()> { self.end(c, 137); Ok(()) }
    fn list(&self) -> Result<Vec<ContainerId>> { Ok(self.0.lock().unwrap().keys().cloned().collect()) }
    fn adopt(&self, c: &ContainerId) -> Result<Option<Running>> { Ok(self.0.lock().unwrap().get(c).and_then(|r| r.0.clone())) }
    fn remove(&self, c: &ContainerId) -> Result<()> { self.end(c, 137); self.0.lock().unwrap().remove(c); Ok(()) }

    fn prepare(&self, c: &ContainerId, limits: &Limits) -> Result<()> {
        Limit::memory(limits.memory).and_then(|_| Limit::cpus(limits.cpus))?;
        self.0.lock().unwrap().entry(c.clone()).or_default();
        Ok(())
    }
    fn start(&self, spec: &RunSpec) -> Result<Running> {
        self.prepare(&spec.container, &spec.limits)?;
        let mut rows = self.0.lock().unwrap();
        let row = rows.entry(spec.container.clone()).or_default();
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(Error::new(Code::StartFailed, "there is no command"));
        }
        if row.0.is_some() {
            return Err(Error::new(Code::AlreadyRunning, format!("container {} runs: stop it first", spec.container)));
        }
        Ok(row.0.insert(Running { run: spec.run.clone(), pid: 0, started_at: hoody_state::jiff::Timestamp::now() }).clone())
    }
    fn exec(&self, c: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        self.adopt(c)?.ok_or_else(|| Error::new(Code::NotRunning, format!("container {c} does not run: start it first")))?;
        let pause = if spec.command.first().is_some_and(|p| p == "sleep") { Duration::from_secs(5) } else { Duration::ZERO };
        if spec.cancel.as_ref().is_some_and(|cancel| cancel.wait(pause)) {
            return Err(Error::new(Code::ExecCancelled, "the caller cancelled the command"));
        }
        let keep = spec.stdin.len().min(spec.output_limit);
        Ok(ExecOutput { stdout: spec.stdin[..keep].to_vec(), truncated: keep < spec.stdin.len(), ..Default::default() })
    }
    fn stats(&self, c: &ContainerId) -> Result<RuntimeStats> { Ok(RuntimeStats { processes: self.adopt(c)?.iter().count() as u64, ..Default::default() }) }
    fn console(&self, c: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        let text = self.0.lock().unwrap().get(c).map(|r| r.1.clone()).unwrap_or_default();
        let from = last.map_or(0, |b| text.len().saturating_sub(b.0 as usize));
        Ok(text[from..].to_vec())
    }
}

struct World(RowRuntime, suite::Exits);

#[rustfmt::skip]
impl suite::World for World {
    fn runtime(&self) -> &dyn Runtime { &self.0 }
    fn spec(&self, c: &ContainerId) -> RunSpec { suite::spec(c, None, &["sleep", "1000"]) }
    fn failing(&self, c: &ContainerId) -> RunSpec { suite::spec(c, None, &[]) }
    fn end(&self, c: &ContainerId, code: i32) { self.0.end(c, code); }
    fn say(&self, c: &ContainerId, text: &str) { self.0.0.lock().unwrap().entry(c.clone()).or_default().1.extend(text.bytes()); }
    fn exits(&self) -> &suite::Exits { &self.1 }
    fn restart(&mut self) { self.0 = RowRuntime(self.0.0.clone(), OnceLock::new()); self.0.set_exit_listener(self.1.listener()); }
}

pub fn main() -> Result<()> {
    let mut world = World(RowRuntime::default(), suite::Exits::default());
    world.0.set_exit_listener(world.1.listener());
    suite::run(&mut world);
    let config = HostConfig::new("/var/tmp/hoody-rows", "/run/hoody-rows");
    let host = Host::builder(&config)?.runtime(Arc::new(RowRuntime::default())).open()?;
    println!("a host over a runtime of rows: {} findings", host.check(false)?.len());
    host.close();
    drop(host);
    Host::unmount(&config)
}
