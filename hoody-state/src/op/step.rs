//! Steps: the points of an operation between two side effects. A test counts them, then crashes at each.

use crate::error::{Error, Kind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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

/// Ends the whole process by SIGKILL before a step, for tests of a real server. `HOODY_STATE_CRASH` says which:
///
/// - `operation:step`: that one.
/// - `N`: the Nth since the start, those of the reconciliation included.
/// - `@FILE`: none while FILE is not there. Its first line is N; each step from then on adds a line with its name, and the Nth is never
///   taken. 0 only counts. So a running server is armed by a file, and the file tells afterwards where it died.
pub struct KillAt {
    wanted: String,
    count: AtomicU64,
    file: Option<Mutex<PathBuf>>,
}

impl KillAt {
    /// From the environment variable's value.
    #[must_use]
    pub fn new(wanted: &str) -> Self {
        KillAt { wanted: wanted.to_owned(), count: AtomicU64::new(0), file: wanted.strip_prefix('@').map(|f| Mutex::new(f.into())) }
    }

    fn is_due(&self, operation: &str, step: &str) -> bool {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        match &self.file {
            Some(file) => note(&file.lock().unwrap_or_else(PoisonError::into_inner), operation, step),
            None => self.wanted == format!("{operation}:{step}") || self.wanted == n.to_string(),
        }
    }
}

/// Adds a step to the file, if it is there; whether it is the one.
fn note(file: &Path, operation: &str, step: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let Ok(mut open) = std::fs::File::options().append(true).open(file) else { return false };
    let _ = writeln!(open, "{operation}:{step}");
    // The line of N itself stands for the one just added.
    text.lines().next().and_then(|n| n.parse().ok()).is_some_and(|n: usize| n == text.lines().count())
}

impl StepHook for KillAt {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        if self.is_due(operation, step) {
            tracing::warn!(operation, step, "HOODY_STATE_CRASH: killing this process");
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_arms_counts_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("arm");
        let k = KillAt::new(&format!("@{}", file.display()));
        assert!(!k.is_due("a", "x"));
        std::fs::write(&file, "2\n").unwrap();
        assert!(!k.is_due("a", "y"));
        assert!(k.is_due("a", "z"));
        assert!(!k.is_due("b", "x"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "2\na:y\na:z\nb:x\n");
        std::fs::write(&file, "0\n").unwrap();
        assert!(!k.is_due("a", "y"));
    }

    #[test]
    fn a_name_or_a_number_picks_one() {
        let k = KillAt::new("a:y");
        assert!(!k.is_due("a", "x") && k.is_due("a", "y"));
        let k = KillAt::new("2");
        assert!(!k.is_due("a", "x") && k.is_due("a", "y") && !k.is_due("a", "z"));
    }
}
