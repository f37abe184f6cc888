//! A container's whole state as a commit graph.

pub mod cgroup;
pub mod clock;
pub mod error;
pub mod freeze;
pub mod id;
pub mod image;
pub mod model;
pub mod name;
pub mod pool;
pub mod runtime;
pub mod snapshot;
mod sys;
pub mod units;

pub use error::{Error, Kind, Result};
