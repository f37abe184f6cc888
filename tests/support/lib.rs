//! What the tests, benches and examples of the workspace share: hosts to try things on, that leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod http;
pub mod programs;
mod tar;
pub mod worker;

use hoody_state::clock::ManualClock;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::host::Settings;
use hoody_state::id::{ContainerId, ProjectId, ServerId};
use hoody_state::model::{Finding, NewContainer, NewPeer, NewSnapshot, ProjectInput, Rights, Server, Snapshot};
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::Volume;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::transfer::memory::MemoryNet;
use hoody_state::{Caller, Code, Error, Host, HostBuilder, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Counts steps and crashes at one of them, once.
#[derive(Default)]
pub struct CrashAt {
    /// Crash at this step, counted from 1; 0: only count.
    pub at: AtomicU64,
    /// Steps so far.
    pub count: AtomicU64,
}

impl StepHook for CrashAt {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if n == self.at.load(Ordering::SeqCst) {
            return Err(Error::new(Code::Crashed, format!("crashed before {operation}:{step}, as asked")));
        }
        Ok(())
    }
}

/// A world of memory backends that outlives the hosts on it, so that a host can crash and another take its place.
pub struct MemoryWorld {
    pub store: Arc<MemoryStore>,
    pub freezer: Arc<MemoryFreezer>,
    pub runtime: Arc<MemoryRuntime>,
    pub hook: Arc<CrashAt>,
    failing: Arc<AtomicU8>,
    errno: Arc<AtomicI32>,
    catalog: tempfile::TempDir,
    pub boot: String,
    pub server: Server,
    /// The network it is on, and its url there.
    pub net: Option<(MemoryNet, String)>,
    /// Its clock, if it is moved by hand.
    pub clock: Option<Arc<ManualClock>>,
    pub max_snapshots: Option<u64>,
    gate: Gate,
}

/// The kind of an operation that stands still at its next step: it says so, and goes on when it is told.
type Gate = Arc<Mutex<Option<(String, Sender<()>, Receiver<()>)>>>;

/// How often steps fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Failing {
    /// One crashes.
    Not,
    /// One fails.
    Once,
    /// That one fails, and all after it.
    FromThenOn,
}

struct Shared {
    hook: Arc<CrashAt>,
    failing: Arc<AtomicU8>,
    errno: Arc<AtomicI32>,
    gate: Gate,
}

impl StepHook for Shared {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let gate = self.gate.lock().unwrap().take_if(|(kind, ..)| kind == operation && step != "intent");
        if let Some((_, arrived, go_on)) = gate {
            arrived.send(()).unwrap();
            go_on.recv_timeout(Duration::from_secs(60)).expect("nobody lets the operation go on");
        }
        // Before the step is counted: whoever sees the count may call the failures off.
        let failing = self.failing.load(Ordering::SeqCst);
        let out = self.hook.step(operation, step);
        if failing == Failing::Not as u8 {
            return out;
        }
        let at = self.hook.at.load(Ordering::SeqCst);
        let again = failing == Failing::FromThenOn as u8 && at > 0 && self.hook.count.load(Ordering::SeqCst) > at;
        if out.is_ok() && !again {
            return Ok(());
        }
        Err(Error::io(format!("{operation}:{step}"), std::io::Error::from_raw_os_error(self.errno.load(Ordering::SeqCst))))
    }
}

impl MemoryWorld {
    pub fn new() -> Self {
        let freezer = Arc::new(MemoryFreezer::new());
        MemoryWorld {
            store: Arc::new(MemoryStore::new()),
            runtime: Arc::new(MemoryRuntime::with_freezer(freezer.clone())),
            freezer,
            hook: Arc::new(CrashAt::default()),
            failing: Arc::default(),
            errno: Arc::default(),
            catalog: tempfile::tempdir().unwrap(),
            boot: "this boot".into(),
            server: Server { id: ServerId::generate(), name: "local".into() },
            net: None,
            clock: None,
            max_snapshots: None,
            gate: Gate::default(),
        }
    }

