//! Every `unsafe` of the crate: thin wrappers round system calls that the crates we use lack. Each block says why it is sound
//! and each wrapper has a test.

pub(crate) mod alarm;
pub(crate) mod fs;
pub(crate) mod hub;
pub(crate) mod inside;
pub(crate) mod loops;
pub(crate) mod mount;
pub mod mountinfo;
#[cfg(feature = "host")]
pub(crate) mod private_root;
pub(crate) mod process;
pub(crate) mod userns;
