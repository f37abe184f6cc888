//! Names of disks, without disks.

use super::{Filled, RamDisks};
use crate::error::Result;
use crate::model::mount::MountSource;
use crate::units::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A [`RamDisks`] that remembers names and sizes.
#[derive(Debug, Default)]
pub struct MemoryRamDisks(Mutex<BTreeMap<String, Bytes>>);

impl MemoryRamDisks {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn disks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RamDisks for MemoryRamDisks {
    fn ensure(&self, name: &str, size: Bytes) -> Result<Option<MountSource>> {
        self.disks().insert(name.to_owned(), size);
        Ok(None)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.disks().remove(name);
        Ok(())
    }

    fn filled(&self, name: &str) -> Result<Option<Filled>> {
        Ok(self.disks().get(name).map(|size| Filled { used: Bytes(0), size: *size }))
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.disks().keys().cloned().collect())
    }
}
