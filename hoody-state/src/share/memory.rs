//! Shares without mounts, for tests of what stands above.

use super::{Detached, Identity, Receiver, ShareMount, Source, Tree};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    attached: BTreeMap<ContainerId, BTreeMap<String, Identity>>,
    missing: Vec<PathBuf>,
}

/// A [`ShareMount`] that remembers. Every source is there, but for those said to be missing.
#[derive(Debug, Default)]
pub struct MemoryShareMount(Mutex<State>);

impl MemoryShareMount {
    /// Nothing is mounted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sources with this path are there or are not.
    pub fn set_missing(&self, path: impl Into<PathBuf>, missing: bool) {
        let path = path.into();
        let mut s = self.state();
        s.missing.retain(|p| *p != path);
        if missing {
            s.missing.push(path);
        }
    }

    /// What a receiver was started with, as a runtime would mount it.
    pub fn started(&self, container: &ContainerId, with: &[(String, Tree)]) {
        self.state().attached.insert(container.clone(), with.iter().map(|(n, t)| (n.clone(), t.identity)).collect());
    }
}

impl ShareMount for MemoryShareMount {
    fn open(&self, source: &Source) -> Result<Tree> {
        if self.state().missing.contains(&source.path) {
            return Err(Error::new(Code::ShareSourceMissing, format!("{} is not there", source.path.display())));
        }
        if source.not_within.iter().any(|p| source.path.starts_with(p)) || source.not_above.iter().any(|p| p.starts_with(&source.path)) {
            return Err(Error::new(Code::ShareSourceRefused, format!("{} is seen in another way", source.path.display())));
        }
        let mut h = DefaultHasher::new();
        (&source.root, &source.path).hash(&mut h);
        Ok(Tree::unmounted(Identity { device: 1, inode: h.finish(), read_only: source.read_only }))
    }

    fn attach(&self, receiver: &Receiver, name: &str, tree: &Tree) -> Result<Detached> {
        self.state().attached.entry(receiver.container.clone()).or_default().insert(name.to_owned(), tree.identity);
        Ok(Detached::Free)
    }

    fn detach(&self, receiver: &Receiver, name: &str) -> Result<Detached> {
        self.state().attached.entry(receiver.container.clone()).or_default().remove(name);
        Ok(Detached::Free)
    }

    fn attached(&self, receiver: &Receiver) -> Result<BTreeMap<String, Identity>> {
        Ok(self.state().attached.get(&receiver.container).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::share::suite::{self, Harness};

    struct World(MemoryShareMount);

    impl Harness for World {
        fn shares(&self) -> &dyn ShareMount {
            &self.0
        }
        fn receiver(&self) -> Receiver {
            Receiver { container: ContainerId::generate(), pid: 0 }
        }
        fn source(&self, name: &str, read_only: bool) -> Source {
            Source { root: "/".into(), path: name.into(), read_only, ..Default::default() }
        }
        fn missing(&self) -> Source {
            self.0.set_missing("missing", true);
            self.source("missing", false)
        }
    }

    #[test]
    fn contract() {
        suite::run(&World(MemoryShareMount::new()));
    }
}
