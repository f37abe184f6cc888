//! The table of the README: each figure beside the bare kernel call, the two in turn and in both orders, medians. `cargo bench --bench table`.
//!
//! `HOODY_BENCH_FULL=1` adds the container with 10,000 snapshots. Needs root, BTRFS, a loop device, runc and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::model::NewSnapshot;
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_workspace::http::{Client, Served};
use hoody_state_workspace::{RealHost, bare_delete, bare_snapshot, container, fill, median, ms, project};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROUNDS: usize = 40;

/// Both in turn, the order changing each round, `before` ahead of each; medians of the first and the second.
fn pair(rounds: usize, mut before: impl FnMut(), mut a: impl FnMut(usize), mut b: impl FnMut(usize)) -> (f64, f64) {
    let (mut va, mut vb) = (Vec::new(), Vec::new());
    for i in 0..rounds {
        for first in [i % 2 == 0, i % 2 != 0] {
            before();
            if first {
                va.push(ms(|| a(i)));
            } else {
                vb.push(ms(|| b(i)));
            }
        }
    }
    (median(va), median(vb))
}

fn row(what: &str, ours: f64, bare: Option<(&str, f64)>, target: &str) {
    let bare = bare.map_or_else(String::new, |(name, b)| format!("{name} {b:.2} ms, ratio {:.2}", ours / b));
    println!("| {what} | {ours:.2} ms | {bare} | {target} |");
}

/// Dirties four blocks of the live volume, as a working container does between two snapshots.
struct Dirt(std::fs::File, u64);

impl Dirt {
    fn new(live: &Path) -> Self {
        Dirt(std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(live.join("hoody/storage/dirt")).unwrap(), 0)
    }

    fn write(&mut self) {
        for _ in 0..4 {
            self.1 += 1;
            self.0.seek(SeekFrom::Start((self.1 % 64) * 4096)).unwrap();
            self.0.write_all(&[self.1 as u8; 4096]).unwrap();
        }
    }
}

fn scratch(real: &RealHost) -> PathBuf {
    let dir = real.config.run.join("pool/bench");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// `dirty`: four blocks are written between two snapshots, as a working container does; else nothing is.
fn snapshots(real: &RealHost, c: &ContainerId, client: &mut Client, there: usize, dirty: bool) -> f64 {
    let dir = scratch(real);
    let mut dirt = Dirt::new(&real.live(c));
    let path = format!("/containers/{c}/snapshots");
    let (ours, bare) = pair(
        ROUNDS,
        || {
            if dirty {
                dirt.write();
            }
        },
        |_| {
            client.good("POST", &path, Some("{}"));
        },
        |i| bare_snapshot(&real.live(c), &dir, &format!("b{there}-{dirty}-{i}"), true),
    );
    let between = if dirty { "4 blocks written between" } else { "nothing written between" };
    row(&format!("snapshot of a running container, whole HTTP call, {there} there, {between}"), ours, Some(("ioctl", bare)), "<= 1.5 x");
    ours
}

fn top_up(host: &Host, c: &ContainerId, live: &Path, to: u64) {
    let mut dirt = Dirt::new(live);
    while host.snapshots(c).unwrap().snapshot_count < to {
        dirt.write();
        host.create_snapshot(&Caller::default(), c, NewSnapshot::default()).unwrap();
    }
}

fn main() {
    // `cargo test --benches` only looks whether it builds and starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let mut real = RealHost::new("table");
    real.stop();
    real.config.pool_size = Some(Bytes::gib(16));
    real.start();
    let p = project(real.host(), "bench");
    // A root file system of the size of a Debian minbase.
    let seed = container(real.host(), &p, "seed").unwrap();
    fill(&real.live(&seed).join("usr"), 9_000, 205 << 20, 100_000);
    let s = hoody_state_workspace::snapshot(real.host(), &seed, "big").unwrap();
    real.host().image_from_snapshot(&Caller::default(), "big", &seed, s.name.as_str()).unwrap();
    let new = |name: &str| hoody_state::model::NewContainer { name: Some(name.into()), container_image: Some("big".into()), ..Default::default() };
    let c = real.host().create_container(&Caller::default(), &p, new("dev")).unwrap().id;
    let served = Served::new(real.host().clone(), &real.config.run.join("bench.sock"));
    let mut client = served.client();
    println!("| what | median | beside it | target |\n| --- | --- | --- | --- |");
    let floor = (0..200).map(|_| ms(|| _ = client.good("GET", "/projects/", None))).collect();
    row("an HTTP call that reads one row", median(floor), None, "");

    let none = snapshots(&real, &c, &mut client, 0, true);
    let none_idle = snapshots(&real, &c, &mut client, 0, false);

    // Restore, pause, clone, delete with a handful of snapshots there.
    let names: Vec<String> = real.host().snapshots(&c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect();
    let restores = (0..20).map(|i| ms(|| _ = client.good("PATCH", &format!("/containers/{c}/snapshots/{}", names[i]), None))).collect();
    let start = bare_start(&real);
    row("restore of a running container until the new init runs, whole HTTP call", median(restores), Some(("runc run alone", start)), "<= 100 ms");
    let freeze = freeze_file(&real, &c);
    let mut paused = Vec::new();
    let mut resumed = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        paused.push(ms(|| _ = client.good("POST", &format!("/containers/{c}/pause"), None)));
        resumed.push(ms(|| _ = client.good("POST", &format!("/containers/{c}/resume"), None)));
        bare.push(ms(|| {
            std::fs::write(&freeze, "1").unwrap();
        }));
        std::fs::write(&freeze, "0").unwrap();
    }
    let bare = median(bare);
    row("pause, whole HTTP call", median(paused), Some(("write to cgroup.freeze", bare)), "<= 1 ms");
    row("resume, whole HTTP call", median(resumed), Some(("write to cgroup.freeze", bare)), "<= 1 ms");
    clones(&real, &c, &names[0]);
    deletes(&real, &c, &mut client, &names[20..]);

    let live = real.live(&c);
    top_up(real.host(), &c, &live, 1000);
    let list: Vec<f64> = (0..40).map(|_| ms(|| _ = client.good("GET", &format!("/containers/{c}/snapshots"), None))).collect();
    row("list of 1,000 snapshots, all fields, whole HTTP call", median(list), None, "<= 10 ms");
    let thousand = snapshots(&real, &c, &mut client, 1000, true);
    let thousand_idle = snapshots(&real, &c, &mut client, 1000, false);
    println!("| 1,000 against none, 4 blocks written between | | ratio {:.2} | <= 1.5 x |", thousand / none);
    println!("| 1,000 against none, nothing written between | | ratio {:.2} | <= 1.5 x |", thousand_idle / none_idle);
    if std::env::var_os("HOODY_BENCH_FULL").is_some() {
        top_up(real.host(), &c, &live, 10_000);
        // The server has closed the connection meanwhile: nothing was asked for a minute.
        client = served.client();
        let ten = snapshots(&real, &c, &mut client, 10_000, true);
        println!("| 10,000 against none, 4 blocks written between | | ratio {:.2} | <= 1.5 x |", ten / none);
    }
    delete_all(&real, &c, &mut client);
    drop(client);
    drop(served);
}

/// The runtime's own start of a container of the same kind, as a process, for scale.
fn bare_start(real: &RealHost) -> f64 {
    let p = project(real.host(), "bare");
    let c = container(real.host(), &p, "bare").unwrap();
    let bundle =
        std::fs::read_dir(real.config.run.join("oci/containers").join(c.as_str())).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("config.json").exists());
    real.host().lifecycle(&Caller::default(), &c, hoody_state::model::Verb::Restart, Some(Duration::ZERO)).unwrap();
    let Some(bundle) = bundle.filter(|b| b.exists()).or_else(|| {
        std::fs::read_dir(real.config.run.join("oci/containers").join(c.as_str())).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("config.json").exists())
    }) else {
        return f64::NAN;
    };
    let copy = real.dir.join("bundle");
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(bundle.join("config.json"), copy.join("config.json")).unwrap();
    real.host().lifecycle(&Caller::default(), &c, hoody_state::model::Verb::ForceStop, None).unwrap();
    let state = real.dir.join("runc");
    let runc = |args: &[&str]| {
        std::process::Command::new("runc")
            .arg("--root")
            .arg(&state)
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
    };
    let mut v = Vec::new();
    for i in 0..20 {
        let id = format!("bare{i}");
        v.push(ms(|| assert!(runc(&["run", "--detach", "--no-new-keyring", "--bundle", copy.to_str().unwrap(), &id]).success(), "runc run")));
        runc(&["delete", "--force", &id]);
    }
    median(v)
}

