//! The primitives under criterion, on a loop-device BTRFS image, each beside the bare kernel call. `cargo bench --bench primitives`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use criterion::{BenchmarkId, Criterion};
use hoody_state::id::{ContainerId, OperationId};
use hoody_state::model::{NewSnapshot, RestoreOptions, Verb};
use hoody_state::snapshot::btrfs::BtrfsStore;
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::tree::TreePath;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{RealHost, bare_delete, bare_snapshot, container, project};
use std::path::Path;
use std::time::{Duration, Instant};

fn touch(live: &Path, n: u64) {
    std::fs::write(live.join("hoody/storage/dirt"), n.to_le_bytes().repeat(512)).unwrap();
}

fn take(host: &Host, c: &ContainerId) -> String {
    host.create_snapshot(&Caller::default(), c, NewSnapshot::default()).unwrap().snapshot.name.to_string()
}

/// Lists, takes and deletes snapshots beside 1, 100 and 1000 of them.
fn snapshots(cr: &mut Criterion, live: &Path, bench: &Path, host: &Host, c: &ContainerId) {
    let mut n = 0u64;
    for there in [1, 100, 1000] {
        while host.snapshots(c).unwrap().snapshot_count < there {
            n += 1;
            touch(live, n);
            take(host, c);
        }
        let mut g = cr.benchmark_group("snapshots");
        g.bench_function(BenchmarkId::new("list", there), |b| b.iter(|| host.snapshots(c).unwrap()));
        // Every snapshot has another version of the first, and all have one of the second.
        for file in ["hoody/storage/dirt", "etc/passwd"] {
            let path = TreePath::new(file.as_bytes()).unwrap();
            g.bench_function(BenchmarkId::new(format!("versions of {file}"), there), |b| b.iter(|| host.file_versions(c, &path, None, 100).unwrap()));
        }
        g.bench_function(BenchmarkId::new("create", there), |b| {
            b.iter_custom(|iters| {
                let mut total = Duration::ZERO;
                for _ in 0..iters {
                    n += 1;
                    touch(live, n);
                    let t = Instant::now();
                    let name = take(host, c);
                    total += t.elapsed();
                    host.delete_snapshot(&Caller::default(), c, &name).unwrap();
                }
                total
            });
        });
        g.bench_function(BenchmarkId::new("create, bare ioctl", there), |b| {
            b.iter_custom(|iters| {
                let mut total = Duration::ZERO;
                for _ in 0..iters {
                    n += 1;
                    touch(live, n);
                    let t = Instant::now();
                    bare_snapshot(live, bench, "s", true);
                    total += t.elapsed();
                    bare_delete(bench, "s");
                }
                total
            });
        });
        g.bench_function(BenchmarkId::new("delete", there), |b| {
            b.iter_custom(|iters| {
                let mut total = Duration::ZERO;
                for _ in 0..iters {
                    let name = take(host, c);
                    let t = Instant::now();
                    host.delete_snapshot(&Caller::default(), c, &name).unwrap();
                    total += t.elapsed();
                }
                total
            });
        });
        g.finish();
    }
}

fn clones(cr: &mut Criterion, store: &BtrfsStore, from: &Volume, bench: &Path) {
    let path = store.path(from).unwrap();
    let mut g = cr.benchmark_group("clone");
    g.bench_function("clone_volume", |b| {
        b.iter_custom(|iters| {
            let mut total = Duration::ZERO;
            for _ in 0..iters {
                let op = OperationId::generate();
                let to = Volume::Staging(op.clone());
                let t = Instant::now();
                store.clone_volume(from, &to, &op).unwrap();
                total += t.elapsed();
                store.delete(&to).unwrap();
            }
            total
        });
    });
    g.bench_function("bare ioctl", |b| {
        b.iter_custom(|iters| {
            let mut total = Duration::ZERO;
            for _ in 0..iters {
                let t = Instant::now();
                bare_snapshot(&path, bench, "s", false);
                total += t.elapsed();
                bare_delete(bench, "s");
            }
            total
        });
    });
    g.finish();
}

fn lifecycle(cr: &mut Criterion, host: &Host, c: &ContainerId, name: &str) {
    let mut g = cr.benchmark_group("lifecycle");
    g.bench_function("pause and resume", |b| {
        b.iter(|| {
            host.lifecycle(&Caller::default(), c, Verb::Pause, None).unwrap();
            host.lifecycle(&Caller::default(), c, Verb::Resume, None).unwrap();
        });
    });
    g.sample_size(10).bench_function("restore of a running container", |b| {
        b.iter(|| host.restore(&Caller::default(), c, name, RestoreOptions::default()).unwrap());
    });
    g.finish();
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let real = RealHost::new("primitives");
    let host = real.host();
    let p = project(host, "bench");
    let c = container(host, &p, "dev").unwrap();
    let live = real.live(&c);
    let bench = real.config.run.join("pool/bench");
    std::fs::create_dir_all(&bench).unwrap();
    let store = BtrfsStore::open(&real.config.run.join("pool")).unwrap();
    let mut cr = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500)).configure_from_args();

    snapshots(&mut cr, &live, &bench, host, &c);
    let name = host.snapshots(&c).unwrap().snapshots[0].name.clone();
    clones(&mut cr, &store, &Volume::Snapshot(c.clone(), name.clone()), &bench);
    lifecycle(&mut cr, host, &c, name.as_str());
    cr.final_summary();
}
