//! The operations, as an embedder asks for them. Each is in its own file in `ops/`.

use super::{Caller, Host};
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::model::{
    Container, CopyRequest, DedupeAnswer, DedupePool, DeleteOptions, FilesRestored, ForkRequest, Forked, Image, LastDedupe, LifecycleAnswer, MoveRequest,
    Moved, NewContainer, NewSnapshot, ProjectDeleted, PromoteRequest, Promoted, ResetAnswer, ResetRequest, RestoreFiles, RestoreOptions, Restored,
    SnapshotAnswer, SnapshotDeleted, SyncAnswer, SyncRequest, Verb,
};
use crate::ops;
use crate::units::Age;
use jiff::Timestamp;
use std::io::Read;
use std::time::Duration;

impl Host {
    /// Makes a container from an image and boots it. Returns when its volume exists and is durable; the boot continues in the background and is waited for up to
    /// `caller.wait`. Cost: one transaction of the pool.
    ///
    /// # Errors
    /// `project_not_found`, `image_not_found`, `invalid_container_name`, `container_name_in_use`, `ssh_public_key_in_use`, `validation_error`,
    /// `project_container_limit`, `server_container_limit`, `pool_full`, `unknown_server`. Nothing is left then. A boot that fails is no error here: the
    /// container's status is `failed` and says why.
    pub fn create_container(&self, caller: &Caller, project: &ProjectId, new: NewContainer) -> Result<Container> {
        ops::create::create(&self.0, caller, project, new)
    }

    /// Starts, stops, restarts, pauses or resumes. Work that outlasts `caller.wait` continues in the background: the answer then has the state so far.
    /// `timeout` is how long a stop waits for init before it kills.
    ///
    /// # Errors
    /// `container_not_found`, `operation_state_conflict`, `operation_in_progress`, `start_failed`, `runtime_not_found`, `freeze_timeout`.
    pub fn lifecycle(&self, caller: &Caller, id: &ContainerId, verb: Verb, timeout: Option<Duration>) -> Result<LifecycleAnswer> {
        ops::lifecycle::lifecycle(&self.0, caller, id, verb, timeout)
    }

    /// Deletes a container with all its snapshots, or puts it into the trash, if its policy says so (`on.before_delete`). It is `deleting` for good when this
    /// returns, however many snapshots it has; the rest is done in the background.
    ///
    /// # Errors
    /// `container_not_found`, `operation_in_progress`, `snapshot_pinned`.
    pub fn delete_container(&self, caller: &Caller, id: &ContainerId) -> Result<()> {
        self.delete_container_with(caller, id, DeleteOptions::default())
    }

    /// Takes a snapshot of the disk of a container, whatever it is doing. Durable when it returns.
    ///
    /// Cost: one durable write of the journal and one transaction of the pool; nested volumes add one each, and a moment's freeze.
    ///
    /// # Errors
    /// `container_not_found`, `invalid_alias`, `invalid_expiry`, `alias_in_use`, `snapshot_pinned`, `container_snapshot_limit`, `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`. Nothing is left then.
    pub fn create_snapshot(&self, caller: &Caller, id: &ContainerId, new: NewSnapshot) -> Result<SnapshotAnswer> {
        ops::snapshot::create(&self.0, caller, id, new)
    }

    /// Merges equal data of live volumes and images. No content changes, whoever writes meanwhile, and no container is locked. Without `caller.wait` it returns at once; the work
    /// continues in the background, with the lowest priority.
    ///
    /// Cost: the trees of all these volumes are read, and once each file that may have an equal. Memory: at most 200 MiB.
    ///
    /// # Errors
    /// `project_not_found`, `container_not_found`, `validation_error`, `dedupe_unsupported`, `operation_in_progress` if another run is under way.
    pub fn dedupe_pool(&self, caller: &Caller, request: &DedupePool) -> Result<DedupeAnswer> {
        ops::dedupe::dedupe(&self.0, caller, request)
    }

    /// What came of the last run of [`Host::dedupe_pool`] that ended, if a caller may see it who reaches the projects `only` (`None`: all).
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn last_dedupe(&self, only: Option<&[ProjectId]>) -> Result<LastDedupe> {
        ops::dedupe::last(&self.0, only)
    }

