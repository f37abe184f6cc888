//! Steps: the points of an operation between two side effects. A test counts them, then crashes at each.

use crate::error::{Code, Result};

/// The code of the error that stands for a crash: whoever meets it stops where it is and undoes nothing.
pub const CRASHED: Code = Code::Crashed;

/// Told of every step before it is taken.
pub trait StepHook: Send + Sync {
    /// `operation` is its word (`snapshot.create`), `step` the step's. An error with the code [`CRASHED`] stops the operation there, as a kill would.
    ///
    /// # Errors
    /// To stop the operation.
    fn step(&self, operation: &str, step: &str) -> Result<()>;
}

/// Never stops anything.
pub struct NoHook;

impl StepHook for NoHook {
    fn step(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}
