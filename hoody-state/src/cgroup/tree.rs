//! Creates, lists and removes the containers' groups, which are directories.

use super::layout::{Layout, LayoutKind};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use nix::libc::{EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The v1 hierarchies in which a container has a group. The OCI runtime creates its own `run` in all of them.
const V1_USED: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The groups of one pool's containers. See the [module](super). Cheap to clone.
#[derive(Debug, Clone)]
pub struct CgroupTree {
    layout: Layout,
    parent: String,
    /// The number of tasks that all containers together may have; `None`: a share of what the host can have.
    pub(super) tasks: Option<u64>,
}

impl CgroupTree {
    /// The tree below `parent` (`/hoody/<pool id>`; on a host where another manager owns the tree, a group it delegated) on this machine. Creates nothing yet.
    ///
    /// # Errors
    /// `invalid_cgroup_parent`, `no_cgroups`.
    pub fn new(parent: &str) -> Result<Self> {
        Self::with_layout(Layout::detect()?, parent)
    }

    /// The same on the given hierarchies.
    ///
    /// # Errors
    /// `invalid_cgroup_parent`.
    pub fn with_layout(layout: Layout, parent: &str) -> Result<Self> {
        let good = |s: &str| !s.is_empty() && s != "." && s != ".." && s.len() <= 200 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:@".contains(&b));
        if !parent.strip_prefix('/').is_some_and(|p| p.split('/').all(good)) {
            return Err(Error::new(
                Code::InvalidCgroupParent,
                format!("{parent:?} cannot be the parent of cgroups: it must be an absolute path such as /hoody/pool, segments of A-Z a-z 0-9 . _ - : @"),
            ));
        }
        Ok(CgroupTree { layout, parent: parent.to_owned(), tasks: None })
    }

    /// The hierarchies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The group above the containers'.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The container's group in the form that OCI runtimes take: a path inside each hierarchy.
    #[must_use]
    pub fn path(&self, container: &ContainerId) -> String {
        format!("{}/{container}", self.parent)
    }

    /// The container's directory in the hierarchy mounted at `root`.
    pub(crate) fn dir(&self, root: &Path, container: &ContainerId) -> PathBuf {
        root.join(&self.parent[1..]).join(container.as_str())
    }

    /// The container's v2 directory, where v2 is mounted.
    #[must_use]
    pub fn v2_dir(&self, container: &ContainerId) -> Option<PathBuf> {
        self.layout.v2().map(|r| self.dir(r, container))
    }

    /// The container's directory in the hierarchy of a v1 controller.
    #[must_use]
    pub fn v1_dir(&self, controller: &str, container: &ContainerId) -> Option<PathBuf> {
        self.layout.v1(controller).map(|r| self.dir(r, container))
    }

    /// The directory that lists the container's processes.
    pub(crate) fn process_dir(&self, container: &ContainerId) -> Option<PathBuf> {
        self.layout.process_root().map(|r| self.dir(r, container))
    }

    /// Creates the container's groups where they are missing. May be repeated; costs a few microseconds if they exist.
    ///
    /// # Errors
    /// `io`, with what to do where a controller cannot be enabled.
    pub fn create(&self, container: &ContainerId) -> Result<()> {
        if let Some(root) = self.layout.v2() {
            let dir = self.dir(root, container);
            if !dir.is_dir() {
                self.make(&dir)?;
                self.enable_controllers(root)?;
                Self::leave_some(&root.join(&self.parent[1..]));
                self.limit_all_tasks();
            }
        }
        for dir in V1_USED.iter().filter(|c| !self.layout.v2_has(c)).filter_map(|c| self.v1_dir(c, container)) {
            if !dir.is_dir() {
                self.make(&dir)?;
                dir.parent().map(Self::leave_some);
                self.limit_all_tasks();
            }
        }
        Ok(())
    }

    /// Creates a child of the container's v2 group and returns its `cgroup.procs`, open for writing; `None` if v2 is not mounted.
    pub(crate) fn open_child(&self, container: &ContainerId, child: &str) -> Result<Option<fs::File>> {
        self.v2_dir(container).map(|d| self.open_group(&d.join(child))).transpose()
    }

    /// The same in the hierarchy of a v1 controller.
    pub(crate) fn open_v1_child(&self, controller: &str, container: &ContainerId, child: &str) -> Result<Option<fs::File>> {
        self.v1_dir(controller, container).map(|d| self.open_group(&d.join(child))).transpose()
    }

    fn open_group(&self, dir: &Path) -> Result<fs::File> {
        let open = || fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        match open() {
            Err(e) if e.raw_os_error() == Some(ENOENT) => {}
            r => return r.io(|| format!("open {}/cgroup.procs", dir.display())),
        }
        self.make(dir)?;
        open().io(|| format!("open {}/cgroup.procs", dir.display()))
    }

    /// Removing the last container removes the parent too, perhaps at this very moment. Then this is tried again.
    fn make(&self, dir: &Path) -> Result<()> {
        let mut tries = 0;
        loop {
            match fs::create_dir_all(dir) {
                Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ENODEV)) && tries < 100 => tries += 1,
                Err(e) if e.raw_os_error() == Some(EEXIST) => return Ok(()),
                r => return r.io(|| format!("make cgroup {}", dir.display())),
            }
        }
    }

    /// v2 gives a group only the controllers that its parent delegates.
    fn enable_controllers(&self, root: &Path) -> Result<()> {
        let wanted: Vec<&str> = CONTROLLERS.into_iter().filter(|c| self.layout.v2_has(c)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut dir = root.to_path_buf();
        for segment in std::iter::once("").chain(self.parent[1..].split('/')) {
            dir.push(segment);
            let file = dir.join("cgroup.subtree_control");
            let have = fs::read_to_string(&file).io(|| format!("read {}", file.display()))?;
            for c in wanted.iter().filter(|c| !have.split_ascii_whitespace().any(|h| h == **c)) {
                fs::write(&file, format!("+{c}")).map_err(|e| {
                    let hint = if e.raw_os_error() == Some(EBUSY) { ": the group has processes of its own; choose another cgroup parent" } else { "" };
                    Error::io(format!("enable the {c} controller in {}{hint}", dir.display()), e)
                })?;
            }
        }
        Ok(())
    }

    /// Whether any hierarchy has a group of the container.
    #[must_use]
    pub fn exists(&self, container: &ContainerId) -> bool {
        self.layout.roots().iter().any(|r| self.dir(r, container).is_dir())
    }

    /// Every container that has a group, from every hierarchy.
    ///
    /// # Errors
    /// `io`.
    pub fn list(&self) -> Result<Vec<ContainerId>> {
        let mut found = BTreeSet::new();
        for root in self.layout.roots() {
            found.extend(children(&root.join(&self.parent[1..]))?.iter().filter_map(|d| d.file_name()?.to_str()?.parse().ok()));
        }
        Ok(found.into_iter().collect())
    }

    /// Host pids of every process of the container, in no particular order. Empty if it has no group.
    ///
    /// # Errors
    /// `io`.
    pub fn procs(&self, container: &ContainerId) -> Result<Vec<i32>> {
        match self.process_dir(container) {
            Some(dir) => procs_below(&dir),
            None => Ok(Vec::new()),
        }
    }

    /// Removes the children of the container's group that are empty, except `run` where v1 is mounted: the next start is quicker if it exists.
    pub(crate) fn remove_children(&self, container: &ContainerId) {
        let keep_run = self.layout.kind() != LayoutKind::Unified;
        for root in self.layout.v2().into_iter() {
            for child in children(&self.dir(root, container)).unwrap_or_default() {
                if !(keep_run && child.file_name().is_some_and(|n| n == "run")) {
                    // A group that still has a process is removed with the container.
                    let _ = remove_deep(&child, Duration::ZERO);
                }
            }
        }
    }

    /// Removes the container's groups from every hierarchy, children first, and the parent after the last container. May be repeated. The groups must be
    /// empty of processes; EBUSY right after an exit is waited out for at most 2 s.
    ///
    /// # Errors
    /// `io`.
    pub fn remove(&self, container: &ContainerId) -> Result<()> {
        for root in self.layout.roots() {
            remove_deep(&self.dir(root, container), REMOVE_TIMEOUT)?;
            let parent = root.join(&self.parent[1..]);
            // Not empty: it has the groups of other containers. A group above ours is ours only by its name.
            if fs::remove_dir(&parent).is_ok()
                && let Some(above) = parent.parent()
                && above != root
                && above.file_name().is_some_and(|n| n == "hoody")
            {
                let _ = fs::remove_dir(above);
            }
        }
        Ok(())
    }
}

