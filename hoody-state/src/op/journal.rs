//! Intents as the journal has them, and back.

use super::run::Op;
use super::{Claim, Engined, Operation, Recovery};
use crate::catalog::Tx;
use crate::catalog::operations::NewRow;
use crate::error::{Error, Result};
use crate::id::{OperationId, ProjectId};
use serde_json::Value;
use std::time::Duration;

/// An intent whose type only its file knows.
pub(crate) trait Journalled<W: Engined>: Send + Sync {
    fn kind(&self) -> &'static str;
    fn claim(&self) -> Claim;
    fn keeps_locks(&self) -> bool;
    fn continues(&self, world: &W) -> Result<bool>;
    fn recover(&self, recovery: &Recovery<'_, W>) -> Result<()>;
    fn boxed(&self) -> Box<dyn Journalled<W>>;
    /// Runs on in the background what the next start continues.
    fn run_on(&self, op: Op<W>) -> Result<()>;
}

impl<O: Operation> Journalled<O::World> for O {
    fn kind(&self) -> &'static str {
        Operation::kind(self)
    }

    fn claim(&self) -> Claim {
        Operation::claim(self)
    }

    fn keeps_locks(&self) -> bool {
        Operation::keeps_locks(self)
    }

    fn continues(&self, world: &O::World) -> Result<bool> {
        Operation::continues(self, world)
    }

    fn recover(&self, recovery: &Recovery<'_, O::World>) -> Result<()> {
        Operation::recover(self, recovery)
    }

    fn boxed(&self) -> Box<dyn Journalled<O::World>> {
        Box::new(self.clone())
    }

    fn run_on(&self, op: Op<O::World>) -> Result<()> {
        super::Begun { op, intent: self.clone() }.in_background(Duration::ZERO).map(drop)
    }
}

/// One kind of operation, for the list of all.
pub(crate) struct Entry<W: Engined> {
    /// Its word in the journal.
    pub tag: &'static str,
    read: fn(Value) -> Result<Box<dyn Journalled<W>>>,
}

impl<W: Engined> Entry<W> {
    pub(crate) const fn of<O: Operation<World = W>>() -> Self {
        Entry { tag: O::TAG, read: read::<O> }
    }
}

fn read<O: Operation>(intent: Value) -> Result<Box<dyn Journalled<O::World>>> {
    let intent: O = serde_json::from_value(intent).map_err(|e| Error::internal(format!("the intent of an operation cannot be read: {e}")))?;
    Ok(Box::new(intent))
}

/// Reads an intent by the list of all operations.
pub(super) fn parse<W: Engined>(text: &str, all: &[Entry<W>]) -> Result<Box<dyn Journalled<W>>> {
    let intent: Value = serde_json::from_str(text).map_err(|e| Error::internal(format!("the journal has a row that is not JSON: {e}")))?;
    let tag = intent.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let entry = all.iter().find(|e| e.tag == tag);
    let entry = entry.ok_or_else(|| Error::internal(format!("this version knows no operation {tag:?}")))?;
    (entry.read)(intent)
}

/// Why an intent cannot be read, if it cannot.
pub(crate) fn unreadable<W: Engined>(text: &str, all: &[Entry<W>]) -> Option<String> {
    parse(text, all).err().map(|e| e.message().to_owned())
}

/// An intent as the journal has it: its fields and its tag.
pub(super) fn text<O: Operation>(intent: &O) -> Result<String> {
    let mut value = serde_json::to_value(intent).map_err(|e| Error::internal(format!("cannot write an intent: {e}")))?;
    let Value::Object(fields) = &mut value else { return Err(Error::internal("an intent is not an object")) };
    fields.insert("kind".into(), O::TAG.into());
    Ok(value.to_string())
}

/// Writes an intent into the journal, within a change of the catalog.
pub(crate) fn open_in<O: Operation>(tx: &mut Tx<'_>, id: &OperationId, intent: &O, project: Option<&ProjectId>) -> Result<()> {
    let (resource_type, resource) = Operation::resource(intent);
    tx.open_operation(&NewRow { id, kind: Operation::kind(intent), resource_type, resource, project, intent: &text(intent)? })
}

pub(super) fn amend_in<O: Operation>(tx: &mut Tx<'_>, id: &OperationId, intent: &O) -> Result<()> {
    tx.amend_operation(id, &text(intent)?)
}
