//! 1,000 containers with three schedules that are due in the same minute, on a loop-device BTRFS image. `cargo bench --bench schedules`.
//!
//! Beside the 3,000 scheduled snapshots: 3,000 bare snapshots of the same volumes, three of each, as many in flight. Both in turn, the order changing each round,
//! once with nothing written before and once with four blocks written in each container. The containers are stopped. Their clock is moved by hand.
//!
//! `HOODY_BENCH_CONTAINERS` sets how many containers there are, `ROUNDS` how many rounds. With `--test` four containers and one round, and with nothing measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::clock::ManualClock;
use hoody_state::id::ContainerId;
use hoody_state::model::{ForkRequest, PolicyTarget, SnapshotPolicy, Verb};
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{RealHost, assert_clean, bare_snapshot, container, median, project};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// As many containers as the runner works on at once.
const IN_FLIGHT: usize = 8;
const SCHEDULES: [&str; 3] = ["one", "two", "three"];
const HOUR: Duration = Duration::from_secs(3600);

/// A line of the memory that the process has, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix(line)).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

struct Stage {
    real: RealHost,
    clock: Arc<ManualClock>,
    all: Vec<ContainerId>,
    /// How many snapshots of schedules were taken so far.
    taken: u64,
}

/// What the runs of one minute cost.
struct Runs {
    seconds: f64,
    /// How much more resident memory there is than before, at most meanwhile and at the end, in KiB.
    peak: u64,
    left: u64,
}

/// Stopped containers that are copies of one.
fn stopped_containers(host: &Host, count: usize) -> Vec<ContainerId> {
    let me = Caller { wait: Duration::from_secs(60), ..Caller::default() };
    let first = container(host, &project(host, "bench"), "box").unwrap();
    host.lifecycle(&me, &first, Verb::ForceStop, None).unwrap();
    let mut all = vec![first.clone()];
    while all.len() < count {
        let n = (count - all.len()).min(100);
        let request = ForkRequest { count: Some(n as u32), start: Some(false), name_prefix: Some(format!("box-{}", all.len())), ..Default::default() };
        let forked = host.fork_container(&me, &first, &request).unwrap();
        all.extend(forked.results.into_iter().map(|r| r.container.unwrap_or_else(|| panic!("{:?}", r.error)).id));
    }
    let end = Instant::now() + Duration::from_secs(300);
    while host.operations(&hoody_state::model::PageRequest::first()).unwrap().rows.iter().any(|o| o.finished_at.is_none()) {
        assert!(Instant::now() < end, "the copies do not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    all
}

impl Stage {
    fn new(count: usize) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-02T10:00:00Z".parse().unwrap()));
        let same = clock.clone();
        let real = RealHost::built("schedules-bench", |c| c.pool_size = Some(Bytes::gib(8)), move |b| b.clock(same.clone()));
        let all = stopped_containers(real.host(), count);
        let schedules: Vec<_> = SCHEDULES.iter().map(|name| serde_json::json!({ "name": name, "cron": "@hourly", "keep": { "last": 1000 } })).collect();
        let policy: SnapshotPolicy = serde_json::from_value(serde_json::json!({ "schedules": schedules })).unwrap();
        real.host().set_snapshot_policy(&Caller::default(), &PolicyTarget::Server, &policy).unwrap();
        Stage { real, clock, all, taken: 0 }
    }

    /// Four blocks of each container are written, as a working one does between two snapshots.
    fn write(&self, n: usize) {
        for c in &self.all {
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(self.real.live(c).join("root/written")).unwrap();
            for block in 0..4u64 {
                file.write_all_at(&[n as u8; 4096], (n as u64 * 4 + block) % 64 * 4096).unwrap();
            }
        }
    }

    /// What came before no longer keeps the disk busy.
    fn settle() {
        nix::unistd::sync();
        std::thread::sleep(Duration::from_millis(500));
    }

    /// All schedules of all containers are due, and run.
    fn scheduled(&mut self) -> Runs {
        let host = self.real.host();
        let before = memory("VmRSS:");
        // Sets the peak to what is now.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        self.clock.advance(HOUR);
        let began = Instant::now();
        host.run_due_schedules().unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let (peak, left) = (memory("VmHWM:").saturating_sub(before), memory("VmRSS:").saturating_sub(before));
        self.taken += (self.all.len() * SCHEDULES.len()) as u64;
        let counts = host.schedule_counts().unwrap();
        assert_eq!((counts.taken, counts.failed, counts.failing, counts.under_way, counts.waiting), (self.taken, 0, 0, 0, 0), "all are done");
        Runs { seconds, peak, left }
    }

    /// The same number of bare snapshots; how many seconds they take.
    fn bare(&self, round: usize) -> f64 {
        let dir_of = |c: &ContainerId| -> PathBuf { self.real.config.run.join("pool/bench").join(c.as_str()) };
        self.all.iter().for_each(|c| std::fs::create_dir_all(dir_of(c)).unwrap());
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..IN_FLIGHT {
                scope.spawn(|| {
                    while let Some(c) = self.all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        for schedule in SCHEDULES {
                            bare_snapshot(&self.real.live(c), &dir_of(c), &format!("{schedule}-{round}"), true);
                        }
                    }
                });
            }
        });
        began.elapsed().as_secs_f64()
    }
}

fn main() {
    let is_test = std::env::args().any(|a| a == "--test");
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (count, rounds) = (number("HOODY_BENCH_CONTAINERS", if is_test { 4 } else { 1000 }), number("ROUNDS", if is_test { 1 } else { 4 }));
    let mut s = Stage::new(count);
    let all = count * SCHEDULES.len();
    println!(
        "| {count} containers with three schedules due at once | {all} scheduled snapshots | {all} bare ones, {IN_FLIGHT} in flight | ratio | resident memory: at most, at the end |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut round = 0;
    for (what, written) in [("nothing written before", false), ("four blocks written in each before", true)] {
        let (mut ours, mut bare, mut peak, mut left) = (Vec::new(), Vec::new(), 0, 0);
        for _ in 0..rounds {
            round += 1;
            for is_ours in [round % 2 == 0, round % 2 != 0] {
                if written {
                    s.write(round * 2 + usize::from(is_ours));
                }
                Stage::settle();
                if is_ours {
                    let runs = s.scheduled();
                    (peak, left) = (peak.max(runs.peak), left.max(runs.left));
                    ours.push(runs.seconds);
                } else {
                    bare.push(s.bare(round));
                }
            }
        }
        eprintln!("{what}: scheduled {ours:.2?} s, bare {bare:.2?} s");
        let (ours, bare) = (median(ours), median(bare));
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("| {what} | {ours:.2} s | {bare:.2} s | {:.2} | + {:.1} MiB, + {:.1} MiB |", ours / bare, mib(peak), mib(left));
    }
    assert_clean(s.real.host(), "after the runs");
}
