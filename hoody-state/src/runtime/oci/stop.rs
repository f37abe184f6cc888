//! Ends a run.

use super::OciRuntime;
use crate::error::{IoContext, Result};
use crate::id::ContainerId;
use crate::sys::process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

impl OciRuntime {
    /// See [`Runtime::stop`](crate::runtime::Runtime::stop). An init without a handler never sees the signal (it is pid 1 of its namespace):
    /// it is killed after the timeout.
    pub(super) fn stop_run(&self, c: &ContainerId, timeout: Duration) -> Result<()> {
        if let Some((_, _, init)) = self.find_init(c, Duration::ZERO)? {
            // ESRCH: it has ended by itself.
            let _ = process::pidfd_signal(&init, self.config.stop_signal);
            if self.is_frozen(c) {
                self.config.freezer.thaw(c)?;
            }
            self.await_end(&init, timeout)?;
        }
        self.kill_run(c)
    }

    /// See [`Runtime::kill`](crate::runtime::Runtime::kill). Also ends a runtime that is still starting the container, and processes of a failed start.
    pub(super) fn kill_run(&self, c: &ContainerId) -> Result<()> {
        self.cgroups.kill_with(c, self.config.kill_timeout, &|| self.watcher.reap_orphans())?;
        self.cgroups.remove_children(c);
        self.dirs.clear_runs(c, None)
    }

    /// Waits for a process by its pidfd, at most for `timeout`.
    pub(super) fn await_end(&self, init: &OwnedFd, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ms = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], ms) {
                Ok(0) if left.is_zero() => return Ok(()),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e).io(|| "wait for a container's init"),
            }
        }
    }
}
