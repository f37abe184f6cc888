//! The cases every [`Runtime`](super::Runtime) passes.
