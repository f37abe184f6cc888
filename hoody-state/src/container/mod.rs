//! Containers: made from an image, started and stopped, snapshotted and put back, deleted.

mod create;
mod databases;
mod delete;
mod environment;
mod exit;
mod lifecycle;
pub(crate) mod places;
mod restore;
pub(crate) mod snapshots;
mod validate;
pub(crate) use validate::text;
mod view;

pub use environment::EnvironmentChange;
