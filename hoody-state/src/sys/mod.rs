//! Every `unsafe` of the crate: thin wrappers round system calls that the crates we use lack. Each block says why it is sound
//! and each wrapper has a test.

pub(crate) mod alarm;
#[cfg(feature = "btrfs")]
pub(crate) mod dedupe;
pub(crate) mod fs;
pub(crate) mod hub;
pub(crate) mod inside;
pub(crate) mod loops;
pub(crate) mod mount;
pub mod mountinfo;
#[cfg(feature = "btrfs")]
pub(crate) mod priority;
#[cfg(feature = "host")]
pub(crate) mod private_root;
pub(crate) mod process;
#[cfg(feature = "btrfs")]
pub(crate) mod tree_search;
pub(crate) mod userns;
