//! Containers: made from an image, started and stopped, snapshotted and put back, deleted.

mod copy;
mod create;
mod delete;
mod environment;
mod lifecycle;
mod moving;
mod order;
mod receive;
mod restore;
pub(crate) mod snapshots;
mod sync;
pub(crate) use crate::model::validate;
mod view;

pub use environment::EnvironmentChange;
