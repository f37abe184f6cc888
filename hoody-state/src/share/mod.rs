//! Shares: directories of one container in another, while both agree.
//!
//! **Vocabulary.** The *owner* has the directory and makes the share; the *receiver* accepts it and sees it below [`RECEIVED`]. A *tree* is the
//! directory, resolved and held open, but mounted nowhere yet.
//!
//! **Guarantees** of a [`ShareMount`], tested by `suite` (feature `conformance`) on every backend:
//! 1. `open` finds the source as a process of the owner would, and never outside the owner's root, whatever is renamed or linked meanwhile. What
//!    the owner's own processes see in another way ([`Source::not_within`], [`Source::not_above`]) it refuses, however a path comes there.
//! 2. What is opened read-only cannot be written by anybody through its mount, root included.
//! 3. `attach` and `detach` take effect at once in a running receiver, paused ones included; both may be repeated.
//! 4. After `detach` no name leads to the source any more. What a process has open it keeps until it closes it, and from a directory that it has open or
//!    stands in it can go on to read: no kernel takes that back. It can write there only where something is open for writing. [`Detached::Held`] says that
//!    there is such a process.
//!
//! Whether a share is mounted is decided by [`consent`], which knows no kernel. [`bind`] mounts on this host, [`memory`] for tests; a backend across
//! hosts (the kernel's NFS v4.2) has its place here too.

pub mod bind;
pub mod consent;
pub mod memory;
pub mod path;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;

pub use crate::model::mount::{Identity, RECEIVED, Tree};

use crate::error::Result;
use crate::id::ContainerId;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The owner's root (or the part of it that is served from elsewhere), on this host.
    pub root: PathBuf,
    /// The directory, below `root`.
    pub path: PathBuf,
    /// Whether it is opened so that nobody can write.
    pub read_only: bool,
    /// Directories below `root` that the owner sees something else at: neither they nor what is in them is opened.
    pub not_within: Vec<PathBuf>,
    /// Directories below `root` whose files must not be reached this way: nothing that holds them is opened.
    pub not_above: Vec<PathBuf>,
}

/// What was left when a share was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// Nothing.
    Free,
    /// A process that has something of it open, or stands in it.
    Held,
}

impl Detached {
    fn of(held: bool) -> Self {
        if held { Detached::Held } else { Detached::Free }
    }
}

/// A running receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Which.
    pub container: ContainerId,
    /// The host's pid of its init.
    pub pid: i32,
}

/// Mounts shares. See the [module](self). A receiver that has ended meanwhile is the error `receiver_ended`, to each question.
pub trait ShareMount: Send + Sync {
    /// Resolves a source. Errors: `share_source_missing` (nothing there, no directory, or not to be reached), `share_source_refused` (see
    /// [`Source::not_within`], [`Source::not_above`]); `io`.
    fn open(&self, source: &Source) -> Result<Tree>;

    /// Shows `tree` as `name` to a running receiver, in the place of what was there; what that left. Error: `share_mount_failed`.
    fn attach(&self, receiver: &Receiver, name: &str, tree: &Tree) -> Result<Detached>;

    /// Takes `name` away. One that is not there is no error.
    fn detach(&self, receiver: &Receiver, name: &str) -> Result<Detached>;

    /// What a running receiver sees now, by name.
    fn attached(&self, receiver: &Receiver) -> Result<BTreeMap<String, Identity>>;
}
