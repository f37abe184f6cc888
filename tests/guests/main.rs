//! Whole servers in user-mode Linux guests: power cuts, disks that fail, a clock that jumps, and a host with cgroup v2 alone.
//!
//! Needs root, and the packages user-mode-linux, kmod, e2fsprogs, binutils, btrfs-progs, iproute2, runc and busybox-static. `CUTS=200` for the long run of power cuts
//! (default 2), `HOODY_SEED=N` to repeat one, `HOODY_KEEP=1` to keep the disks of a run that failed, `HOODY_PROGRAMS=DIR` to
//! try another `hoody-state-http` and `hoody-state-fuse`: those in that directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cuts;
mod disk;
mod faults;
mod guest;
mod load;
#[path = "../kill/rng.rs"]
mod rng;
mod server;
mod sqlite;
mod v2;
