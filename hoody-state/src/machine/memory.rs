//! A host without a machine.

use super::HostBuilder;
use crate::catalog::Durability;
use crate::error::Result;
use crate::freeze::memory::MemoryFreezer;
use crate::host::Host;
use crate::id::{ImageId, OperationId};
use crate::model::Image;
use crate::name::ImageName;
use crate::ramdisk::memory::MemoryRamDisks;
use crate::runtime::memory::MemoryRuntime;
use crate::snapshot::memory::MemoryStore;
use crate::snapshot::{SnapshotStore, Volume};
use crate::units::Bytes;
use std::sync::Arc;

impl Host {
    /// A host of memory backends, for tests: one image `debian/13`, no files, no processes.
    ///
    /// # Errors
    /// None in practice.
    pub fn in_memory() -> Result<Host> {
        Self::in_memory_with(|builder| builder)
    }

    /// The same, with what `change` makes of its builder.
    pub(crate) fn in_memory_with(change: impl FnOnce(HostBuilder) -> HostBuilder) -> Result<Host> {
        let store = Arc::new(MemoryStore::new());
        let image: ImageName = "debian/13".parse()?;
        let staging = Volume::Staging(OperationId::generate());
        store.create(&staging)?;
        store.seal(&staging, &Volume::Image(image.clone()))?;
        let freezer = Arc::new(MemoryFreezer::new());
        let runtime = Arc::new(MemoryRuntime::with_freezer(freezer.clone()));
        let host = change(HostBuilder::new(None, store, freezer, runtime)?.ramdisks(Arc::new(MemoryRamDisks::new()))).open()?;
        host.write(Durability::Process, |tx| {
            tx.insert_image(&Image {
                id: ImageId::generate(),
                alias: image.clone(),
                image_name: image.clone(),
                name: image,
                size: Bytes(0),
                files: Some(0),
                source: "import".into(),
                is_default: true,
                created_at: tx.now,
            })
        })?;
        Ok(host)
    }
}
