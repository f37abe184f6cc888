//! Copies, forks and syncs beside the bare kernel's: local clones beside the ioctl, transfers beside `btrfs send | btrfs receive`, rsync for scale. Two pools on
//! this machine, the two servers talking over loopback. `cargo bench --bench replication`.
//!
//! Needs root, BTRFS, loop devices, runc, a static busybox; rsync where it is installed. `HOODY_ROUNDS` (20) for how often each is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, EventFilter, ForkRequest, NewPeer, Rights, Status, SyncRequest};
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_http::transport::HttpTransport;
use hoody_state_http::{Api, Options, serve};
use hoody_state_workspace::{RealHost, bare_delete, bare_snapshot, container, fill, median, ms, project, snapshot};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

fn row(what: &str, ours: f64, beside: &str, bare: f64, target: &str) {
    println!("| {what} | {ours:.1} ms | {beside} {bare:.1} ms: {:.2} x | {target} |", ours / bare);
}

fn rounds() -> usize {
    std::env::var("HOODY_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// A host served over loopback.
struct Served {
    url: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new(host: &Host) -> Served {
        let api = Api::new(host.clone(), Options::default());
        let (ready, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(tcp.local_addr().unwrap()).unwrap();
                serve::serve(&api, Some(tcp), None, None, async {
                    let _ = stopped.await;
                })
                .await;
            });
        });
        Served { url: format!("http://{}", address.recv().unwrap()), stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// Real files, as a root file system has them: from this machine's own, up to so many bytes.
fn real_files(to: &Path, bytes: u64) -> u64 {
    let mut todo = vec![std::path::PathBuf::from("/usr")];
    let (mut done, mut n) = (0_u64, 0_u64);
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for e in entries {
            let (kind, meta) = (e.file_type().unwrap(), e.metadata().unwrap());
            if kind.is_dir() {
                todo.push(e.path());
            } else if kind.is_file() && meta.len() < 20 << 20 && (meta.len() > 16 << 10 || n * 22_000 <= done) {
                let at = to.join(e.path().strip_prefix("/usr").unwrap());
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::copy(e.path(), &at).unwrap();
                std::os::unix::fs::chown(&at, Some(100_000), Some(100_000)).unwrap();
                (done, n) = (done + meta.len(), n + 1);
                if done >= bytes {
                    return n;
                }
            }
        }
    }
    n
}

/// Dropped from top to bottom: what serves a host goes before its pool.
struct Pair {
    _served: [Served; 2],
    a: RealHost,
    b: RealHost,
}

impl Pair {
    fn new() -> Pair {
        let [a, b] = ["replication-a", "replication-b"].map(|n| {
            let mut real = RealHost::new(n);
            real.stop();
            real.config.pool_size = Some(Bytes::gib(24));
            real.config.transport = Some(Arc::new(HttpTransport::new()));
            real.start();
            real
        });
        let served = [Served::new(a.host()), Served::new(b.host())];
        for (here, there, url) in [(&a, &b, &served[1].url), (&b, &a, &served[0].url)] {
            let token = there.host().create_token("peer", None, Rights::Replication).unwrap().1;
            here.host().add_peer(&Caller::default(), NewPeer { url: url.clone(), token, ..Default::default() }).unwrap();
        }
        Pair { _served: served, a, b }
    }

    fn pool(real: &RealHost) -> std::path::PathBuf {
        real.config.run.join("pool")
    }

    /// A container on A whose root is `fill`ed, stopped, with one snapshot `base`.
    fn source(&self, name: &str, filled: impl FnOnce(&Path)) -> ContainerId {
        let p = self.a.host().projects(&hoody_state::model::PageRequest::first(), None).unwrap().rows.first().map(|p| p.id.clone());
        let p = p.unwrap_or_else(|| project(self.a.host(), "bench"));
        let c = container(self.a.host(), &p, name).unwrap();
        filled(&self.a.live(&c).join("usr"));
        self.a.host().lifecycle(&Caller::default(), &c, hoody_state::model::Verb::ForceStop, None).unwrap();
        snapshot(self.a.host(), &c, "base").unwrap();
        c
    }

    fn remote(&self, c: &ContainerId, name: &str) -> CopyRequest {
        let p = self.a.host().container(c).unwrap().project_id;
        CopyRequest {
            target_project_id: Some(p.to_string()),
            target_server_id: Some(self.b.host().server().id.to_string()),
            name: Some(name.into()),
            source_snapshot: Some("base".into()),
            start: Some(false),
            ..Default::default()
        }
    }

    fn copy(&self, c: &ContainerId, name: &str) -> ContainerId {
        let copy = self.a.host().copy_container(&Caller::default(), c, self.remote(c, name)).unwrap();
        loop {
            let now = self.b.host().container(&copy.id).unwrap();
            match now.status {
                Status::Copying => std::thread::sleep(Duration::from_millis(2)),
                Status::Stopped => return copy.id,
                other => panic!("{other}: {:?}", now.status_message),
            }
        }
    }

    /// The bytes that the last transfer took on the network.
    fn sent(&self) -> u64 {
        let filter = EventFilter { event_type: Some("container.operation.completed".into()), limit: 10, ..Default::default() };
        let (events, _) = self.b.host().events(&filter).unwrap();
        events.iter().find_map(|e| e.payload["sent"].as_u64()).unwrap_or(0)
    }
}

fn forget(host: &Host, c: &ContainerId) {
    host.delete_container(&Caller::default(), c).unwrap();
    while host.container(c).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    while !host.pool().unwrap().reclaiming.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sync_fs() {
    nix::unistd::sync();
}

/// `btrfs send [-p base] from | btrfs receive to`, and the received made durable.
fn bare_pipe(from: &Path, base: Option<&Path>, to: &Path) {
    let mut send = Command::new("btrfs");
    send.args(["-q", "send"]);
    if let Some(p) = base {
        send.arg("-p").arg(p);
    }
    let mut sender = send.arg(from).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = sender.stdout.take().unwrap();
    let done = Command::new("btrfs").args(["-q", "receive"]).arg(to).stdin(out).stderr(Stdio::null()).status().unwrap();
    assert!(done.success() && sender.wait().unwrap().success());
    Command::new("btrfs").args(["filesystem", "sync"]).arg(to).stdout(Stdio::null()).status().unwrap();
}

fn bare_bytes(from: &Path, base: Option<&Path>) -> u64 {
    let mut send = Command::new("btrfs");
    send.args(["-q", "send"]);
    if let Some(p) = base {
        send.arg("-p").arg(p);
    }
    let out = send.arg(from).stderr(Stdio::null()).output().unwrap();
    out.stdout.len() as u64
}

fn local(pair: &Pair, c: &ContainerId) {
    let host = pair.a.host();
    let me = Caller { wait: Duration::ZERO, ..Caller::default() };
    let scratch = Pair::pool(&pair.a).join("bench");
    std::fs::create_dir_all(&scratch).unwrap();
    let from = Pair::pool(&pair.a).join("containers").join(c.as_str()).join("snapshots/base");
    let (mut ours, mut bare, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..rounds() {
        for first in [i % 2 == 0, i % 2 != 0] {
            if first {
                let mut request = pair.remote(c, &format!("local-{i}"));
                request.target_server_id = None;
                let mut id = None;
                ours.push(ms(|| id = Some(host.copy_container(&me, c, request).unwrap().id)));
                made.push(id.unwrap());
                // Background operations must not disturb the next round.
                while host.container(made.last().unwrap()).unwrap().operation_id.is_some() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            } else {
                bare.push(ms(|| bare_snapshot(&from, &scratch, &format!("l{i}"), false)));
            }
        }
    }
    row("local copy from a snapshot, until it exists", median(ours), "the ioctl", median(bare), "<= 1.5 x");
    for (i, id) in made.iter().enumerate() {
        forget(host, id);
        bare_delete(&scratch, &format!("l{i}"));
    }
    let one = ms(|| {
        let mut request = pair.remote(c, "one");
        request.target_server_id = None;
        made.push(host.copy_container(&Caller::default(), c, request).unwrap().id);
    });
    let mut results = Vec::new();
    let fifty = ms(|| {
        let request = ForkRequest {
            count: Some(50),
            source_snapshot: Some("base".into()),
            name_prefix: Some("fork".into()),
            start: Some(false),
            ..ForkRequest::default()
        };
        results = host.fork_container(&Caller::default(), c, &request).unwrap().results;
        for r in &results {
            let id = &r.container.as_ref().unwrap().id;
            while host.container(id).unwrap().operation_id.is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    row("50 forks, all there and whole", fifty, "50 times one", one * 50.0, "<= 1 x");
    for id in results.iter().filter_map(|r| r.container.as_ref()).map(|c| &c.id).chain(made.last()) {
        forget(host, id);
    }
}

fn whole(pair: &Pair, c: &ContainerId) {
    let from = Pair::pool(&pair.a).join("containers").join(c.as_str()).join("snapshots/base");
    let to = Pair::pool(&pair.b).join("bench");
    std::fs::create_dir_all(&to).unwrap();
    let bytes = bare_bytes(&from, None);
    let (mut ours, mut bare, mut sent) = (Vec::new(), Vec::new(), 0);
    for i in 0..rounds().min(20) {
        for first in [i % 2 == 0, i % 2 != 0] {
            sync_fs();
            if first {
                let mut copy = None;
                ours.push(ms(|| copy = Some(pair.copy(c, &format!("whole-{i}")))));
                sent = pair.sent();
                forget(pair.b.host(), &copy.unwrap());
            } else {
                bare.push(ms(|| bare_pipe(&from, None, &to)));
                bare_delete(&to, "base");
            }
        }
    }
    row("copy of 205 MB to the other host, until it is whole and durable", median(ours), "send | receive", median(bare), "<= 1.2 x");
    println!("| bytes of that copy | {sent} | of {bytes} in the stream: {:.2} x | <= 0.5 x |", sent as f64 / bytes as f64);
}

fn syncs(pair: &Pair, c: &ContainerId) {
    let copy = pair.copy(c, "standby");
    let me = Caller::default();
    let live = pair.a.live(c);
    let to = Pair::pool(&pair.b).join("bench");
    let scratch = Pair::pool(&pair.a).join("bench");
    let sync = || {
        let mut answer = None;
        let t = ms(|| answer = Some(pair.b.host().sync_container(&me, &copy, &SyncRequest::default()).unwrap()));
        (t, answer.unwrap())
    };
    sync();
    let nothing: Vec<f64> = (0..rounds()).map(|_| sync()).inspect(|(_, a)| assert_eq!(a.changed, Some(false))).map(|(t, _)| t).collect();
    println!("| sync, nothing changed | {:.1} ms | | <= 20 ms |", median(nothing));
    // 10 MB that do not compress.
    let (mut ours, mut bare, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    bare_snapshot(&live, &scratch, "p", true);
    bare_pipe(&scratch.join("p"), None, &to);
    let noise = |n: usize| -> Vec<u8> {
        let mut b = vec![0; n];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut b).unwrap();
        b
    };
    for i in 0..rounds() {
        for first in [i % 2 == 0, i % 2 != 0] {
            std::fs::write(live.join("usr/ten"), noise(10 << 20)).unwrap();
            sync_fs();
            if first {
                ours.push(sync().0);
                sent = pair.sent();
            } else {
                bare.push(ms(|| {
                    bare_snapshot(&live, &scratch, "q", true);
                    bare_pipe(&scratch.join("q"), Some(&scratch.join("p")), &to);
                }));
                bytes = bare_bytes(&scratch.join("q"), Some(&scratch.join("p")));
                bare_delete(&scratch, "p");
                bare_delete(&to, "p");
                std::fs::rename(scratch.join("q"), scratch.join("p")).unwrap();
                std::fs::rename(to.join("q"), to.join("p")).unwrap();
            }
        }
    }
    row("sync after 10 MB changed, the copy restored to it", median(ours), "snapshot, send -p | receive", median(bare), "<= 2 x");
    println!("| bytes of that sync | {sent} | of {bytes} in the stream: {:.2} x | <= 1.1 x |", sent as f64 / bytes as f64);
    bare_delete(&scratch, "p");
    bare_delete(&to, "p");
    forget(pair.b.host(), &copy);
}

fn small_files(pair: &Pair) {
    let c = pair.source("small", |at| fill(at, 100_000, 100_000 * 600, 100_000));
    let copy = pair.copy(&c, "small-standby");
    let me = Caller::default();
    let live = pair.a.live(&c);
    let to = Pair::pool(&pair.b).join("bench");
    let scratch = Pair::pool(&pair.a).join("bench");
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    let mut todo = vec![live.join("usr")];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(d).unwrap().flatten() {
            if e.file_type().unwrap().is_dir() { todo.push(e.path()) } else { files.push(e.path()) }
        }
    }
    let change = |n: usize| {
        for f in files.iter().skip(n % 7).step_by(files.len() / 100).take(100) {
            std::fs::write(f, format!("changed {n}")).unwrap();
        }
        sync_fs();
    };
    bare_snapshot(&live, &scratch, "p", true);
    bare_pipe(&scratch.join("p"), None, &to);
    let has_rsync = Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_ok();
    let mirror = Pair::pool(&pair.b).join("mirror");
    let rsync = || {
        let done = Command::new("rsync").args(["-aHAX", "--delete"]).arg(format!("{}/", live.display())).arg(&mirror).status().unwrap();
        assert!(done.success());
        Command::new("btrfs").args(["filesystem", "sync"]).arg(&mirror).stdout(Stdio::null()).status().unwrap();
    };
    if has_rsync {
        rsync();
    }
    pair.b.host().sync_container(&me, &copy, &SyncRequest::default()).unwrap();
    let (mut ours, mut bare, mut rsyncs) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..rounds() {
        for first in [i % 2 == 0, i % 2 != 0] {
            change(2 * i + usize::from(first));
            if first {
                ours.push(ms(|| assert_eq!(pair.b.host().sync_container(&me, &copy, &SyncRequest::default()).unwrap().changed, Some(true))));
                if has_rsync && i < 5 {
                    rsyncs.push(ms(rsync));
                }
            } else {
                bare.push(ms(|| {
                    bare_snapshot(&live, &scratch, "q", true);
                    bare_pipe(&scratch.join("q"), Some(&scratch.join("p")), &to);
                }));
                bare_delete(&scratch, "p");
                bare_delete(&to, "p");
                std::fs::rename(scratch.join("q"), scratch.join("p")).unwrap();
                std::fs::rename(to.join("q"), to.join("p")).unwrap();
            }
        }
    }
    let ours = median(ours);
    row("100 of 100,000 small files changed, synced", ours, "snapshot, send -p | receive", median(bare), "<= 1.5 x");
    if rsyncs.is_empty() {
        println!("| the same by rsync | not installed | | |");
    } else {
        let r = median(rsyncs);
        println!("| the same by rsync -aHAX --delete | {r:.0} ms | {:.1} x ours | >= 10 x |", r / ours);
    }
    bare_delete(&scratch, "p");
    bare_delete(&to, "p");
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let pair = Pair::new();
    println!("| what | median | beside it | target |\n| --- | --- | --- | --- |");
    let c = pair.source("source", |at| println!("| | {} real files | | |", real_files(at, 205 << 20)));
    local(&pair, &c);
    whole(&pair, &c);
    syncs(&pair, &c);
    small_files(&pair);
}
