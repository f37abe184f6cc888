//! The world the model's host lives in: memory backends that outlive the hosts on it, a clock that is moved, a process that can die.

use hoody_state::clock::ManualClock;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::freeze::{FreezeState, Freezer};
use hoody_state::id::ContainerId;
use hoody_state::op::step::StepHook;
use hoody_state::runtime::Runtime;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Code, Error, Host, HostBuilder, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A process that dies at a step: from then on nothing more is done by any of its threads.
#[derive(Default)]
pub struct Death {
    left: AtomicU64,
    dead: AtomicBool,
}

impl Death {
    /// Dies at the `n`th step from now; 0: lives.
    pub fn at(&self, n: u64) {
        self.dead.store(false, Ordering::SeqCst);
        self.left.store(n, Ordering::SeqCst);
    }

    pub fn came(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn step(&self, what: &str) -> Result<()> {
        let last = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) == Ok(1);
        if last {
            self.dead.store(true, Ordering::SeqCst);
        }
        if self.came() { Err(Error::new(Code::Crashed, format!("dead before {what}"))) } else { Ok(()) }
    }
}

struct Hook(Arc<Death>);

impl StepHook for Hook {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        self.0.step(&format!("{operation}:{step}"))
    }
}

pub struct World {
    pub store: Arc<MemoryStore>,
    pub freezer: Arc<MemoryFreezer>,
    pub runtime: Arc<MemoryRuntime>,
    pub clock: Arc<ManualClock>,
    pub death: Arc<Death>,
    catalog: tempfile::TempDir,
    boots: u32,
}

impl World {
    pub fn new() -> Self {
        let freezer = Arc::new(MemoryFreezer::new());
        // No disk: thousands of catalogs are written.
        let catalog = tempfile::tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
        World {
            store: Arc::new(MemoryStore::new()),
            runtime: Arc::new(MemoryRuntime::with_freezer(freezer.clone())),
            freezer,
            clock: Arc::new(ManualClock::new("2026-11-23T10:00:00Z".parse().unwrap())),
            death: Arc::new(Death::default()),
            catalog,
            boots: 0,
        }
    }

    /// A server starts.
    pub fn open(&mut self) -> Host {
        self.death.at(0);
        self.runtime = Arc::new(self.runtime.restarted());
        HostBuilder::new(Some(self.catalog.path()), self.store.clone(), self.freezer.clone(), self.runtime.clone())
            .unwrap()
            .clock(self.clock.clone())
            .hook(Box::new(Hook(self.death.clone())))
            .boot_id(format!("boot {}", self.boots))
            .open()
            .unwrap()
    }

    /// The machine goes down: no process and no frozen group is left.
    pub fn power_off(&mut self) {
        self.boots += 1;
        self.freezer = Arc::new(MemoryFreezer::new());
        self.runtime = Arc::new(MemoryRuntime::with_freezer(self.freezer.clone()));
    }

    pub fn runs(&self, c: &ContainerId) -> bool {
        self.runtime.adopt(c).unwrap().is_some()
    }

    pub fn frozen(&self, c: &ContainerId) -> bool {
        self.freezer.state(c).unwrap() == FreezeState::Frozen
    }
}
