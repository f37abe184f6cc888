//! Merging equal data on a loop-device BTRFS image. `cargo bench --bench dedupe`.
//!
//! Two containers with 256 MiB each, in files of 1 MiB, dropped from the page cache before each round. Beside each run the same bytes are read, in turn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::snapshot::btrfs::BtrfsStore;
use hoody_state::snapshot::{Dedupe, DedupeRequest, Deduped, Volume};
use hoody_state::units::Bytes;
use hoody_state_workspace::{RealHost, container, project};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

const FILES: u64 = 256;
const MIB: usize = 1 << 20;

fn write(live: &Path, seed: u64) {
    let mut x = seed | 1;
    for n in 0..FILES {
        let words = (0..MIB / 8).map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        });
        let mut f = File::create(live.join(format!("f{n}"))).unwrap();
        f.write_all(&words.flatten().collect::<Vec<u8>>()).unwrap();
        f.sync_all().unwrap();
    }
}

/// Drops the files from the page cache.
fn forget(live: &Path) {
    for n in 0..FILES {
        let f = File::open(live.join(format!("f{n}"))).unwrap();
        posix_fadvise(&f, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }
}

fn read(live: &Path) {
    let mut buffer = vec![0; 128 << 10];
    for n in 0..FILES {
        let mut f = File::open(live.join(format!("f{n}"))).unwrap();
        while f.read(&mut buffer).unwrap() > 0 {}
    }
}

/// The most memory that the process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn timed<T>(into: &mut Vec<f64>, f: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let out = f();
    into.push(began.elapsed().as_secs_f64());
    out
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let real = RealHost::new("dedupe-bench");
    let p = project(real.host(), "bench");
    let made: Vec<ContainerId> = ["first", "second"].iter().map(|n| container(real.host(), &p, n).unwrap()).collect();
    let lives: Vec<_> = made.iter().map(|c| real.live(c)).collect();
    let volumes: Vec<Volume> = made.into_iter().map(Volume::Live).collect();
    let store = BtrfsStore::open(&real.config.run.join("pool")).unwrap();
    let run = || -> Deduped { store.merge_equal(&DedupeRequest { volumes: &volumes, min_size: Bytes(4096), stop: &|| false, progress: &|_, _| {} }).unwrap() };
    let gib = |bytes: u64, seconds: f64| bytes as f64 / f64::from(1 << 30) / seconds;
    let all = 2 * FILES * MIB as u64;

    // Nothing is equal: all is read and hashed.
    lives.iter().zip([3, 5]).for_each(|(live, seed)| write(live, seed));
    let before = peak();
    let (mut alone, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        lives.iter().for_each(|l| forget(l));
        timed(&mut alone, || lives.iter().for_each(|l| read(l)));
        lives.iter().for_each(|l| forget(l));
        let d = timed(&mut runs, run);
        assert!(d.gained.0 == 0 && d.read.0 >= all, "{d:?}");
    }
    let (alone, nothing) = (median(alone), median(runs));
    println!("read 512 MiB: {:.2} GiB/s; a run that finds nothing: {:.2} GiB/s, {:.2} x the time", gib(all, alone), gib(all, nothing), nothing / alone);

    // All of one container is equal to the other's.
    let mut runs = Vec::new();
    for seed in 0..5 {
        lives.iter().for_each(|live| write(live, 100 + seed));
        lives.iter().for_each(|l| forget(l));
        let d = timed(&mut runs, run);
        assert!(d.gained.0 >= FILES * MIB as u64, "{d:?}");
    }
    let merged = median(runs);
    println!("a run that gains 256 of 512 MiB: {:.2} GiB/s, {:.2} x the time of reading them", gib(all, merged), merged / alone);

    // All is shared already.
    let mut runs = Vec::new();
    for _ in 0..20 {
        lives.iter().for_each(|l| forget(l));
        let d = timed(&mut runs, run);
        assert_eq!(d.gained.0, 0, "{d:?}");
    }
    println!("the next run: {:.1} ms; {} KiB more memory at the most", median(runs) * 1e3, peak().saturating_sub(before));
}