    /// The next operation of this kind stands still after its intent: the first channel says when it does, the second lets it go on.
    pub fn stop_at(&self, kind: &str) -> (Receiver<()>, Sender<()>) {
        let ((arrived, at), (go_on, going)) = (channel(), channel());
        *self.gate.lock().unwrap() = Some((kind.into(), arrived, going));
        (at, go_on)
    }

    /// The same on a network, under a name.
    pub fn on(net: &MemoryNet, name: &str) -> Self {
        let server = Server { id: ServerId::generate(), name: name.into() };
        MemoryWorld { server, net: Some((net.clone(), format!("https://{name}"))), ..MemoryWorld::new() }
    }

    /// A host on it, as after a start of the server.
    pub fn host(&self) -> Host {
        let mut builder = HostBuilder::new(Some(self.catalog.path()), self.store.clone(), self.freezer.clone(), self.runtime.clone())
            .unwrap()
            .hook(Box::new(Shared { hook: self.hook.clone(), failing: self.failing.clone(), errno: self.errno.clone(), gate: self.gate.clone() }))
            .boot_id(&self.boot)
            .server(self.server.clone())
            .settings(Settings { transfer_pause: Duration::from_millis(1), max_snapshots: self.max_snapshots, ..Settings::default() });
        if let Some(clock) = &self.clock {
            builder = builder.clock(clock.clone());
        }
        if let Some((net, _)) = &self.net {
            builder = builder.transport(Arc::new(net.clone()));
        }
        let host = builder.open().unwrap();
        if let Some((net, url)) = &self.net {
            net.add(url, host.clone());
        }
        host
    }

    /// The machine goes down: no process and no frozen group is left.
    pub fn power_off(&mut self) {
        self.boot = format!("after {}", self.boot);
        self.freezer = Arc::new(MemoryFreezer::new());
        self.runtime = Arc::new(MemoryRuntime::with_freezer(self.freezer.clone()));
    }

    /// The catalog's file, to write into it what an earlier version left.
    pub fn catalog_file(&self) -> PathBuf {
        self.catalog.path().join("catalog.sqlite")
    }

    /// Crash at the `n`th step from now; 0: only count.
    pub fn crash_at(&self, n: u64) {
        self.failing.store(Failing::Not as u8, Ordering::SeqCst);
        self.hook.count.store(0, Ordering::SeqCst);
        self.hook.at.store(n, Ordering::SeqCst);
    }

    /// The same, but that step only fails, as by an error of the disk.
    pub fn fail_at(&self, n: u64) {
        self.fail_with(n, nix::libc::EIO, Failing::Once);
    }

