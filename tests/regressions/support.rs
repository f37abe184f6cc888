//! What several regression tests use.

use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewSnapshot, OnAliasConflict, Snapshot};
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Caller, Host, HostBuilder, Kind, Result};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type AtStep = dyn Fn(&str) -> Result<()> + Send + Sync;

/// Something that happens at steps.
#[derive(Clone, Default)]
pub struct At(Arc<Mutex<Option<Arc<AtStep>>>>);

impl At {
    pub fn set(&self, f: impl Fn(&str) -> Result<()> + Send + Sync + 'static) {
        *self.0.lock().unwrap() = Some(Arc::new(f));
    }
}

impl StepHook for At {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let f = self.0.lock().unwrap().clone();
        f.map_or(Ok(()), |f| f(&format!("{operation}:{step}")))
    }
}

pub fn host_with(at: &At) -> (Host, Arc<MemoryRuntime>) {
    let runtime = Arc::new(MemoryRuntime::new());
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), runtime.clone()).unwrap();
    (builder.hook(Box::new(at.clone())).open().unwrap(), runtime)
}

pub fn eventually(what: &str, f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !f() {
        assert!(Instant::now() < end, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The upkeep may be at the container for a moment.
pub fn patiently<T>(f: impl Fn() -> Result<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match f() {
            Err(e) if e.kind() == Kind::Busy && Instant::now() < end => std::thread::yield_now(),
            out => return out.unwrap(),
        }
    }
}

pub fn rolling() -> NewSnapshot {
    NewSnapshot { alias: Some("rolling".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() }
}

pub fn aliased(h: &Host, c: &ContainerId, alias: &str) -> Snapshot {
    h.create_snapshot(&Caller::default(), c, NewSnapshot { alias: Some(alias.into()), ..Default::default() }).unwrap().snapshot
}
