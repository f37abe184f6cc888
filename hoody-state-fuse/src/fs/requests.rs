//! Counters of the requests of each kind. They measure what a transaction costs.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! kinds {
    ($($kind:ident $name:literal),* $(,)?) => {
        /// A kind of request.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Kind { $($kind),* }

        const NAMES: &[&str] = &[$($name),*];
    };
}

kinds! {
    Lookup "lookup", Forget "forget", Getattr "getattr", Setattr "setattr", Make "make", Unlink "unlink", Rename "rename", Open "open", Create "create",
    Read "read", Write "write", Flush "flush", Release "release", Fsync "fsync", Opendir "opendir", Readdir "readdir", Fsyncdir "fsyncdir",
    Lock "lock", Unlock "unlock", Other "other",
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Requests([AtomicU64; NAMES.len()]);

impl Requests {
    pub fn count(&self, kind: Kind) {
        if let Some(n) = self.0.get(kind as usize) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.0.iter().map(|n| n.load(Ordering::Relaxed)))
    }
}
