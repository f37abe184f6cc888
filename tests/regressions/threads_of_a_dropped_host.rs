//! A dropped host left its upkeep thread running.

use crate::support::{At, eventually, host_with};
use hoody_state::Host;

#[test]
fn a_host_that_is_dropped_leaves_no_thread() {
    let named = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "upkeep")).count()
    };
    let hosts: Vec<Host> = (0..20).map(|_| host_with(&At::default()).0).collect();
    // Other tests have hosts of their own meanwhile: only many are counted.
    eventually("their threads have begun", || named() >= 20);
    drop(hosts);
    eventually("their threads end", || named() < 15);
}
