//! What the tests, benches and examples of the workspace share: hosts to try things on, that leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{Finding, NewContainer, NewSnapshot, ProjectInput, Snapshot};
use hoody_state::op::step::{CrashAt, StepHook};
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::snapshot::Volume;
use hoody_state::{Caller, Host, HostBuilder, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A world of memory backends that outlives the hosts on it, so that a host can crash and another take its place.
pub struct MemoryWorld {
    pub store: Arc<MemoryStore>,
    pub freezer: Arc<MemoryFreezer>,
    pub runtime: Arc<MemoryRuntime>,
    pub hook: Arc<CrashAt>,
    catalog: tempfile::TempDir,
    pub boot: String,
}

struct Shared(Arc<CrashAt>);

impl StepHook for Shared {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        self.0.step(operation, step)
    }
}

impl MemoryWorld {
    pub fn new() -> Self {
        MemoryWorld {
            store: Arc::new(MemoryStore::new()),
            freezer: Arc::new(MemoryFreezer::new()),
            runtime: Arc::new(MemoryRuntime::new()),
            hook: Arc::new(CrashAt::default()),
            catalog: tempfile::tempdir().unwrap(),
            boot: "this boot".into(),
        }
    }

    /// A host on it, as after a start of the server.
    pub fn host(&self) -> Host {
        HostBuilder::new(Some(self.catalog.path()), self.store.clone(), self.freezer.clone(), self.runtime.clone())
            .unwrap()
            .hook(Box::new(Shared(self.hook.clone())))
            .boot_id(&self.boot)
            .open()
            .unwrap()
    }

    /// Crash at the `n`th step from now; 0: only count.
    pub fn crash_at(&self, n: u64) {
        self.hook.count.store(0, Ordering::SeqCst);
        self.hook.at.store(n, Ordering::SeqCst);
    }

    pub fn steps(&self) -> u64 {
        self.hook.count.load(Ordering::SeqCst)
    }

    pub fn write(&self, c: &ContainerId, path: &str, text: &str) {
        self.store.write(&Volume::Live(c.clone()), path, text.as_bytes()).unwrap();
    }

    pub fn read(&self, c: &ContainerId, path: &str) -> Option<String> {
        self.store.read(&Volume::Live(c.clone()), path).unwrap().map(|b| String::from_utf8(b).unwrap())
    }
}

impl Default for MemoryWorld {
    fn default() -> Self {
        Self::new()
    }
}

/// A tar that is a root file system, as small as can be.
pub fn tiny_image() -> Vec<u8> {
    let mut t = hoody_state_tar::Builder::default();
    t.dir("bin");
    t.file("bin/sh", b"#!/nothing\n", 0o755);
    t.finish()
}

/// Just enough of the tar format for [`tiny_image`].
mod hoody_state_tar {
    #[derive(Default)]
    pub struct Builder(Vec<u8>);

    impl Builder {
        fn header(&mut self, name: &str, size: usize, mode: u32, kind: u8) {
            let mut h = [0u8; 512];
            h[..name.len()].copy_from_slice(name.as_bytes());
            h[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
            h[108..116].copy_from_slice(b"0000000\0");
            h[116..124].copy_from_slice(b"0000000\0");
            h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
            h[136..148].copy_from_slice(b"00000000000\0");
            h[148..156].copy_from_slice(b"        ");
            h[156] = kind;
            h[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
            h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            self.0.extend_from_slice(&h);
        }

        pub fn dir(&mut self, name: &str) {
            self.header(name, 0, 0o755, b'5');
        }

        pub fn file(&mut self, name: &str, data: &[u8], mode: u32) {
            self.header(name, data.len(), mode, b'0');
            self.0.extend_from_slice(data);
            self.0.resize(self.0.len().div_ceil(512) * 512, 0);
        }

        pub fn finish(mut self) -> Vec<u8> {
            self.0.resize(self.0.len() + 1024, 0);
            self.0
        }
    }
}

/// Imports the tiny image as the default one, and makes a project.
pub fn furnish(host: &Host) -> ProjectId {
    host.import_image(&Caller::default(), "tiny", &mut &tiny_image()[..]).unwrap();
    project(host, "p")
}

pub fn project(host: &Host, alias: &str) -> ProjectId {
    host.create_project(&Caller::default(), ProjectInput { alias: Some(alias.into()), ..Default::default() }).unwrap().id
}

pub fn container(host: &Host, project: &ProjectId, name: &str) -> Result<ContainerId> {
    host.create_container(&Caller::default(), project, NewContainer { name: Some(name.into()), ..Default::default() }).map(|c| c.id)
}

pub fn snapshot(host: &Host, c: &ContainerId, alias: &str) -> Result<Snapshot> {
    host.create_snapshot(&Caller::default(), c, NewSnapshot { alias: Some(alias.into()), ..Default::default() }).map(|a| a.snapshot)
}

/// `check` finds nothing.
pub fn assert_clean(host: &Host, when: &str) {
    let found: Vec<Finding> = host.check(false).unwrap();
    assert!(found.is_empty(), "{when}: {found:#?}");
}

/// A directory for a pool's data and run directories, short enough for a socket's path.
pub fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("hoody-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
