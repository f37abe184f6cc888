//! Real containers for tests: a BusyBox root in a directory of its own, a cgroup parent of its own, all gone when dropped.

use super::{OciConfig, OciRuntime};
use crate::cgroup::{CgroupTree, Layout};
use crate::id::ContainerId;
use crate::machine::freezer;
use crate::runtime::suite::{Exits, spec};
use crate::runtime::{RunSpec, Runtime};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);
pub(super) const ID_BASE: u32 = 100_000;

/// A world for containers.
pub(super) struct Fixture {
    pub runtime: Option<OciRuntime>,
    pub exits: Exits,
    pub dir: tempfile::TempDir,
    pub parent: String,
    pub subreaper: bool,
}

impl Fixture {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it runs containers");
        assert!(Path::new("/bin/busybox").exists(), "this test needs a static BusyBox: apt-get install busybox-static");
        super::find::probe(None).expect("this test needs an OCI runtime: apt-get install runc");
        let dir = tempfile::Builder::new().prefix("hoody-rt-").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_root(&dir.path().join("root"));
        let parent = format!("/hoody-rt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut f = Fixture { runtime: None, exits: Exits::default(), dir, parent, subreaper: true };
        f.restart();
        f
    }

    /// On a world somebody else made (and will take down).
    pub fn config(dir: &Path, parent: &str) -> OciConfig {
        let console = dir.join("console");
        let cgroups = CgroupTree::with_layout(Layout::detect().unwrap(), parent).unwrap();
        let freezer = freezer(&cgroups).unwrap();
        OciConfig::new(dir.join("run"), cgroups, freezer, move |c| console.join(format!("{c}.log")))
    }

    pub fn restart(&mut self) {
        self.runtime = None;
        let mut config = Self::config(self.dir.path(), &self.parent);
        config.subreaper = self.subreaper;
        let runtime = OciRuntime::new(config).unwrap();
        runtime.set_exit_listener(self.exits.listener());
        self.runtime = Some(runtime);
    }

    pub fn rt(&self) -> &OciRuntime {
        self.runtime.as_ref().unwrap()
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn spec(&self, c: &ContainerId, command: &[&str]) -> RunSpec {
        spec(c, Some(&self.root()), command)
    }

    pub fn sh(&self, c: &ContainerId, script: &str) -> RunSpec {
        self.spec(c, &["/bin/sh", "-c", script])
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(r) = &self.runtime {
            for c in r.list().unwrap_or_default() {
                if let Err(e) = r.remove(&c) {
                    eprintln!("left behind: {e}");
                }
            }
        }
    }
}

pub(super) fn make_root(root: &Path) {
    for d in ["bin", "proc", "sys", "dev", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(d)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for a in ["sh", "sleep", "cat", "id", "ps", "touch", "kill", "mount", "yes", "head", "dd", "wc", "hostname", "true", "false", "truncate", "env", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(a)).unwrap();
    }
    let ok = Command::new("chown").args(["-Rh", &format!("{ID_BASE}:{ID_BASE}")]).arg(root).status().unwrap().success();
    assert!(ok);
}

/// Host pids of zombies that are children of this process and were the runtime's or a container's.
pub(super) fn zombies() -> Vec<String> {
    let me = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|p| crate::sys::process::proc_stat(p).map(|s| (p, s)))
        .filter(|(_, s)| s.ppid == me && s.state == 'Z')
        .map(|(p, s)| format!("{p} {} {}", s.comm, std::fs::read_to_string(format!("/proc/{p}/cgroup")).unwrap_or_default()))
        .collect()
}
