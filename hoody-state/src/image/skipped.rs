//! What of an archive was left out.

use std::collections::BTreeMap;

/// Counts what is skipped by kind of thing, so that a hostile archive cannot make the report large.
#[derive(Default)]
pub(super) struct Skipped(BTreeMap<String, (u64, String)>);

impl Skipped {
    const KINDS: usize = 100;

    /// Records that something of the kind `what` was skipped at `path`.
    pub(super) fn add(&mut self, what: &str, path: &[u8]) {
        if let Some((n, _)) = self.0.get_mut(what) {
            *n += 1;
        } else if self.0.len() < Self::KINDS {
            self.0.insert(what.chars().take(200).collect(), (1, super::path::shown(path)));
        }
    }

    pub(super) fn lines(self) -> Vec<String> {
        let line =
            |(what, (n, first)): (String, (u64, String))| if n == 1 { format!("{what}: {first}") } else { format!("{what}: {first} and {} more", n - 1) };
        self.0.into_iter().map(line).collect()
    }
}
