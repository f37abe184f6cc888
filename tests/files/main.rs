//! Files of containers over HTTP, on a real pool: in snapshots and as they are now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod archive;
mod cli;
mod client;
mod read;
mod versions;
mod write;
mod write_crash;