    /// Deletes a snapshot: gone for good when this returns; the pool reclaims its space in the background.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `snapshot_pinned`, `operation_in_progress`.
    pub fn delete_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str) -> Result<SnapshotDeleted> {
        ops::snapshot_delete::delete(&self.0, caller, id, name)
    }

    /// Gives a snapshot another alias, or none. Its name stays.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `invalid_alias`, `alias_in_use`, `operation_in_progress`.
    pub fn rename_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str, alias: Option<String>) -> Result<SnapshotAnswer> {
        ops::snapshot_edit::rename(&self.0, caller, id, name, alias)
    }

    /// Pins a snapshot, so that it is neither expired nor deleted, or unpins it.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `validation_error`, `operation_in_progress`.
    pub fn pin_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str, reason: Option<String>) -> Result<SnapshotAnswer> {
        ops::snapshot_edit::pin(&self.0, caller, id, name, reason)
    }

    /// Sets when a snapshot is deleted by itself, or that it is not.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `invalid_expiry` for a time in the past, `operation_in_progress`.
    pub fn set_snapshot_expiry(&self, caller: &Caller, id: &ContainerId, name: &str, at: Option<Timestamp>) -> Result<SnapshotAnswer> {
        ops::snapshot_edit::set_expiry(&self.0, caller, id, name, at)
    }

    /// Sets how long from now a snapshot is kept.
    ///
    /// # Errors
    /// Those of [`Host::set_snapshot_expiry`].
    pub fn set_snapshot_expiry_in(&self, caller: &Caller, id: &ContainerId, name: &str, age: Age) -> Result<SnapshotAnswer> {
        ops::snapshot_edit::set_expiry_in(&self.0, caller, id, name, age)
    }

    /// Puts a snapshot in the place of a container's live volume and boots it fresh, if it ran or was paused before (or `options.start` says so). The
    /// state before is kept: under `keep_current`, else as an undo snapshot that expires by itself. Other snapshots are untouched.
    ///
    /// Steps: kill, clone the snapshot beside `live`, exchange the two by one rename, boot, keep the old one. Until the exchange everything can be
    /// undone, after it everything can be finished; a crash ends in one of the two.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `invalid_alias`, `alias_in_use`, `pool_full`, `operation_in_progress`, `operation_state_conflict`;
    /// `start_failed` when the restored state does not boot: the restore itself stands then, and the undo snapshot is there.
    pub fn restore(&self, caller: &Caller, id: &ContainerId, name: &str, options: RestoreOptions) -> Result<Restored> {
        ops::restore::restore(&self.0, caller, id, name, options)
    }

    /// Undoes the last restore, by restoring what it kept. That is a restore too, so it can be undone again.
    ///
    /// # Errors
    /// `nothing_to_undo`, and as for [`Host::restore`].
    pub fn undo(&self, caller: &Caller, id: &ContainerId) -> Result<Restored> {
        self.undo_with(caller, id, RestoreOptions::default())
    }

    /// The same with options, as a restore has them.
    ///
    /// # Errors
    /// Those of [`Host::undo`].
    pub fn undo_with(&self, caller: &Caller, id: &ContainerId, options: RestoreOptions) -> Result<Restored> {
        ops::restore::undo(&self.0, caller, id, options)
    }

    /// Restores single paths of a snapshot into a container, whatever it is doing. Each is copied by reflink to where nobody sees it, then put in its place in
    /// one step; a directory that is there takes the content of the snapshot's, name by name, unless `delete_new` replaces it. Databases in `/hoody/databases`
    /// are written in one transaction each, so that their connections stay open. The state before is kept as an undo snapshot. Each path has a result of its
    /// own; work that outlasts `caller.wait` continues in the background.
    ///
    /// Cost: one snapshot, and a few system calls a name; nothing of the size of files.
    ///
    /// # Errors
    /// Nothing is changed then: `container_not_found`, `snapshot_not_found`, `invalid_path`, `not_in_volume`, `validation_error`, `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`, `files_unsupported`; and if no path at all can be restored the error of the first, such as
    /// `file_not_found`, with the results of all as `failed` in its data.
    pub fn restore_files(&self, caller: &Caller, id: &ContainerId, name: &str, files: RestoreFiles) -> Result<FilesRestored> {
        ops::restore_files::restore_files(&self.0, caller, id, name, files)
    }

    /// Copies a container, here or to a peer. The copy has its own id and takes all snapshots along; it boots by itself when they are there.
    /// Returns when it exists; the rest is waited for up to `caller.wait`. Here that costs one clone, whatever the container's size.
    ///
    /// # Errors
    /// `source_container_not_found`, `project_not_found`, `snapshot_not_found`, `container_name_in_use`, `ssh_public_key_in_use`,
    /// `invalid_container_name`, `validation_error`, `project_container_limit`, `server_container_limit`, `unknown_server`, `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`; to a peer also `peer_unreachable` and what the peer says. Nothing is left then.
    pub fn copy_container(&self, caller: &Caller, id: &ContainerId, request: CopyRequest) -> Result<Container> {
        ops::copy::copy(&self.0, caller, id, request)
    }

    /// Makes `count` copies at once in the container's project; each has its own result. One that fails keeps no other from being made.
    ///
    /// # Errors
    /// Those that concern all: `source_container_not_found`, `snapshot_not_found`, `validation_error`, `operation_in_progress`, `pool_full`.
    pub fn fork_container(&self, caller: &Caller, id: &ContainerId, request: &ForkRequest) -> Result<Forked> {
        ops::fork::fork(&self.0, caller, id, request)
    }

    /// Takes the changes of a fork since its branch point over into the container that it came from, or another that shares the branch point: a three-way
    /// merge of their files. Returns when it is done, or after `caller.wait`. All or nothing: the target is exchanged in one step, what it was is kept as an undo
    /// snapshot, and a target that ran boots. The fork stays as it is. Cost follows what both changed since the branch point; data are shared.
    ///
    /// # Errors
    /// `container_not_found`, `not_a_copy`, `source_container_not_found`, `branch_point_not_found`, `not_related`, `promote_conflicts` (with `data.conflicts`),
    /// `validation_error`, `diff_too_large`, `path_too_long`, `diff_unsupported`, `freeze_timeout`, `pool_full`, `operation_in_progress`,
    /// `operation_state_conflict`. Nothing is changed then.
    pub fn promote_container(&self, caller: &Caller, fork: &ContainerId, request: &PromoteRequest) -> Result<Promoted> {
        ops::promote::promote(&self.0, caller, fork, request)
    }

    /// The container that would take a fork's changes over, for whoever decides who may ask for it.
    ///
    /// # Errors
    /// `container_not_found`, `not_a_copy`, `source_container_not_found`, `invalid_id_format`.
    pub fn target_of_promotion(&self, fork: &ContainerId, request: &PromoteRequest) -> Result<ContainerId> {
        ops::promote::target_of(&self.0, fork, request)
    }

    /// Takes a fork back to its branch point, or to what its source is now. What it was is kept as an undo snapshot; one that ran boots. Returns when it is done,
    /// or after `caller.wait`.
    ///
    /// # Errors
    /// `container_not_found`, `not_a_copy`, `branch_point_not_found`, `source_container_not_found`, `unknown_server`, `pool_full`, `operation_in_progress`,
    /// `operation_state_conflict`; to the source's state also those of a snapshot of the source, and what its server says.
    pub fn reset_container(&self, caller: &Caller, id: &ContainerId, request: &ResetRequest) -> Result<ResetAnswer> {
        ops::reset::reset(&self.0, caller, id, request)
    }

    /// Brings a copy up to its source. Returns when it has begun; the rest is waited for up to `caller.wait`. Cost follows what changed: on the
    /// source's own host no data are written at all.
    ///
    /// # Errors
    /// `container_not_found`, `not_a_copy`, `source_container_not_found`, `unknown_server`, `copy_has_changes` (with `force: false`), `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`, `peer_unreachable`, and what the peer says.
    pub fn sync_container(&self, caller: &Caller, id: &ContainerId, request: &SyncRequest) -> Result<SyncAnswer> {
        ops::sync::sync(&self.0, caller, id, request)
    }

    /// What a container is a copy of, and whether that is on this host.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn source_of_copy(&self, id: &ContainerId) -> Result<Option<(ContainerId, bool)>> {
        ops::sync::source_of_copy(&self.0, id)
    }

    /// Moves a container to a peer, where it gets a new id; here it ends up stopped, with all its snapshots. A container that does not run is copied and not
    /// started. The rest is waited for up to `caller.wait`. Neither runs for as long as one increment takes.
    ///
    /// # Errors
    /// `container_not_found`, `unknown_server`, `container_name_in_use`, `id_base_differs`, `pool_full`, `operation_in_progress`,
    /// `operation_state_conflict`, `peer_unreachable`, and what the peer says.
    pub fn move_container(&self, caller: &Caller, id: &ContainerId, request: &MoveRequest) -> Result<Moved> {
        ops::relocate::relocate(&self.0, caller, id, request)
    }

    /// Makes an image of a tar (plain, gzip or zstd), read to its end. The first image is the default one. A failed or cancelled import leaves nothing.
    ///
    /// # Errors
    /// `invalid_image_name`, `reserved_image_name`, `image_exists`, `image_format`, `image_corrupt`, `image_path_unsafe`, `image_no_root`, `pool_full`,
    /// `operation_cancelled`, `operation_in_progress`.
    pub fn import_image(&self, caller: &Caller, name: &str, tar: &mut dyn Read) -> Result<Image> {
        ops::import::import(&self.0, caller, name, tar)
    }

    /// Makes an image of a snapshot. Constant cost.
    ///
    /// # Errors
    /// As for an import, and `container_not_found`, `snapshot_not_found`.
    pub fn image_from_snapshot(&self, caller: &Caller, name: &str, container: &ContainerId, snapshot: &str) -> Result<Image> {
        ops::image_from_snapshot::image_from_snapshot(&self.0, caller, name, container, snapshot)
    }

    /// Deletes an image. Containers made from it are not touched.
    ///
    /// # Errors
    /// `image_not_found`, `operation_in_progress`.
    pub fn delete_image(&self, caller: &Caller, name: &str) -> Result<()> {
        ops::image_delete::delete(&self.0, caller, name)
    }

    /// Deletes a project and its containers: they are `deleting` when this returns and go behind. All or nothing.
    ///
    /// # Errors
    /// `project_not_found`; `operation_in_progress` when one of the containers is being changed, `snapshot_pinned` when one
    /// has a pinned snapshot: nothing is deleted then.
    pub fn delete_project(&self, caller: &Caller, id: &ProjectId, items: bool) -> Result<ProjectDeleted> {
        self.delete_project_with(caller, id, items, DeleteOptions::default())
    }
}
