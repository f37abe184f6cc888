//! What a container has and starts with.

pub(crate) mod asking;
mod environment;
mod update;
pub(crate) use crate::model::validate;
mod view;

pub use environment::EnvironmentChange;
