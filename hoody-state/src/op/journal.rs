//! Intents as the journal has them, and back. Only its own file knows the type of an intent.

use super::engine::Engined;
use super::lock::Claim;
use super::recovery::Recovery;
use super::taken::Taken;
use crate::error::{Error, Result};
use serde_json::Value;

/// An intent whose type only its file knows.
pub(crate) trait Journalled<W: Engined>: Send + Sync {
    fn kind(&self) -> &'static str;
    fn claim(&self) -> Claim;
    fn keeps_locks(&self) -> bool;
    fn continues(&self, world: &W) -> Result<bool>;
    fn recover(&self, recovery: &Recovery<'_, W>) -> Result<()>;
    /// As the journal has it: its fields and its tag.
    fn text(&self) -> Result<String>;
    fn boxed(&self) -> Box<dyn Journalled<W>>;
    /// Runs on in the background what the next start continues.
    fn run_on(&self, taken: Taken<W>) -> Result<()>;
}

/// One kind of operation, for the list of all.
pub(crate) struct Entry<W: Engined> {
    /// Its word in the journal.
    pub(super) tag: &'static str,
    pub(super) read: fn(Value) -> Result<Box<dyn Journalled<W>>>,
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
