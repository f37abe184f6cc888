//! `/hoody/databases`: which databases a container has, that they are served while it runs, and what snapshots and restores do with them.
//!
//! A container's databases are its project's, in a volume of their own, or private, in the container's volume. A snapshot takes the project's databases along
//! while the lock broker holds every write ([`SnapshotHold`]): volume and databases are of one instant, and no transaction is half in them. A restore exchanges
//! the databases of a container that is alone on them as it does its own volume. Databases that other containers use are not exchanged but written, each in one
//! transaction of SQLite's backup API, so that open connections stay good ([`DatabasesPlan`]).

mod component;
pub(crate) mod counts;
#[cfg(test)]
mod counts_tests;
mod hold;
mod names;
mod plan;
mod restore;
mod serve;

#[cfg(test)]
mod tests;

pub(crate) use component::{DATABASES, Databases, volume_name};
pub(crate) use hold::SnapshotHold;
pub(crate) use plan::DatabasesPlan;
pub(crate) use serve::{IfServed, Served};
