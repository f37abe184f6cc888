//! A container's whole state as a commit graph.

mod catalog;
pub mod cgroup;
pub mod clock;
pub mod container;
pub mod error;
pub mod event;
pub mod freeze;
pub mod host;
pub mod id;
pub mod image;
pub mod model;
pub mod name;
pub mod op;
pub mod pool;
pub mod runtime;
pub mod snapshot;
mod sys;
pub mod units;

pub use error::{Error, Kind, Result};
pub use host::{Caller, Host, HostBuilder, HostConfig};
