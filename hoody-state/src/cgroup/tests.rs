//! Tests on this machine's kernel, with v2 and as if v2 were not mounted.

use super::testing::TestTree;
use super::*;
use crate::Code;
use crate::error::Kind;
use crate::id::ContainerId;
use crate::model::run::{Limits, RuntimeStats};
use crate::units::Bytes;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(10);

fn trees() -> Vec<TestTree> {
    let here = Layout::detect().unwrap();
    let mut trees = vec![TestTree::new(here.clone())];
    if here.kind() == LayoutKind::Hybrid {
        trees.push(TestTree::new(here.without_v2()));
    }
    trees
}

#[test]
fn unsafe_parent_paths_are_refused() {
    for bad in ["", "/", "hoody", "/a/../b", "/a//b", "/a b", "/a/", "/.."] {
        assert_eq!(CgroupTree::new(bad).unwrap_err().code(), Code::InvalidCgroupParent, "{bad:?}");
    }
    assert!(CgroupTree::new("/system.slice/hoody.service/containers").is_ok());
}

#[test]
fn groups_are_created_listed_and_removed_and_the_parent_with_the_last() {
    for t in trees() {
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        assert_eq!(t.cgroups.stats(&a).unwrap(), RuntimeStats::default());
        assert!(!t.cgroups.populated(&a).unwrap());
        t.cgroups.kill(&a, TIMEOUT).unwrap();
        for c in [&a, &b, &a] {
            t.cgroups.create(c).unwrap();
        }
        let mut both = vec![a.clone(), b.clone()];
        both.sort();
        assert_eq!(t.cgroups.list().unwrap(), both);
        t.cgroups.remove(&a).unwrap();
        t.cgroups.remove(&a).unwrap();
        assert_eq!(t.cgroups.list().unwrap(), std::slice::from_ref(&b));
        t.cgroups.remove(&b).unwrap();
        for root in t.cgroups.layout().roots() {
            assert!(!t.cgroups.dir(root, &b).parent().unwrap().exists(), "{}", root.display());
        }
    }
}

#[test]
fn limits_are_written_to_the_kernel() {
    for t in trees() {
        let c = ContainerId::generate();
        t.cgroups.create(&c).unwrap();
        let limits = Limits { memory: Some(Bytes::mib(64)), cpus: Some(0.5) };
        match t.cgroups.set_limits(&c, &limits, Some(100)) {
            Err(e) => {
                assert_eq!((e.kind(), e.code()), (Kind::Unavailable, Code::NoController));
                continue;
            }
            Ok(()) => t.cgroups.set_limits(&c, &limits, Some(100)).unwrap(),
        }
        let read = |c2: &str, f2: &str, c1: &str, f1: &str| {
            let dir = if t.cgroups.layout().v2_has(c2) { t.cgroups.v2_dir(&c).map(|d| d.join(f2)) } else { t.cgroups.v1_dir(c1, &c).map(|d| d.join(f1)) };
            std::fs::read_to_string(dir.unwrap()).unwrap().trim().to_owned()
        };
        assert_eq!(read("memory", "memory.max", "memory", "memory.limit_in_bytes"), (64u64 << 20).to_string());
        assert!(read("cpu", "cpu.max", "cpu", "cpu.cfs_quota_us").starts_with("50000"));
        assert_eq!(read("pids", "pids.max", "pids", "pids.max"), "100");
        t.cgroups.set_limits(&c, &Limits::default(), None).unwrap();
        assert_ne!(read("memory", "memory.max", "memory", "memory.limit_in_bytes"), (64u64 << 20).to_string());
        for bad in [
            Limits { memory: Some(Bytes(1)), cpus: None },
            Limits { memory: None, cpus: Some(0.0) },
            Limits { memory: None, cpus: Some(f64::NAN) },
            Limits { memory: None, cpus: Some(-1.0) },
            Limits { memory: Some(Bytes(u64::MAX)), cpus: None },
        ] {
            assert_eq!(t.cgroups.set_limits(&c, &bad, None).unwrap_err().code(), Code::InvalidLimit, "{bad:?}");
        }
    }
}

#[test]
fn kill_ends_processes_that_keep_forking() {
    for t in trees() {
        let c = ContainerId::generate();
        t.cgroups.create(&c).unwrap();
        let _ = t.cgroups.set_limits(&c, &Limits::default(), Some(300));
        // Each child starts two more and ignores the signals that can be ignored.
        t.spawn(&c, &["sh", "-c", "trap '' TERM INT HUP; f() { f & f & wait; }; f"]);
        let deadline = Instant::now() + TIMEOUT;
        while t.cgroups.procs(&c).unwrap().len() < 50 {
            assert!(Instant::now() < deadline, "the fork bomb did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = Instant::now();
        t.cgroups.kill_with(&c, TIMEOUT, &|| t.reap()).unwrap();
        assert!(!t.cgroups.populated(&c).unwrap());
        assert_eq!(t.cgroups.procs(&c).unwrap(), Vec::<i32>::new());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        t.cgroups.remove(&c).unwrap();
    }
}

#[test]
fn waiting_ends_with_the_last_process() {
    for t in trees() {
        let c = ContainerId::generate();
        t.spawn(&c, &["sleep", "0.1"]);
        assert!(t.cgroups.populated(&c).unwrap());
        assert_eq!(t.cgroups.stats(&c).unwrap().processes, 1);
        assert!(!t.cgroups.wait_empty(&c, Duration::from_millis(10)).unwrap());
        assert!(t.cgroups.wait_empty(&c, TIMEOUT).unwrap());
        assert!(!t.cgroups.populated(&c).unwrap());
    }
}

#[test]
fn removing_the_last_group_and_creating_the_next_do_not_collide() {
    let t = TestTree::new(Layout::detect().unwrap());
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..20 {
                    let c = ContainerId::generate();
                    t.cgroups.create(&c).unwrap();
                    t.cgroups.remove(&c).unwrap();
                }
            });
        }
    });
    assert_eq!(t.cgroups.list().unwrap(), Vec::<ContainerId>::new());
}
