//! The control group hierarchies of this machine, and where they are mounted.

use crate::error::{Code, Error, IoContext, Result};
use crate::sys::mountinfo::{self, MountEntry};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayoutKind {
    /// cgroup v2 alone.
    Unified,
    /// v1 controllers, and v2 beside them (without most controllers, but with `cgroup.freeze` and `cgroup.kill`).
    Hybrid,
    /// cgroup v1 alone.
    Legacy,
}

/// The hierarchies of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    v2: Option<PathBuf>,
    v2_controllers: Vec<String>,
    v1: BTreeMap<String, PathBuf>,
}

impl Layout {
    /// Reads the mounts of this process. Cost: two small reads.
    ///
    /// # Errors
    /// `no_cgroups` (`Kind::Unavailable`) when none is mounted.
    pub fn detect() -> Result<Self> {
        let mounts = mountinfo::of_this_process().io(|| "read /proc/self/mountinfo")?;
        let mut layout = Self::from_mounts(&mounts);
        if layout.v2.is_none() && layout.v1.is_empty() {
            return Err(Error::new(Code::NoCgroups, "no control groups are mounted: mount -t cgroup2 none /sys/fs/cgroup (a systemd host does it at boot)"));
        }
        if let Some(root) = &layout.v2 {
            let path = root.join("cgroup.controllers");
            let text = std::fs::read_to_string(&path).io(|| format!("read {}", path.display()))?;
            layout.v2_controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
        }
        Ok(layout)
    }

    /// Reads a table of mounts. Later mounts cover earlier ones.
    fn from_mounts(mounts: &[MountEntry]) -> Self {
        let mut layout = Layout { v2: None, v2_controllers: Vec::new(), v1: BTreeMap::new() };
        let prefer = |p: &Path| p.starts_with("/sys/fs/cgroup");
        for m in mounts {
            match m.kind.as_str() {
                "cgroup2" if layout.v2.as_deref().is_none_or(|old| prefer(&m.at) || !prefer(old)) => layout.v2 = Some(m.at.clone()),
                "cgroup" => {
                    for name in m.super_options.split(',').filter(|o| V1_CONTROLLERS.contains(o) || o.starts_with("name=")) {
                        if layout.v1.get(name).is_none_or(|old| prefer(&m.at) || !prefer(old)) {
                            layout.v1.insert(name.to_owned(), m.at.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// Which of the three kinds this machine has.
    #[must_use]
    pub fn kind(&self) -> LayoutKind {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => LayoutKind::Unified,
            (Some(_), false) => LayoutKind::Hybrid,
            (None, _) => LayoutKind::Legacy,
        }
    }

    /// The same machine without v2, to test the fallbacks.
    #[cfg(test)]
    pub(crate) fn without_v2(mut self) -> Self {
        self.v2 = None;
        self.v2_controllers.clear();
        self
    }

    /// Where v2 is mounted.
    #[must_use]
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Where the v1 hierarchy of a controller (`memory`, `name=systemd`) is mounted.
    #[must_use]
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.get(controller).map(PathBuf::as_path)
    }

    /// Whether v2 has the controller.
    #[must_use]
    pub fn v2_has(&self, controller: &str) -> bool {
        self.v2_controllers.iter().any(|c| c == controller)
    }

    /// Each v1 hierarchy once (`cpu,cpuacct` is one hierarchy).
    #[must_use]
    pub fn v1_roots(&self) -> Vec<&Path> {
        let mut roots: Vec<&Path> = self.v1.values().map(PathBuf::as_path).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Each hierarchy once, v2 first.
    #[must_use]
    pub fn roots(&self) -> Vec<&Path> {
        self.v2.as_deref().into_iter().chain(self.v1_roots()).collect()
    }

    /// The hierarchy that is authoritative for which processes a group has: v2 if mounted.
    #[must_use]
    pub(crate) fn process_root(&self) -> Option<&Path> {
        self.v2().or_else(|| self.v1("freezer")).or_else(|| self.v1("pids")).or_else(|| self.v1.values().next().map(PathBuf::as_path))
    }
}

const V1_CONTROLLERS: [&str; 13] =
    ["memory", "cpu", "cpuacct", "cpuset", "pids", "freezer", "devices", "blkio", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma"];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn from_table(table: &str) -> Layout {
        Layout::from_mounts(&mountinfo::parse(table.as_bytes()))
    }

    #[test]
    fn a_unified_machine() {
        let l = from_table("29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(l.kind(), LayoutKind::Unified);
        assert_eq!(l.v2(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(l.roots().len(), 1);
    }

    #[test]
    fn a_hybrid_machine_with_joined_controllers() {
        let l = from_table(concat!(
            "30 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "31 23 0:28 / /mnt/other rw - cgroup2 cgroup2 rw\n",
            "32 23 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
            "33 23 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n",
        ));
        assert_eq!(l.kind(), LayoutKind::Hybrid);
        assert_eq!(l.v2(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(l.v1("cpu"), l.v1("cpuacct"));
        assert_eq!(l.v1_roots().len(), 2);
        assert_eq!(l.clone().without_v2().kind(), LayoutKind::Legacy);
    }

    #[test]
    fn this_machine_has_control_groups() {
        assert!(Layout::detect().unwrap().process_root().is_some());
    }
}
