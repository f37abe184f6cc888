//! The usage of a container with 1,000 snapshots on a loop-device BTRFS image. `cargo bench --bench usage`.
//!
//! Between two snapshots 16 of 2,000 files are written. `HOODY_BENCH_SNAPSHOTS` sets how many there are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::model::{UsageReport, Verb};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{RealHost, container, median, ms, project, snapshot};
use std::time::{Duration, Instant};

const ROUNDS: usize = 25;

fn known(report: &UsageReport) -> usize {
    report.snapshots.iter().filter(|s| s.frees_bytes.is_some()).count()
}

/// Asks until everything is known.
fn all_known(host: &Host, c: &hoody_state::id::ContainerId) -> Duration {
    let began = Instant::now();
    loop {
        let report = host.usage_with_frees(c, Duration::from_secs(1)).unwrap();
        if known(&report) == report.snapshots.len() && report.all_snapshots.frees_bytes.is_some() {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(600), "{} of {} known", known(&report), report.snapshots.len());
    }
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let count: usize = std::env::var("HOODY_BENCH_SNAPSHOTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let real = RealHost::new("usage-bench");
    let host = real.host();
    let c = container(host, &project(host, "bench"), "dev").unwrap();
    host.lifecycle(&Caller::default(), &c, Verb::ForceStop, None).unwrap();
    let live = real.live(&c);
    std::fs::create_dir_all(live.join("srv/files")).unwrap();
    let write = |n: usize| std::fs::write(live.join(format!("srv/files/f{}", n % 2000)), vec![n as u8; 8192]).unwrap();
    (0..2000).for_each(write);
    for n in 0..count {
        (n * 16..n * 16 + 16).for_each(write);
        snapshot(host, &c, &format!("s{n}")).unwrap();
    }
    let began = Instant::now();
    let first = host.usage_with_frees(&c, Duration::ZERO).unwrap();
    println!("| what | figure |\n| --- | --- |");
    println!("| the first answer, without waiting | {:.1} ms, {} of {count} known |", began.elapsed().as_secs_f64() * 1e3, known(&first));
    println!("| until what each frees, and all together, is known | {:.1} s |", all_known(host, &c).as_secs_f64());
    let took = median((0..ROUNDS).map(|_| ms(|| drop(host.usage_with_frees(&c, Duration::ZERO).unwrap()))).collect());
    println!("| an answer then | {took:.1} ms, {} known |", known(&host.usage_with_frees(&c, Duration::ZERO).unwrap()));
    (0..16).for_each(write);
    snapshot(host, &c, "another").unwrap();
    let began = Instant::now();
    let next = host.usage_with_frees(&c, Duration::ZERO).unwrap();
    println!("| the first answer after another snapshot | {:.1} ms, {} of {} known |", began.elapsed().as_secs_f64() * 1e3, known(&next), count + 1);
    println!("| until all is known again | {:.2} s |", all_known(host, &c).as_secs_f64());
}
