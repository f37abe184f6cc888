//! Copies of volumes, and sealing.

use super::place::Place;
use super::{BtrfsStore, exists, has_nested, identity, nested, not_found, staging};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::OperationId;
use crate::snapshot::{SnapshotStore, Volume, VolumeInfo};
use btrfs_uapi::subvolume;
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use std::os::fd::{AsFd, OwnedFd};

impl BtrfsStore {
    pub(super) fn copy(&self, from: &Volume, to: &Volume, op: &OperationId, read_only: bool) -> Result<VolumeInfo> {
        let source = self.existing(from)?;
        let place = self.place_for(to)?;
        // A read-only snapshot inherits the identity that its source claims. That of a sealed source is genuine; that of another source must not be inherited.
        let claims = |volume: &OwnedFd| Ok::<_, Error>(read_only && !from.is_sealed() && identity::has_foreign_identity(volume.as_fd())?);
        if !has_nested(source.as_fd())? && !claims(&source)? {
            let groups = self.groups_for(to, Some(source.as_fd()))?;
            subvolume::snapshot_create(place.dir.as_fd(), source.as_fd(), &place.name, read_only, &groups).map_err(|e| self.copy_error(from, to, e))?;
            let copy = self.existing(to)?;
            // If a nested volume was created between the check and the snapshot, the copy has an empty stub in its place; an identity may have been written just
            // then too. In both cases the copy is made again, in the careful way.
            let stub = has_nested(source.as_fd())? && nested::has_stub(self.mount(), source.as_fd(), copy.as_fd())?;
            if !stub && !claims(&copy)? {
                return self.info_of(copy.as_fd());
            }
            drop(copy);
            self.delete(to)?;
        }
        self.copy_with_nested(from, &source, to, op, read_only, &place)
    }

    fn copy_with_nested(&self, from: &Volume, source: &OwnedFd, to: &Volume, op: &OperationId, read_only: bool, place: &Place) -> Result<VolumeInfo> {
        if self.find(to)?.is_some() {
            return Err(exists(to));
        }
        self.delete(&Volume::Staging(op.clone()))?;
        let hidden = nested::Hidden::announce(self, to, op)?;
        let how = nested::Copy { read_only, from_sealed: from.is_sealed() };
        nested::copy_tree(self.mount(), source.as_fd(), place.dir.as_fd(), hidden.name(), how)?;
        // Changes reach the disk in order or together: a crash cannot keep the rename and lose the seals.
        match renameat2(&place.dir, hidden.name(), &place.dir, place.name.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(exists(to)),
            Err(e) => return Err(Error::io(format!("move the finished copy to {to}"), e)),
        }
        hidden.withdraw(self)?;
        self.join_groups(to, Some(source.as_fd()))?;
        self.commit()?;
        self.info_of(self.existing(to)?.as_fd())
    }

    fn copy_error(&self, from: &Volume, to: &Volume, e: Errno) -> Error {
        match e {
            Errno::EEXIST => exists(to),
            Errno::ETXTBSY => {
                Error::new(Code::ActiveSwapFile, format!("{from} has an active swap file, so no copy can be made of it: switch it off (swapoff) first"))
            }
            e => Error::io(format!("snapshot {} to {}", self.shown(from), self.shown(to)), e),
        }
    }

    pub(super) fn seal_once(&self, from: &Volume, to: &Volume) -> Result<VolumeInfo> {
        let mut moved = false;
        if from != to
            && let Some(source) = self.find(from)?
        {
            if self.find(to)?.is_some() {
                return Err(exists(to));
            }
            if self.info_of(source.as_fd())?.read_only {
                self.unlock(from)?;
            }
            let target = self.place_for(to)?;
            let place = self.place(from)?.ok_or_else(|| not_found(from))?;
            match renameat2(&place.dir, place.name.as_c_str(), &target.dir, target.name.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Err(exists(to)),
                Err(e) => return Err(Error::io(format!("move {} to {}", self.shown(from), self.shown(to)), e)),
            }
            moved = true;
        }
        let volume = self.find(to)?.ok_or_else(|| not_found(from))?;
        // Data from plain writes goes to disk before the volume becomes read-only.
        btrfs_uapi::filesystem::sync(self.mount()).io(|| format!("write out {to}"))?;
        if moved && nested::is_read_only(volume.as_fd())? {
            // A program that still has the volume open has set the flag, which must not pass for our seal.
            nested::set_read_only(volume.as_fd(), false)?;
        }
        nested::seal_tree(self.mount(), volume.as_fd())?;
        if let Volume::Staging(op) = from {
            staging::drop_staging_dir(self, op)?;
        }
        self.info_of(volume.as_fd())
    }
}
