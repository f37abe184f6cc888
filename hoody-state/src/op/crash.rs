//! Kills a real server before a chosen step. Only test builds have this module: the feature `crash-hooks` is not part of a server that people install.

use crate::error::Result;
use crate::op::step::StepHook;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The environment variable that says before which step the process ends.
const VARIABLE: &str = "HOODY_STATE_CRASH";

/// The hook that the environment asks for.
pub fn from_environment() -> Option<Box<dyn StepHook>> {
    std::env::var(VARIABLE).ok().map(|wanted| Box::new(KillAt::new(&wanted)) as Box<dyn StepHook>)
}

/// Ends the whole process by SIGKILL before a step. `HOODY_STATE_CRASH` says which:
///
/// - `operation:step`: that one.
/// - `N`: the Nth since the start; the steps of recovery count.
/// - `@FILE`: none while FILE does not exist. Its first line is N; from then on each step adds a line with its name, and the process ends before the Nth.
///   0 only counts. So a test arms a running server by writing a file, and reads from the file at which step the server died.
struct KillAt {
    wanted: String,
    count: AtomicU64,
    file: Option<Mutex<PathBuf>>,
}

impl KillAt {
    fn new(wanted: &str) -> Self {
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

/// Adds a step to the file, if the file exists. True for the step before which the process ends.
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
            tracing::warn!(operation, step, "killing this process, as HOODY_STATE_CRASH asks");
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
