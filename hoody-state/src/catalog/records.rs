//! The catalog together with the clock that dates its changes.

use super::{Catalog, Durability, Tx};
use crate::clock::Clock;
use crate::error::Result;
use jiff::Timestamp;
use rusqlite::Connection;
use std::sync::Arc;

/// The catalog and the clock, shared. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Records {
    /// As [`Catalog::read`].
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.catalog.read(f)
    }

    /// As [`Catalog::write`], dated now.
    pub(crate) fn write<T>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.catalog.write(durability, self.clock.now(), f)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
