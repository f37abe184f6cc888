//! Names of disks, without disks.

use super::{Filled, RamDisks};
use crate::error::Result;
use crate::model::mount::MountSource;
use crate::units::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A [`RamDisks`] that remembers names and sizes. Clones are the same disks.
#[derive(Debug, Clone, Default)]
pub struct MemoryRamDisks(Arc<Mutex<BTreeMap<String, Bytes>>>);

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
        super::check_name(name)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    impl crate::ramdisk::suite::Harness for MemoryRamDisks {
        fn disks(&self) -> &dyn RamDisks {
            self
        }
        fn again(&self) -> Box<dyn RamDisks + '_> {
            Box::new(self.clone())
        }
    }

    #[test]
    fn contract() {
        crate::ramdisk::suite::run(&MemoryRamDisks::new());
    }
}
