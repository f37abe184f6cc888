//! Identities that a volume claims.

use crate::error::{IoContext, Result};
use btrfs_uapi::send_receive::received_subvol_set;
use btrfs_uapi::subvolume;
use std::os::fd::BorrowedFd;
use uuid::Uuid;

/// Whether a volume claims that it was received from elsewhere. The owner of its root, such as a container's root, can write that into it
/// (`BTRFS_IOC_SET_RECEIVED_SUBVOL`), and a read-only snapshot inherits it.
pub(super) fn has_foreign_identity(volume: BorrowedFd<'_>) -> Result<bool> {
    Ok(!subvolume::subvolume_info(volume).io(|| "ask for a subvolume's identity")?.received_uuid.is_nil())
}

/// Removes a foreign identity from a writable volume.
pub(super) fn disown(volume: BorrowedFd<'_>) -> Result<()> {
    received_subvol_set(volume, &Uuid::nil(), 0).io(|| "remove a foreign identity from a volume").map(drop)
}
