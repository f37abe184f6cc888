//! How recovery ends an operation: finished or undone.

use super::engine::Engined;
use super::lock::Held;
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Kind, Result};
use crate::id::OperationId;
use crate::model::OperationStatus;
use crate::progress::Progress;
use serde::Serialize;

/// An operation that is being finished or undone.
pub(crate) struct Recovery<'a, W> {
    pub id: &'a OperationId,
    pub world: &'a W,
    /// Why it failed; nothing after a crash.
    pub error: Option<&'a Error>,
    pub progress: &'a Progress,
    pub(super) held: Option<&'a Held>,
}

impl<W: Engined> Recovery<'_, W> {
    /// Closes an operation that was finished after all.
    pub(crate) fn finished<T: Serialize>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()> {
        self.close(|tx| {
            let answer = to_value(&f(tx)?)?;
            tx.answer_key_of(self.id, &answer)?;
            tx.close_operation(self.id, OperationStatus::Succeeded, None)
        })
    }

    /// Closes an operation of which nothing is left.
    pub(crate) fn undone(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        let interrupted = Error::new(Code::Interrupted, "the server ended in the middle of it; what it had begun was undone");
        let error = self.error.unwrap_or(&interrupted);
        let status = if error.kind() == Kind::Cancelled { OperationStatus::Cancelled } else { OperationStatus::Failed };
        self.close(|tx| {
            f(tx)?;
            tx.free_key_of(self.id)?;
            tx.close_operation(self.id, status, Some(error))
        })
    }

    /// Its locks, for an operation that follows from this one.
    ///
    /// # Errors
    /// None: recovery holds the locks of what it recovers.
    pub(crate) fn held(&self) -> Result<Held> {
        self.held.cloned().ok_or_else(|| Error::internal("an operation is recovered without its locks"))
    }

    /// The recovery of an operation within this one, which has the same locks. What takes it up later finds that it has ended, or does the same once more.
    pub(crate) fn of_inner<'b>(&'b self, id: &'b OperationId) -> Recovery<'b, W> {
        Recovery { id, world: self.world, error: None, progress: self.progress, held: self.held }
    }

    fn close(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        self.held.inspect(|h| h.ending(true));
        let closed = self.world.engine().write(Durability::Disk, |tx| {
            tx.operation = Some(self.id.clone());
            f(tx)
        });
        if closed.is_err() {
            self.held.inspect(|h| h.ending(false));
        }
        closed
    }
}

pub(super) fn to_value<T: Serialize>(t: &T) -> Result<serde_json::Value> {
    serde_json::to_value(t).map_err(|e| Error::internal(format!("cannot write an answer: {e}")))
}
