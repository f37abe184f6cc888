//! Former methods of [`Host`] that files not yet moved still call. Goes when nobody does.

use crate::error::Result;
use crate::host::Host;
use crate::id::ContainerId;
use crate::snapshot::Volume;
use crate::units::Bytes;

impl Host {
    pub(crate) fn guard_space(&self) -> Result<()> {
        self.0.limits.check_space()
    }

    pub(crate) fn guard_nested(&self, volume: &Volume) -> Result<()> {
        self.0.limits.check_nested(volume)
    }

    pub(crate) fn disk_limit(&self, limit: Option<Bytes>) -> Result<Option<Bytes>> {
        self.0.limits.check_disk(limit)
    }

    pub(crate) fn apply_disk_limit_of(&self, id: &ContainerId) -> Result<()> {
        self.0.limits.apply_to(id)
    }

    pub(crate) fn apply_all_disk_limits(&self) -> Result<()> {
        self.0.limits.apply_all()
    }

    pub(crate) fn note_exit(&self, id: &ContainerId) -> Result<()> {
        self.0.exits.note(id)
    }
}