    /// The same with an error of this number, once or from that step on.
    pub fn fail_with(&self, n: u64, errno: i32, failing: Failing) {
        self.crash_at(n);
        self.errno.store(errno, Ordering::SeqCst);
        self.failing.store(failing as u8, Ordering::SeqCst);
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

/// Makes two hosts of a network known to each other.
pub fn acquaint(a: &Host, a_url: &str, b: &Host, b_url: &str) {
    for (here, there, url) in [(a, b, b_url), (b, a, a_url)] {
        let token = there.create_token(&format!("for {}", here.server().name), None, Rights::Replication).unwrap().1;
        here.add_peer(&Caller::default(), NewPeer { name: None, url: url.into(), token, ca: None }).unwrap();
    }
}

/// A tar that is a root file system, as small as can be.
pub fn tiny_image() -> Vec<u8> {
    let mut t = tar::Builder::default();
    t.dir("bin");
    t.file("bin/sh", b"#!/nothing\n", 0o755);
    t.finish()
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

/// Everything that lists show, to tell whether a refused change has changed anything.
pub fn picture(host: &Host) -> serde_json::Value {
    let page = hoody_state::model::PageRequest::first();
    let containers = host.containers(&page, None, None).unwrap().rows;
    let snapshots: Vec<_> = containers.iter().map(|c| host.snapshots(&c.id).unwrap()).collect();
    let events = host.events(&hoody_state::model::EventFilter { limit: 500, ..Default::default() }).unwrap().1;
    serde_json::json!({
        "containers": containers, "snapshots": snapshots, "images": host.images(&page).unwrap().rows, "projects": host.projects(&page, None).unwrap().rows,
        "events": events, "operations": host.operations(&page).unwrap().pagination.total,
    })
}

/// The change is refused with this code, and nothing has changed.
pub fn refused<T: std::fmt::Debug>(host: &Host, code: Code, f: impl FnOnce() -> Result<T>) {
    let before = picture(host);
    let e = f().expect_err(code.as_str());
    assert_eq!(e.code(), code, "{e}");
    assert!(e.message().len() > 15, "{code}: {:?} says too little", e.message());
    let after = picture(host);
    assert!(before == after, "{code} has changed something:\n{before:#}\n{after:#}");
    assert_clean(host, code.as_str());
}

/// Waits until no background operation runs.
pub fn at_rest(host: &Host) {
    for o in host.operations(&hoody_state::model::PageRequest::first()).unwrap().rows {
        let o = host.wait_operation(&o.id, std::time::Duration::from_secs(60)).unwrap();
        assert!(o.finished_at.is_some(), "{o:?}");
    }
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

/// A real host on a loop pool of its own, with real containers. Taken down when dropped, also by a panic.
pub struct RealHost {
    pub config: hoody_state::HostConfig,
    pub dir: PathBuf,
    host: Option<Host>,
    parts: Box<dyn Fn(hoody_state::HostBuilder) -> hoody_state::HostBuilder + Send + Sync>,
}

impl RealHost {
    /// The same, with databases.
    pub fn with_databases(name: &str, daemon: impl Into<PathBuf>) -> Self {
        Self::configured(name, |c| c.databases = Some(daemon.into()))
    }

    /// Opens one and imports a small busybox root file system as its default image.
    pub fn new(name: &str) -> Self {
        Self::sized(name, hoody_state::units::Bytes::gib(2))
    }

    /// The same with a pool of this size.
    pub fn sized(name: &str, size: hoody_state::units::Bytes) -> Self {
        Self::configured(name, |c| c.pool_size = Some(size))
    }

    /// The same with what `f` changes of its configuration. Its directory is there already.
    pub fn configured(name: &str, f: impl FnOnce(&mut hoody_state::HostConfig)) -> Self {
        Self::built(name, f, |builder| builder)
    }

    /// The same with parts that `parts` puts in the place of the machine's own, at each start.
    pub fn built(
        name: &str,
        f: impl FnOnce(&mut hoody_state::HostConfig),
        parts: impl Fn(hoody_state::HostBuilder) -> hoody_state::HostBuilder + Send + Sync + 'static,
    ) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it mounts BTRFS and runs containers");
        let dir = scratch(name);
        let mut config = hoody_state::HostConfig::new(dir.join("data"), dir.join("run"));
        config.pool_size = Some(hoody_state::units::Bytes::gib(2));
        f(&mut config);
        let mut real = RealHost { config, dir, host: None, parts: Box::new(parts) };
        real.start();
        real.import();
        real
    }

    fn import(&self) {
        let mut tar = Vec::new();
        hoody_state::image::demo::busybox_rootfs(std::path::Path::new("/bin/busybox"), &mut tar)
            .unwrap_or_else(|e| panic!("this test needs a static busybox (apt-get install busybox-static): {e}"));
        self.host().import_image(&Caller::default(), "busybox", &mut &tar[..]).unwrap();
    }

    /// The host.
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("the host is open")
    }

    /// Ends the host as a stop of the server does: containers go on.
    pub fn stop(&mut self) {
        if let Some(h) = self.host.take() {
            h.close();
        }
    }

    /// Starts it again.
    pub fn start(&mut self) {
        self.host = Some((self.parts)(Host::builder(&self.config).unwrap()).open().unwrap());
    }

    /// Where the container's live volume can be looked at from outside.
    pub fn live(&self, c: &ContainerId) -> PathBuf {
        self.config.run.join("pool/containers").join(c.as_str()).join("live")
    }

    /// Runs a shell line in a container; its standard output. Fails if it does.
    pub fn sh(&self, c: &ContainerId, line: &str) -> String {
        let spec = hoody_state::runtime::ExecSpec {
            command: vec!["/bin/sh".into(), "-c".into(), line.into()],
            output_limit: 1 << 20,
            timeout: Some(std::time::Duration::from_secs(30)),
            ..Default::default()
        };
        let out = self.host().exec(c, &spec).unwrap();
        assert_eq!(out.exit_code, 0, "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        self.stop();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match Host::unmount(&self.config) {
                Ok(()) => break,
                Err(e) if matches!(e.code(), Code::DataInUse | Code::PoolBusy) && std::time::Instant::now() < end => {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                Err(e) => {
                    eprintln!("could not take down {}: {e}", self.dir.display());
                    return;
                }
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Every path beneath `root` with its kind, mode, owner, size, modification time and content's hash.
pub fn fingerprint(root: &std::path::Path) -> std::collections::BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = std::collections::BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for e in std::fs::read_dir(&dir).unwrap() {
            let path = e.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let content = if m.is_file() {
                use std::hash::{DefaultHasher, Hasher};
                let mut h = DefaultHasher::new();
                h.write(&std::fs::read(&path).unwrap());
                format!("{:x}", h.finish())
            } else if m.is_symlink() {
                std::fs::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            all.insert(
                path.strip_prefix(root).unwrap().to_path_buf(),
                format!("{:o} {}:{} {} {}.{} {content}", m.mode(), m.uid(), m.gid(), if m.is_dir() { 0 } else { m.size() }, m.mtime(), m.mtime_nsec()),
            );
            if m.is_dir() {
                todo.push(path);
            }
        }
    }
    all
}

/// Fills a directory with `files` files in directories of 100, `bytes` in all, sizes spread as in a system's tree; `id` owns them.
pub fn fill(dir: &std::path::Path, files: u64, bytes: u64, id: u32) {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mean = bytes / files;
    for i in 0..files {
        let sub = dir.join(format!("d{}", i / 100));
        if i % 100 == 0 {
            std::fs::create_dir_all(&sub).unwrap();
            std::os::unix::fs::chown(&sub, Some(id), Some(id)).unwrap();
        }
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let size = usize::try_from(mean / 8 + (x >> 33) % (mean * 7 / 4)).unwrap();
        let mut data = vec![0u8; size];
        for chunk in data.chunks_mut(8) {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chunk.copy_from_slice(&x.to_le_bytes()[..chunk.len()]);
        }
        let path = sub.join(format!("f{i}"));
        std::fs::write(&path, &data).unwrap();
        std::os::unix::fs::chown(&path, Some(id), Some(id)).unwrap();
    }
}

/// The kernel's own snapshot call, for comparison: one ioctl, read-only or not.
pub fn bare_snapshot(from: &std::path::Path, dir: &std::path::Path, name: &str, read_only: bool) {
    use std::os::fd::AsFd;
    let (source, parent) = (std::fs::File::open(from).unwrap(), std::fs::File::open(dir).unwrap());
    let name = std::ffi::CString::new(name).unwrap();
    btrfs_uapi::subvolume::snapshot_create(parent.as_fd(), source.as_fd(), &name, read_only, &[]).unwrap();
}

/// The kernel's own delete.
pub fn bare_delete(dir: &std::path::Path, name: &str) {
    use std::os::fd::AsFd;
    let name = std::ffi::CString::new(name).unwrap();
    btrfs_uapi::subvolume::subvolume_delete(std::fs::File::open(dir).unwrap().as_fd(), &name).unwrap();
}

/// The middle one: what a bench says of figures that a noisy machine spreads.
pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// How long it took, in milliseconds.
pub fn ms(f: impl FnOnce()) -> f64 {
    let t = std::time::Instant::now();
    f();
    t.elapsed().as_secs_f64() * 1e3
}

/// Compiles the Rust snippets of the project's README with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct ReadmeSnippets;
