//! A tree of control groups for one test, removed at its end.

use super::{CgroupTree, Layout};
use crate::id::ContainerId;
use crate::sys::process::enter_before_exec;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A parent cgroup for tests; dropping kills and removes everything below.
pub(crate) struct TestTree {
    pub cgroups: CgroupTree,
    children: Mutex<Vec<Child>>,
}

impl TestTree {
    pub fn new(layout: Layout) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes cgroups");
        let parent = format!("/hoody-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        TestTree { cgroups: CgroupTree::with_layout(layout, &parent).unwrap(), children: Mutex::default() }
    }

    /// Starts a process in `<container>/run` of every hierarchy in use.
    pub fn spawn(&self, c: &ContainerId, argv: &[&str]) -> i32 {
        self.cgroups.create(c).unwrap();
        let mut fds: Vec<OwnedFd> = self.cgroups.open_child(c, "run").unwrap().map(OwnedFd::from).into_iter().collect();
        let mut v1: Vec<_> = ["memory", "cpuacct", "freezer", "pids"].iter().filter_map(|n| self.cgroups.v1_dir(n, c)).collect();
        v1.sort();
        v1.dedup();
        for dir in v1 {
            let run = dir.join("run");
            std::fs::create_dir_all(&run).unwrap();
            fds.push(std::fs::OpenOptions::new().write(true).open(run.join("cgroup.procs")).unwrap().into());
        }
        let mut cmd = Command::new(argv[0]);
        cmd.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        enter_before_exec(&mut cmd, fds);
        let child = cmd.spawn().unwrap();
        let pid = child.id() as i32;
        self.children.lock().unwrap().push(child);
        pid
    }

    /// Reaps the processes that have ended.
    pub fn reap(&self) {
        self.children.lock().unwrap().retain_mut(|c| !matches!(c.try_wait(), Ok(Some(_))));
    }

    pub fn destroy(&self, c: &ContainerId) {
        self.cgroups.kill_with(c, Duration::from_secs(10), &|| self.reap()).unwrap();
        self.cgroups.remove(c).unwrap();
    }
}

impl Drop for TestTree {
    fn drop(&mut self) {
        for c in self.cgroups.list().unwrap_or_default() {
            let _ = self.cgroups.kill_with(&c, Duration::from_secs(10), &|| self.reap());
            let _ = self.cgroups.remove(&c);
        }
        self.reap();
    }
}
