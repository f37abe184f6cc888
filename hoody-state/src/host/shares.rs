//! Shares: what owners offer, and what receivers say to it.

use super::{Caller, Host};
use crate::error::Result;
use crate::id::{ContainerId, ProjectId, ShareId};
use crate::model::{IncomingShare, NewShare, Share, ShareFilter, ShareMounted, ShareUpdate, ShareWord};

impl Host {
    /// Offers a directory of `owner` to a container or to a project. A container sees it once it has accepted, the containers of a project see it at once.
    ///
    /// # Errors
    /// `container_not_found`, `project_not_found`, `invalid_path`, `self_share`, `validation_error`, `share_already_exists`, `operation_state_conflict`. A
    /// directory that is not there is no error: the share is `failed` until it is.
    pub fn create_share(&self, caller: &Caller, owner: &ContainerId, new: NewShare) -> Result<Share> {
        self.0.shares.create(caller.idempotency.as_ref(), owner, new)
    }

    /// The shares of a container, oldest first.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn shares_of(&self, owner: &ContainerId, filter: &ShareFilter) -> Result<Vec<Share>> {
        self.0.shares.of_owner(owner, filter)
    }

    /// The shares of all containers of some projects.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn all_shares(&self, only: Option<&[ProjectId]>) -> Result<Vec<Share>> {
        self.0.shares.all(only)
    }

    /// One share.
    ///
    /// # Errors
    /// `share_not_found`; also when it is not `owner`'s.
    pub fn share(&self, owner: Option<&ContainerId>, id: &ShareId) -> Result<Share> {
        self.0.shares.get(owner, id)
    }

    /// Changes a share; what is absent stays. Receivers that run see it at once.
    ///
    /// # Errors
    /// `share_not_found`, `validation_error`; `share_mount_failed` when a receiver could not be reached: it is tried again until it sees the change.
    pub fn update_share(&self, caller: &Caller, owner: &ContainerId, id: &ShareId, update: ShareUpdate) -> Result<Share> {
        self.0.shares.update(caller.idempotency.as_ref(), owner, id, update)
    }

    /// Deletes a share: no receiver sees it any more when this returns. The receivers in which a process still has something of it open.
    ///
    /// # Errors
    /// `share_not_found`; `share_mount_failed` when a receiver could not be reached: it is tried again until it does not see the share any more.
    pub fn delete_share(&self, caller: &Caller, id: &ShareId) -> Result<Vec<ContainerId>> {
        self.0.shares.delete(caller.idempotency.as_ref(), id)
    }

    /// What is shared with a container, oldest first: a share with it alone takes precedence over one with its project of the same directory; its own and
    /// expired ones are left out.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn incoming(&self, container: &ContainerId) -> Result<Vec<IncomingShare>> {
        self.0.shares.incoming(container)
    }

    /// What is shared with the containers of some projects.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn all_incoming(&self, only: Option<&[ProjectId]>) -> Result<Vec<IncomingShare>> {
        self.0.shares.all_incoming(only)
    }

    /// A receiver accepts a share, and sees it at once, or rejects it, and sees it no more.
    ///
    /// # Errors
    /// `container_not_found`, `share_not_found`; `not_a_receiver` when the share is not for this container; `share_mount_failed` (tried again).
    pub fn set_share_mount(&self, caller: &Caller, container: &ContainerId, id: &ShareId, said: ShareWord) -> Result<ShareMounted> {
        self.0.shares.set_mount(caller.idempotency.as_ref(), container, id, said)
    }
}
