//! Processors are kept awake while requests come thick, and no longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};
use support::daemon::{Daemon, counter, make};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Whether there is anything to ask for on this machine: a driver that puts processors to sleep, and the device.
fn can_be_asked() -> bool {
    let driver = std::fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").unwrap_or_default();
    !matches!(driver.trim(), "" | "none") && Path::new(DEVICE).exists()
}

/// Whether a process has the device open.
fn asks(pid: u32) -> bool {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links.filter_map(|e| std::fs::read_link(e.path()).ok()).any(|to| to == Path::new(DEVICE))
}

/// Transactions one after the other until `seen` holds, or for so long.
fn burst(d: &Daemon, for_at_most: Duration, seen: impl Fn() -> bool) -> bool {
    let c = make(d.at("a.db"), "wal");
    c.execute_batch("PRAGMA synchronous=OFF").unwrap();
    let began = Instant::now();
    while began.elapsed() < for_at_most {
        for _ in 0..50 {
            c.execute("UPDATE t SET v = v + 1", []).unwrap();
        }
        if seen() {
            return true;
        }
    }
    false
}

fn until_it_rests(pid: u32) {
    let began = Instant::now();
    while asks(pid) {
        assert!(began.elapsed() < Duration::from_secs(5), "it keeps processors awake without a reason");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn processors_are_kept_awake_during_a_burst_and_let_sleep_after_it() {
    let d = Daemon::start(false);
    let pid = d.child.id();
    assert!(!asks(pid), "nothing has happened yet");
    let kept = burst(&d, Duration::from_secs(10), || asks(pid));
    // Where there is nothing to ask for, nothing may be asked for.
    assert_eq!(kept, can_be_asked());
    until_it_rests(pid);
    assert_eq!(counter(&d, "kept_awake_us") > 0, kept);
}

#[test]
fn a_transaction_now_and_then_keeps_no_processor_awake() {
    let d = Daemon::start(false);
    let c = make(d.at("a.db"), "wal");
    until_it_rests(d.child.id());
    let before = counter(&d, "kept_awake_us");
    for _ in 0..20 {
        c.execute("UPDATE t SET v = v + 1", []).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(counter(&d, "kept_awake_us"), before);
}

#[test]
fn who_wants_to_save_power_is_heard() {
    let d = Daemon::start_with(false, &["--save-power"]);
    let pid = d.child.id();
    assert!(!burst(&d, Duration::from_millis(500), || asks(pid)));
    assert_eq!(counter(&d, "kept_awake_us"), 0);
}
