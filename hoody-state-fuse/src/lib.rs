//! A FUSE file system over a directory. Any number of processes can write the same SQLite database in it: they wait for each other instead of getting
//! `database is locked`.
//!
//! All other files behave as usual. With FUSE passthrough the kernel reads, writes and maps the backing files itself. This program serves names, attributes,
//! syncs and locks. The locks are its purpose: see [`locks`] and `hoody_state::locked_db::broker`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`mount`] | mounting a directory, or several volumes under one mount |
//! | [`nodes`] | the kinds of files that SQLite uses, one module each |
//! | [`locks`] | lock requests: I/O, time and threads around the broker |
//! | [`claim`] | which mount of this machine serves a directory |
//! | [`control`] | the control socket: status, quiesce, volumes, unmount |

// `explored` compiles some modules a second time.
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
