//! Steps: the points of an operation between two side effects. A test counts them, then crashes at each.

use crate::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// The code of the error that stands for a crash: whoever meets it stops where it is and undoes nothing.
pub const CRASHED: &str = "crashed";

/// Told of every step before it is taken.
pub trait StepHook: Send + Sync {
    /// `operation` is its word (`snapshot.create`), `step` the step's. An error with the code [`CRASHED`] stops the operation there, as a kill would.
    ///
    /// # Errors
    /// To stop the operation.
    fn step(&self, operation: &str, step: &str) -> Result<()>;
}

/// Never stops anything.
pub struct NoHook;

impl StepHook for NoHook {
    fn step(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

/// Counts steps and crashes at one of them, once.
#[derive(Default)]
pub struct CrashAt {
    /// Crash at this step, counted from 1; 0: only count.
    pub at: AtomicU64,
    /// Steps so far.
    pub count: AtomicU64,
}

impl StepHook for CrashAt {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if n == self.at.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Internal, CRASHED, format!("crashed before {operation}:{step}, as asked")));
        }
        Ok(())
    }
}

/// Ends the whole process by SIGKILL at a step, for tests of a real server: `HOODY_STATE_CRASH=operation:step` or `=N` for the Nth step.
pub struct KillAt {
    wanted: String,
    count: AtomicU64,
}

impl KillAt {
    /// From the environment variable's value.
    #[must_use]
    pub fn new(wanted: &str) -> Self {
        KillAt { wanted: wanted.to_owned(), count: AtomicU64::new(0) }
    }
}

impl StepHook for KillAt {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if self.wanted == format!("{operation}:{step}") || self.wanted == n.to_string() {
            tracing::warn!(operation, step, "HOODY_STATE_CRASH: killing this process");
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
        Ok(())
    }
}
