//! Containers: made from an image, started and stopped, snapshotted and put back, deleted.

mod copy;
mod create;
mod delete;
mod environment;
mod etc;
mod lifecycle;
mod moving;
mod order;
pub(crate) mod places;
mod receive;
mod restore;
pub(crate) mod snapshots;
mod sync;
pub(crate) use crate::model::validate;
mod view;

pub use environment::EnvironmentChange;