/// The child groups of a group; none if it does not exist.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ENODEV)) => return Ok(Vec::new()),
        Err(e) => return Err(e).io(|| format!("list {}", dir.display())),
    };
    Ok(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect())
}

/// Pids of a group and of all groups below it.
pub(super) fn procs_below(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(d) = todo.pop() {
        match fs::read_to_string(d.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0)),
            // Removed meanwhile, or a threaded group, whose processes are listed in the group above.
            Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ENODEV | EOPNOTSUPP | EINVAL)) => {}
            Err(e) => return Err(e).io(|| format!("read {}/cgroup.procs", d.display())),
        }
        todo.extend(children(&d)?);
    }
    Ok(pids)
}

/// Removes a group and all groups below it, deepest first.
fn remove_deep(dir: &Path, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(200);
    loop {
        for child in children(dir)? {
            remove_deep(&child, deadline.saturating_duration_since(Instant::now()))?;
        }
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ENODEV)) => return Ok(()),
            // The kernel does not notify when the last reference to an exited process is dropped: try again, a little later each time.
            Err(e) if matches!(e.raw_os_error(), Some(EBUSY | ENOTEMPTY)) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(e) => return Err(e).io(|| format!("remove cgroup {} (its processes must end first)", dir.display())),
        }
    }
}
