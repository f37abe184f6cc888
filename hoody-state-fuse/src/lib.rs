//! A FUSE file system over a directory, on which any number of processes write the same SQLite database and none finds it locked.
//!
//! Every other file is an ordinary one. Reads, writes and memory maps go straight to the backing file (FUSE passthrough) where the kernel has that;
//! what comes here is names, attributes, syncs, and locks, and the locks are the point: see [`locks`] and `hoody_state::locked_db::broker`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`mount`] | mounting a directory, or several volumes under one mount |
//! | [`nodes`] | the kinds of files that SQLite touches, one file a kind |
//! | [`locks`] | who waits for whom: the shell round the broker |
//! | [`claim`] | who serves a directory: one mount of this machine |
//! | [`control`] | the control socket: status, quiesce, volumes, unmount |

// `explored` compiles some modules a second time, on purpose.
#![cfg_attr(test, allow(clippy::duplicate_mod))]

mod backing_file;
mod caller;
pub mod claim;
mod connections;
pub mod control;
mod cpu_latency;
mod descriptors;
mod fs;
pub mod locks;
pub mod mount;
mod mount_error;
pub mod nodes;
mod recognise;
mod sync_pool;
mod table;
mod threads;
mod volume;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod explored;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "locks/tests.rs"]
mod lock_tests;
