//! What a container has and starts with.

mod environment;
mod update;
pub(crate) use crate::model::validate;
mod view;

pub use environment::EnvironmentChange;
