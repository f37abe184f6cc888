//! The cases every [`Freezer`](super::Freezer) passes.
