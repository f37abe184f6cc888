//! A container's whole state as a commit graph.
//!
//! A container's disk is a copy-on-write volume: one call snapshots it in milliseconds, one call puts it back, and the container boots fresh from it.
//! Every change is journalled first, so that a kill in the middle of anything is finished or undone at the next start.
//!
//! Start at [`Host`], the façade: [`Host::open`] gives a host on this machine, [`Host::builder`] the same with parts of your own, [`HostBuilder`] one over
//! other backends,
//! [`Host::in_memory`] is for tests. Its calls block; move them off asynchronous threads.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`machine`] | hosts on this machine and over other backends: configuration, builder, unmount |
//! | [`host`] | the façade: everything that an embedder or a server asks for |
//! | [`snapshot`] | [`SnapshotStore`](snapshot::SnapshotStore): volumes, snapshots, clones; on BTRFS and in memory |
//! | [`diff`] | what differs between two trees: records, and the decisions behind them |
//! | [`freeze`] | [`Freezer`](freeze::Freezer): stopping a container's tasks in place; cgroup v2, v1 and in memory |
//! | [`rootfs`] | [`RootFs`](rootfs::RootFs): what a container boots from; the volume itself |
//! | [`runtime`] | [`Runtime`](runtime::Runtime): running a container; an OCI runtime as a process, and in memory |
//! | [`locked_db`] | [`LockedDb`](locked_db::LockedDb): SQLite without `database is locked`; a FUSE daemon, and in memory |
//! | [`ramdisk`] | [`RamDisks`](ramdisk::RamDisks): memory as a file system; tmpfs, and in memory |
//! | [`share`] | [`ShareMount`](share::ShareMount): directories of one container in another; bind mounts, and in memory |
//! | [`cgroup`] | a container's control group, which outlives its runs; v2, v1 and hybrid hosts |
//! | [`pool`] | the BTRFS file system that everything lives in; on a loop image or a device |
//! | [`transfer`] | [`Transport`](transfer::Transport): containers between servers; in memory, over HTTP in `hoody-state-http` |
//! | [`tree`] | the files of a volume, read beneath its root and nowhere else |
//! | [`retention`] | snapshot policies: when a schedule runs, and which of its snapshots are removed |
//! | [`image`] | golden images, made of tars or of snapshots |
//! | [`op`] | how anything changes: intents, locks, steps |
//! | [`model`] | what the API shows, serialised as the wire has it |
//! | [`event`] | what happened, announced after the commit that made it true |
//! | [`id`], [`name`], [`units`], [`clock`], [`error`] | the words everything is said in |
//!
//! Each trait's page is its specification, and each has a suite that every backend passes: run it on yours.
//!
//! ```
//! use hoody_state::model::{NewContainer, NewSnapshot, ProjectInput, RestoreOptions};
//! use hoody_state::{Caller, Host};
//!
//! # fn main() -> hoody_state::Result<()> {
//! let host = Host::in_memory()?;
//! let me = Caller::default();
//! let project = host.create_project(&me, ProjectInput { alias: Some("web".into()), ..Default::default() })?;
//! let agent = host.create_container(&me, &project.id, NewContainer::default())?.id;
//! let before = host.create_snapshot(&me, &agent, NewSnapshot::default())?.snapshot;
//! // … something risky …
//! host.restore(&me, &agent, before.name.as_str(), RestoreOptions::default())?;
//! # Ok(())
//! # }
//! ```

// What only the host uses of the lower modules.
#![cfg_attr(not(feature = "host"), allow(dead_code, unused_imports))]

#[cfg(feature = "host")]
mod catalog;
pub mod cgroup;
pub mod clock;
pub mod diff;
pub mod error;
pub mod event;
pub mod freeze;
#[cfg(feature = "host")]
pub mod host;
pub mod id;
#[cfg(feature = "host")]
pub mod image;
#[cfg(feature = "locks")]
pub mod locked_db;
#[cfg(feature = "host")]
pub mod machine;
pub mod model;
pub mod name;
#[cfg(feature = "host")]
pub mod op;
#[cfg(feature = "host")]
mod ops;
#[cfg(feature = "btrfs")]
pub mod pool;
#[cfg(any(feature = "host", feature = "transfer"))]
mod progress;
pub mod ramdisk;
#[cfg(feature = "host")]
pub mod retention;
#[cfg(feature = "host")]
pub mod rootfs;
pub mod runtime;
#[cfg(feature = "host")]
mod services;
#[cfg(feature = "host")]
mod settings;
pub mod share;
pub mod snapshot;
mod sys;
#[cfg(feature = "transfer")]
pub mod transfer;
#[cfg(feature = "btrfs")]
pub mod tree;
pub mod units;
#[cfg(feature = "host")]
mod world;

pub use error::{Code, Error, Kind, Result};
#[cfg(feature = "host")]
pub use host::{Caller, Host};
#[cfg(feature = "host")]
pub use machine::{HostBuilder, HostConfig};
pub use sys::mountinfo;

// Crates whose types are part of this API.
pub use {jiff, serde_json, uuid};

/// Compiles the Rust snippets of this crate's README with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeSnippets;
