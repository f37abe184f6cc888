//! Steps: the points of an operation between two side effects. A test counts them, then crashes at each.

use crate::error::Result;

/// Told of every step before it is taken.
pub trait StepHook: Send + Sync {
    /// `operation` is its word (`snapshot.create`), `step` the step's. An error with the code
    /// [`Code::Crashed`](crate::Code::Crashed) stops the operation there, as a kill would: nothing is undone.
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
