//! Containers: made from an image, started and stopped, snapshotted and put back, deleted.

mod create;
mod delete;
mod environment;
mod exit;
mod lifecycle;
mod restore;
pub(crate) mod snapshots;
mod validate;
mod view;

pub use environment::EnvironmentChange;