fn freeze_file(real: &RealHost, c: &ContainerId) -> PathBuf {
    let root = if Path::new("/sys/fs/cgroup/unified").exists() { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(real.config.run.join("pool/hoody-pool.json")).unwrap()).unwrap();
    let pool = record["pool_id"].as_str().unwrap().replace('-', "");
    Path::new(root).join("hoody").join(&pool[..12]).join(c.as_str()).join("cgroup.freeze")
}

fn clones(real: &RealHost, c: &ContainerId, snapshot: &str) {
    use hoody_state::id::OperationId;
    use hoody_state::snapshot::{SnapshotStore, Volume};
    let store = hoody_state::snapshot::btrfs::BtrfsStore::open(&real.config.run.join("pool")).unwrap();
    let from = Volume::Snapshot(c.clone(), snapshot.parse().unwrap());
    let dir = scratch(real);
    let path = store.path(&from).unwrap();
    let ids: Vec<ContainerId> = (0..ROUNDS).map(|_| ContainerId::generate()).collect();
    for id in &ids {
        store.create_home(id).unwrap();
    }
    let (ours, bare) = pair(
        ROUNDS,
        || (),
        |i| {
            store.clone_volume(&from, &Volume::Live(ids[i].clone()), &OperationId::generate()).unwrap();
        },
        |i| bare_snapshot(&path, &dir, &format!("clone{i}"), false),
    );
    row("clone from a snapshot", ours, Some(("ioctl", bare)), "<= 1.5 x");
    let op = OperationId::generate();
    for id in &ids {
        store.trash_home(id, &op).unwrap();
    }
    store.empty_trash(&op, &mut |_, _| {}).unwrap();
}

fn deletes(real: &RealHost, c: &ContainerId, client: &mut Client, names: &[String]) {
    let dir = scratch(real);
    let rounds = names.len().min(20);
    let (ours, bare) = pair(
        rounds,
        || (),
        |i| _ = client.good("DELETE", &format!("/containers/{c}/snapshots/{}", names[i]), None),
        |i| bare_delete(&dir, &format!("b0-true-{i}")),
    );
    row("delete of a snapshot, whole HTTP call, durable", ours, Some(("ioctl, not durable", bare)), "");
}

fn delete_all(real: &RealHost, c: &ContainerId, client: &mut Client) {
    let n = real.host().snapshots(c).unwrap().snapshot_count;
    let answered = ms(|| _ = client.good("DELETE", &format!("/containers/{c}"), None));
    row(&format!("delete of a container with {n} snapshots until the answer"), answered, None, "<= 50 ms");
    let began = Instant::now();
    while !client.good("GET", "/pool", None)["data"]["reclaiming"].as_array().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("| its space has come back, as GET /pool shows | {:.1} s | | visibly |", began.elapsed().as_secs_f64());
}
