//! Running a container: an OCI runtime as a process ([`oci`]), or none at all ([`memory`]).
//!
//! **Vocabulary.** A *run* is one life of a container's init, from start to exit. The container's *cgroup* outlives its runs: limits,
//! memory that is charged to it and freezing belong to the container, not to the run.
//!
//! **Guarantees**, tested by `suite` (feature `conformance`) on every backend:
//! 1. `start` returns when init runs; when it fails nothing of the run is left.
//! 2. The end of init is noticed without polling and reported once to the exit listener, whoever started it (a restarted server adopts by `adopt`).
//! 3. `stop` and `kill` return when **no** process of the container is left, frozen or not.
//! 4. A restart of this process disturbs no run.
//! 5. The console is kept, bounded, and never blocks the container.

mod cancel;
pub mod memory;
#[cfg(feature = "oci")]
pub mod oci;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;

pub use crate::model::run::{Limits, Network, RuntimeStats};
pub use cancel::Cancel;

use crate::error::Result;
use crate::id::{ContainerId, RunId};
use crate::model::TaskStats;
use crate::model::mount::Mount;
use crate::units::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything needed to start a run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Which container.
    pub container: ContainerId,
    /// Made up by the caller and journalled before the start, so that a crash in the middle can be told from another run.
    pub run: RunId,
    /// The root file system, with ids already shifted. `None` with backends that have no files.
    pub root: Option<PathBuf>,
    /// argv of init; the first is looked up in the container's PATH.
    pub command: Vec<String>,
    /// Its environment (PATH, HOME, TERM and HOSTNAME are added where missing).
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: String,
    /// Its host name.
    pub hostname: String,
    /// Its network.
    pub network: Network,
    /// Its limits.
    pub limits: Limits,
    /// What of the host is mounted in it for as long as it runs.
    pub mounts: Vec<Mount>,
    /// What is mounted below [`RECEIVED`](crate::model::mount::RECEIVED) at its start and can be taken away while it runs. `None`: there is no such
    /// directory.
    pub shares: Option<Vec<Mount>>,
}

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub run: RunId,
    /// Of init, on the host. 0 with backends that have no processes.
    pub pid: i32,
    /// Since when.
    pub started_at: Timestamp,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + the signal. `None` when it could not be learnt (it ended while nobody watched).
    pub code: Option<i32>,
    /// The signal that killed init, if one did.
    pub signal: Option<i32>,
    /// How many processes of the container the kernel killed during the run because its memory was used up.
    pub killed_for_memory: u64,
    /// The last lines that the run wrote to the console, at most [`LAST_LINES`](Self::LAST_LINES) bytes.
    pub last_lines: String,
}

impl Exit {
    /// How much of the console is kept with an exit.
    pub const LAST_LINES: usize = 600;

    /// An exit of which the code is known, and nothing else. More than 128 is a signal.
    #[must_use]
    pub fn of_code(code: Option<i32>) -> Self {
        Exit { code, signal: code.map(|c| c - 128).filter(|s| (1..=64).contains(s)), ..Exit::default() }
    }
}

/// A command to run in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// argv.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    pub cwd: Option<String>,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// Killed after this long.
    pub timeout: Option<Duration>,
    /// Bytes kept of each of stdout and stderr; what is over is read and dropped.
    pub output_limit: usize,
    /// Ends it early: it is killed with what it started, and the call fails with `exec_cancelled`.
    pub cancel: Option<Cancel>,
}

/// The command of a call that was cancelled has been killed.
fn cancelled(c: &ContainerId) -> crate::Error {
    crate::Error::new(crate::Code::ExecCancelled, format!("the command in container {c} was killed: its caller went away or cancelled it"))
}

/// What a command gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code, or 128 + the signal.
    pub exit_code: i32,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained.
    pub stderr: Vec<u8>,
    /// Whether some of either was dropped.
    pub truncated: bool,
    /// Whether it was killed for taking too long.
    pub timed_out: bool,
}

/// Called when a run ends; must return quickly.
pub type ExitListener = Box<dyn Fn(&ContainerId, &RunId, Exit) + Send + Sync>;

/// Called when the kernel kills something in a container that runs because its memory is used up; must return quickly.
pub type OomListener = Box<dyn Fn(&ContainerId) + Send + Sync>;

/// Runs containers. See the [module](self).
pub trait Runtime: Send + Sync {
    /// Its name, for people: `runc`.
    fn name(&self) -> String;

    /// Whether it can be used. Errors: `runtime_not_found` says what to install, `runtime_unusable` what it said.
    fn probe(&self) -> Result<()>;

    /// Who is told of exits. Set once, before anything is started.
    fn set_exit_listener(&self, listener: ExitListener);

    /// Who is told when the kernel kills something in a container that runs for lack of memory, perhaps a moment before it does. Set once, before anything is
    /// started. The default is that of a runtime that learns of it only by the exit ([`Exit::killed_for_memory`]).
    fn set_oom_listener(&self, _listener: OomListener) {}

    /// Makes the container's cgroup, or puts its limits right. May be repeated. Error: `invalid_limit`.
    fn prepare(&self, container: &ContainerId, limits: &Limits) -> Result<()>;

    /// Starts a run. Errors: `runtime_not_found`, `start_failed` (with what the runtime said), `already_running`, `pool_task_limit`.
    fn start(&self, spec: &RunSpec) -> Result<Running>;

    /// What runs now of this container, if anything; from the kernel, not from memory. From then on its exit is reported.
    fn adopt(&self, container: &ContainerId) -> Result<Option<Running>>;

    /// What runs now of this container, as far as its start has come to write that down. Waits for nothing, changes nothing and may be asked at any time, while
    /// [`adopt`](Runtime::adopt) is for who holds the container.
    fn running(&self, container: &ContainerId) -> Result<Option<Running>> {
        self.adopt(container)
    }

    /// TERM to init, then after `timeout` kill. Returns when nothing is left. A container that does not run is no error.
    /// A frozen one is thawed to be able to die.
    fn stop(&self, container: &ContainerId, timeout: Duration) -> Result<()>;

    /// Kills everything at once and returns when nothing is left. A container that does not run is no error.
    fn kill(&self, container: &ContainerId) -> Result<()>;

    /// Runs a command in a running container. Errors: `not_running`, `exec_failed`, `container_task_limit`, `pool_task_limit`.
    fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput>;

    /// Puts `mount` in the place of what is mounted at its target in a running container, a paused one included, whether the daemon behind the old mount
    /// still answers or not. Does nothing if the container does not run. Error: `remount_failed`.
    fn remount(&self, container: &ContainerId, mount: &Mount) -> Result<()>;

    /// What it uses. Zeros when it has no cgroup.
    fn stats(&self, container: &ContainerId) -> Result<RuntimeStats>;

    /// Processes and threads of all containers together, and how many there may be. `None` where the host does not count them.
    fn all_tasks(&self) -> Option<TaskStats> {
        None
    }

    /// The last bytes of the console, whole lines where possible; `None`: all that is kept.
    fn console(&self, container: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>>;

    /// Kills what is left and removes cgroup, console and all state of the container. May be repeated.
    fn remove(&self, container: &ContainerId) -> Result<()>;

    /// Every container of which this runtime holds anything (cgroup, state, console), for `check`.
    fn list(&self) -> Result<Vec<ContainerId>>;
}
