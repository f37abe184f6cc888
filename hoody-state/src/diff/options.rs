//! What to compare and how; and what came of it.

use super::Record;
use crate::error::{Code, Error, Result};
use std::ops::ControlFlow;

/// What to compare.
#[derive(Default, Clone)]
pub struct Options<'a> {
    /// Read both trees completely if their common history is not known. Without it that is refused.
    pub walk: bool,
    /// Also compare times of directories, and times of access.
    pub times: bool,
    /// Only names at or beneath this path, or that were moved from there.
    pub below: Vec<u8>,
    /// Only names whose path is not less than this one.
    pub from: Vec<u8>,
    /// Asked now and then; `true` ends the work.
    pub stop: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl Options<'_> {
    /// Whether a record with this path is wanted.
    #[must_use]
    pub fn wants(&self, path: &[u8]) -> bool {
        path >= self.from.as_slice() && self.is_below(path)
    }

    /// Whether a record with this path is wanted, that was moved from another.
    #[must_use]
    pub fn wants_move(&self, from: &[u8], to: &[u8]) -> bool {
        to >= self.from.as_slice() && (self.is_below(to) || self.is_below(from))
    }

    fn is_below(&self, path: &[u8]) -> bool {
        self.below.is_empty() || path.strip_prefix(self.below.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// # Errors
    /// `operation_cancelled` if the work is to end.
    pub fn check(&self) -> Result<()> {
        match self.stop {
            Some(stop) if stop() => Err(Error::new(Code::OperationCancelled, "the comparison was ended because nobody waits for it any more")),
            _ => Ok(()),
        }
    }
}

/// How two volumes were compared, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Only what changed since they parted was read.
    Changes,
    /// They share history, but where they parted is not known any more: all inodes of both were read.
    Scan,
    /// They share no history: all inodes of both were read, and files at the same path were compared by content.
    Walk,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The costliest way that was needed for one of the volumes.
    pub method: Method,
    /// How many inodes were compared.
    pub inodes: u64,
}

/// What takes records, in their order. `Break` says that it wants no more; an error ends the comparison with that error.
pub type Sink<'a> = &'a mut dyn FnMut(Record) -> Result<ControlFlow<()>>;
