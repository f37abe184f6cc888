//! Freezing: a container's processes stop where they are, keep their memory, and later continue from there.
//!
//! **Guarantees**, tested by `suite` (feature `conformance`) on every backend:
//! 1. When `freeze` returns, no task of the group runs. When it fails (a task does not freeze in time), the group is as it was before.
//! 2. `freeze` and `thaw` return the state before. Repeating either changes nothing.
//! 3. Freezing costs well under a millisecond for ordinary processes, waits by poll (never by sleeping in a loop where the kernel can tell), and leaves no
//!    state outside the kernel: after a crash of this process, `state` is still right.

pub mod cgroup1;
pub mod cgroup2;
pub mod memory;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use crate::cgroup::CgroupTree;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whether the tasks of a group run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreezeState {
    /// Its tasks run.
    Thawed,
    /// None of its tasks runs.
    Frozen,
}

/// Stops and continues all tasks of a container. See the [module](self).
pub trait Freezer: Send + Sync {
    /// Freezes, and returns the state before. `wake` ends waits that the freeze itself cannot end: it is called with the processes of the group once the kernel was
    /// told to freeze them and some have not stopped within a millisecond, and again, with growing pauses, until all have. A task that sleeps in a request to
    /// a FUSE file system is such a case: it freezes only when that request is answered. Errors: `freeze_timeout` (undone), `cgroup_not_found`.
    fn freeze_waking(&self, container: &ContainerId, timeout: Duration, wake: &dyn Fn(&[i32])) -> Result<FreezeState>;

    /// [`Freezer::freeze_waking`] for a group in which no waits have to be ended.
    fn freeze(&self, container: &ContainerId, timeout: Duration) -> Result<FreezeState> {
        self.freeze_waking(container, timeout, &|_| {})
    }

    /// Thaws, and returns the state before. Error: `cgroup_not_found`.
    fn thaw(&self, container: &ContainerId) -> Result<FreezeState>;

    /// The state now. Error: `cgroup_not_found`.
    fn state(&self, container: &ContainerId) -> Result<FreezeState>;
}

/// When `wake` is called while a freeze is under way: after a millisecond, then after twice as long each time, at most 50 ms.
struct Pauses {
    next: Duration,
    at: Instant,
}

impl Pauses {
    fn new() -> Self {
        let next = Duration::from_millis(1);
        Pauses { next, at: Instant::now() + next }
    }

    /// Until the next call, or until `deadline`.
    fn left(&self, deadline: Instant) -> Duration {
        self.at.min(deadline).saturating_duration_since(Instant::now())
    }

    /// Calls `wake` if it is time.
    fn wake(&mut self, cgroups: &CgroupTree, container: &ContainerId, wake: &dyn Fn(&[i32])) {
        if Instant::now() < self.at {
            return;
        }
        if let Ok(pids) = cgroups.procs(container) {
            wake(&pids);
        }
        self.next = (self.next * 2).min(Duration::from_millis(50));
        self.at = Instant::now() + self.next;
    }
}

fn not_found(container: &ContainerId) -> Error {
    Error::new(Code::CgroupNotFound, format!("container {container} has no cgroup: start it first"))
}

/// A failed read or write of a freezer file: a missing one means a missing group.
fn failed(container: &ContainerId, what: &str, file: &Path, e: std::io::Error) -> Error {
    match e.raw_os_error() {
        Some(nix::libc::ENOENT | nix::libc::ENODEV) => not_found(container),
        _ => Error::io(format!("{what} {}", file.display()), e),
    }
}

fn timed_out(cgroups: &CgroupTree, container: &ContainerId, timeout: Duration) -> Error {
    let pids = cgroups.procs(container).unwrap_or_default();
    let asleep: Vec<i32> = pids.iter().copied().filter(|p| has_uninterruptible_task(*p)).collect();
    let who = if asleep.is_empty() {
        "no task was asleep in the kernel; the machine may be overloaded".to_owned()
    } else {
        format!("asleep in the kernel: {}", crate::cgroup::describe(&asleep))
    };
    Error::new(
        Code::FreezeTimeout,
        format!("container {container} did not freeze within {timeout:?} and runs on ({who}); try again when what they wait for is over"),
    )
}

fn has_uninterruptible_task(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(PathBuf::from(format!("/proc/{pid}/task"))) else { return false };
    tasks.flatten().any(|t| std::fs::read_to_string(t.path().join("stat")).is_ok_and(|s| s.rsplit(") ").next().is_some_and(|r| r.starts_with('D'))))
}

/// A container held frozen for a moment. Dropping it puts back the state before: one that was paused stays paused.
pub struct FreezeGuard<'a> {
    freezer: &'a dyn Freezer,
    container: ContainerId,
    before: FreezeState,
}

impl<'a> FreezeGuard<'a> {
    /// Freezes until dropped.
    ///
    /// # Errors
    /// Those of [`Freezer::freeze`].
    pub fn new(freezer: &'a dyn Freezer, container: &ContainerId, timeout: Duration) -> Result<Self> {
        Self::waking(freezer, container, timeout, &|_| {})
    }

    /// The same by [`Freezer::freeze_waking`].
    ///
    /// # Errors
    /// Those of [`Freezer::freeze_waking`].
    pub fn waking(freezer: &'a dyn Freezer, container: &ContainerId, timeout: Duration, wake: &dyn Fn(&[i32])) -> Result<Self> {
        let before = freezer.freeze_waking(container, timeout, wake)?;
        Ok(FreezeGuard { freezer, container: container.clone(), before })
    }
}

impl Drop for FreezeGuard<'_> {
    fn drop(&mut self) {
        if self.before == FreezeState::Thawed
            && let Err(e) = self.freezer.thaw(&self.container)
        {
            tracing::error!(container = %self.container, error = %e, "could not thaw after a moment's freeze");
        }
    }
}
