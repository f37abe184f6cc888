//! A host over a backend of your own: here a runtime that runs nothing and says so, over memory volumes. Needs no root.
//!
//! `cargo run --example own_backend`

use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::ContainerId;
use hoody_state::model::mount::Mount;
use hoody_state::model::{NewContainer, NewSnapshot, ProjectInput};
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::runtime::{ExecOutput, ExecSpec, ExitListener, Limits, RunSpec, Running, Runtime, RuntimeStats};
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::units::Bytes;
use hoody_state::{Caller, HostBuilder, Result};
use std::sync::Arc;
use std::time::Duration;

/// Wraps another runtime and tells of every start: where you would talk to your own.
struct Talkative(MemoryRuntime);

impl Runtime for Talkative {
    fn name(&self) -> String {
        "talkative".into()
    }
    fn start(&self, spec: &RunSpec) -> Result<Running> {
        println!("starting {:?} in {}", spec.command, spec.container);
        self.0.start(spec)
    }
    fn exec(&self, _: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        Ok(ExecOutput { stdout: format!("would run {:?}\n", spec.command).into_bytes(), ..Default::default() })
    }
    fn probe(&self) -> Result<()> {
        self.0.probe()
    }
    fn set_exit_listener(&self, listener: ExitListener) {
        self.0.set_exit_listener(listener);
    }
    fn prepare(&self, c: &ContainerId, limits: &Limits) -> Result<()> {
        self.0.prepare(c, limits)
    }
    fn adopt(&self, c: &ContainerId) -> Result<Option<Running>> {
        self.0.adopt(c)
    }
    fn stop(&self, c: &ContainerId, timeout: Duration) -> Result<()> {
        self.0.stop(c, timeout)
    }
    fn kill(&self, c: &ContainerId) -> Result<()> {
        self.0.kill(c)
    }
    fn remount(&self, c: &ContainerId, mount: &Mount) -> Result<()> {
        self.0.remount(c, mount)
    }
    fn stats(&self, c: &ContainerId) -> Result<RuntimeStats> {
        self.0.stats(c)
    }
    fn console(&self, c: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        self.0.console(c, last)
    }
    fn remove(&self, c: &ContainerId) -> Result<()> {
        self.0.remove(c)
    }
    fn list(&self) -> Result<Vec<ContainerId>> {
        self.0.list()
    }
}

fn main() -> Result<()> {
    let store = Arc::new(MemoryStore::new());
    let host = HostBuilder::new(None, store.clone(), Arc::new(MemoryFreezer::new()), Arc::new(Talkative(MemoryRuntime::new())))?.open()?;
    let me = Caller::default();
    host.import_image(&me, "tiny", &mut &hoody_state_workspace::tiny_image()[..])?;
    let project = host.create_project(&me, ProjectInput { alias: Some("web".into()), ..Default::default() })?;
    let c = host.create_container(&me, &project.id, NewContainer::default())?.id;

    let live = Volume::Live(c.clone());
    store.write(&live, "notes", b"precious")?;
    host.create_snapshot(&me, &c, NewSnapshot { alias: Some("good".into()), ..Default::default() })?;
    store.write(&live, "notes", b"ruined")?;
    host.restore(&me, &c, "good", Default::default())?;
    println!("notes: {}", String::from_utf8_lossy(&store.read(&live, "notes")?.unwrap_or_default()));
    print!("{}", String::from_utf8_lossy(&host.exec(&c, &ExecSpec { command: vec!["ls".into()], ..Default::default() })?.stdout));
    println!("{} volumes, {} findings", store.list(None)?.len(), host.check(false)?.len());
    Ok(())
}
