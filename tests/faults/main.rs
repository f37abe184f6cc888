//! Faults: errors of the disk at each step of each operation, signals at random instants, and a lack of descriptors. Those of a whole machine (a disk that
//! fails, a clock that jumps, power cuts) are in `tests/guests`.
//!
//! Needs root, BTRFS, a loop device, runc and a static busybox. `HOODY_FAULTS=100` for the long run of signals (default 8), `HOODY_SEED=N` to repeat one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code)]

mod descriptors;
#[path = "../kill/leftovers.rs"]
mod leftovers;
#[path = "../kill/rng.rs"]
mod rng;
mod rooms;
#[path = "../kill/server.rs"]
mod server;
mod signals;
mod steps;
#[path = "../kill/world.rs"]
mod world;
