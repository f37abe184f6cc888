//! The settings of an embedder.

use crate::cgroup::CgroupTree;
use crate::freeze::Freezer;
use crate::id::ContainerId;
use crate::units::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The default of how many processes and threads a container may have.
pub const CONTAINER_TASKS: u64 = 4096;

/// Returns the path of a container's console.
pub(super) type ConsolePath = Arc<dyn Fn(&ContainerId) -> PathBuf + Send + Sync>;

/// How [`OciRuntime`](super::OciRuntime) runs containers.
#[derive(Clone)]
pub struct OciConfig {
    /// Name or path of the runtime; `None`: the first of `runc`, `crun`, `youki` in PATH.
    pub runtime: Option<PathBuf>,
    /// State, bundles and pid files: on a file system that a reboot empties.
    pub run_dir: PathBuf,
    /// The console file of a container; its directory is created.
    pub console_path: Arc<dyn Fn(&ContainerId) -> PathBuf + Send + Sync>,
    /// How much of a console is kept: between half of this and this, except for a moment after a flood of output.
    pub console_limit: Bytes,
    /// The containers' cgroups.
    pub cgroups: CgroupTree,
    /// Says whether a container is frozen, and thaws it so that it can be stopped.
    pub freezer: Arc<dyn Freezer>,
    /// The host id of a container's root.
    pub id_base: u32,
    /// How many ids a container has.
    pub id_count: u32,
    /// How many processes and threads a container may have at once.
    pub pids_limit: Option<u64>,
    /// The signal that `stop` sends to init.
    pub stop_signal: i32,
    /// A runtime that takes longer to start a container is killed.
    pub start_timeout: Duration,
    /// How long killing waits for the last process.
    pub kill_timeout: Duration,
    /// Whether this process becomes a child subreaper, to learn exit codes from every kernel. Embedders that are one already, or whose
    /// other children leave orphans that shall go to pid 1, switch it off.
    pub subreaper: bool,
    /// Whether it only reads, beside the process that runs the containers: adopting then watches and writes nothing.
    pub looks_only: bool,
}

impl OciConfig {
    /// The defaults: first runtime found, 1 MiB of console, ids 100000 to 165535, 4096 processes and threads, TERM, 60 s to start, 30 s to die, subreaper.
    #[must_use]
    pub fn new(
        run_dir: impl Into<PathBuf>,
        cgroups: CgroupTree,
        freezer: Arc<dyn Freezer>,
        console_path: impl Fn(&ContainerId) -> PathBuf + Send + Sync + 'static,
    ) -> Self {
        OciConfig {
            runtime: None,
            run_dir: run_dir.into(),
            console_path: Arc::new(console_path),
            console_limit: Bytes::mib(1),
            cgroups,
            freezer,
            id_base: 100_000,
            id_count: 65_536,
            pids_limit: Some(CONTAINER_TASKS),
            stop_signal: nix::libc::SIGTERM,
            start_timeout: Duration::from_secs(60),
            kill_timeout: Duration::from_secs(30),
            subreaper: true,
            looks_only: false,
        }
    }
}

impl fmt::Debug for OciConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciConfig").field("runtime", &self.runtime).field("run_dir", &self.run_dir).field("id_base", &self.id_base).finish_non_exhaustive()
    }
}
