//! Homes of containers, and the trash that they are put into.

use super::{State, container_of};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId};

impl State {
    /// See [`trash_home`](crate::snapshot::SnapshotStore::trash_home).
    pub(super) fn trash_home(&mut self, container: &ContainerId, op: &OperationId) {
        if self.homes.remove(container) {
            let (out, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.volumes).into_iter().partition(|(v, _)| container_of(v) == Some(container));
            self.volumes = kept.into_iter().collect();
            self.trash.entry(op.clone()).or_default().extend(out);
        }
    }

    /// See [`recover_home`](crate::snapshot::SnapshotStore::recover_home).
    pub(super) fn recover_home(&mut self, container: &ContainerId, op: &OperationId) -> Result<()> {
        let Some(home) = self.trash.remove(op) else { return Ok(()) };
        if self.homes.contains(container) {
            self.trash.insert(op.clone(), home);
            return Err(Error::new(Code::VolumeExists, format!("container {container} has a home already")));
        }
        self.volumes.extend(home);
        self.homes.insert(container.clone());
        Ok(())
    }
}
