//! The root is the live volume's own tree: nothing is mounted, and the copy-on-write snapshot of the volume is of one instant by itself.

use super::{Held, RootFs};
use crate::error::Result;
use crate::id::{ContainerId, OperationId};
use crate::snapshot::{SnapshotStore, Volume, VolumeInfo};
use std::path::PathBuf;
use std::sync::Arc;

/// A [`RootFs`] of volumes as they are.
#[derive(Clone)]
pub struct SubvolumeRootFs {
    store: Arc<dyn SnapshotStore>,
}

impl SubvolumeRootFs {
    /// Over the volumes of this store.
    #[must_use]
    pub fn new(store: Arc<dyn SnapshotStore>) -> Self {
        SubvolumeRootFs { store }
    }
}

/// A volume needs no help to hold still.
struct AtOnce;

impl Held for AtOnce {}

impl RootFs for SubvolumeRootFs {
    fn create(&self, container: &ContainerId, from: &Volume, op: &OperationId) -> Result<VolumeInfo> {
        self.store.clone_volume(from, &Volume::Live(container.clone()), op)
    }

    fn mount(&self, container: &ContainerId) -> Result<Option<PathBuf>> {
        Ok(self.path(container))
    }

    fn path(&self, container: &ContainerId) -> Option<PathBuf> {
        self.store.path(&Volume::Live(container.clone()))
    }

    fn hold(&self, _: &ContainerId) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(AtOnce))
    }

    fn release(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}
