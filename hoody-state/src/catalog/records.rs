//! The catalog together with the clock that dates its changes.

use super::idempotency::{self, IdempotencyKey};
use super::{Catalog, Durability, Tx};
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
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

fn stored<T: DeserializeOwned>(answer: serde_json::Value) -> Result<T> {
    serde_json::from_value(answer).map_err(|e| Error::new(Code::CatalogCorrupt, format!("a stored answer cannot be read: {e}")))
}

impl Records {
    /// The first answer to a request, if its key has been used.
    pub(crate) fn replay<T: DeserializeOwned>(&self, key: Option<&IdempotencyKey>) -> Result<Option<T>> {
        let Some(key) = key else { return Ok(None) };
        self.read(|c| idempotency::look_up(c, key, self.now()))?.map(stored).transpose()
    }

    /// A change of the catalog alone, with its key: the same key and request gives the first answer and changes nothing.
    pub(crate) fn change<T: Serialize + DeserializeOwned>(&self, key: Option<&IdempotencyKey>, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if let Some(t) = self.replay(key)? {
            return Ok(t);
        }
        self.write(Durability::Disk, |tx| {
            // The same request may have come in between.
            if let Some(answer) = tx.take_key(key, None)? {
                return stored(answer);
            }
            let t = f(tx)?;
            tx.answer_key(key, &t)?;
            Ok(t)
        })
    }
}
