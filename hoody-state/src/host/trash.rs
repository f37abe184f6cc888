//! The trash: deleted containers that can still be recovered.

use super::{Caller, Host};
use crate::catalog::trash;
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::model::{DeleteOptions, PageRequest, ProjectDeleted, RecoverRequest, Recovered, TrashPage, TrashedContainer};
use crate::ops;

impl Host {
    /// [`Host::delete_container`] for good, whatever its policy says, or as the policy says.
    ///
    /// # Errors
    /// Those of [`Host::delete_container`].
    pub fn delete_container_with(&self, caller: &Caller, id: &ContainerId, options: DeleteOptions) -> Result<()> {
        ops::delete::delete(&self.0, caller, id, options)
    }

    /// [`Host::delete_project`], with its containers deleted for good, or as their policies say. Those that go to the trash can be recovered into another project.
    ///
    /// # Errors
    /// Those of [`Host::delete_project`].
    pub fn delete_project_with(&self, caller: &Caller, id: &ProjectId, items: bool, options: DeleteOptions) -> Result<ProjectDeleted> {
        ops::project_delete::delete(&self.0, caller, id, items, options)
    }

    /// A page of the trash, the last deleted first, within the projects `only`.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn trash(&self, page: &PageRequest, only: Option<&[ProjectId]>) -> Result<TrashPage> {
        let (rows, total) = self.0.read(|c| trash::page(c, page, only))?;
        let paged = crate::model::Paged::new(rows, total, page);
        Ok(TrashPage { containers: paged.rows.iter().map(trash::TrashRow::view).collect(), pagination: paged.pagination })
    }

    /// One container in the trash.
    ///
    /// # Errors
    /// `trash_not_found`.
    pub fn trashed(&self, id: &ContainerId) -> Result<TrashedContainer> {
        Ok(self.0.read(|c| trash::get(c, id))?.view())
    }

    /// Brings a deleted container back from the trash, with its id and all its snapshots. It is stopped. The time in the trash does not count for snapshots that
    /// expire. Cost: one rename, and its rows.
    ///
    /// # Errors
    /// `trash_not_found`, `project_not_found`, `container_name_in_use` (it may be recovered under another name), `invalid_container_name`,
    /// `project_container_limit`, `server_container_limit`, `operation_in_progress`. It stays in the trash then.
    pub fn recover_trashed(&self, caller: &Caller, id: &ContainerId, request: RecoverRequest) -> Result<Recovered> {
        ops::trash::recover(&self.0, caller, id, request)
    }

    /// Deletes a container in the trash for good. It has left the trash when this returns; its volumes are deleted in the background.
    ///
    /// # Errors
    /// `trash_not_found`, `operation_in_progress`.
    pub fn delete_trashed(&self, caller: &Caller, id: &ContainerId) -> Result<()> {
        ops::trash::delete(&self.0, caller, id)
    }
}
