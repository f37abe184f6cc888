//! How full the pool is, and how much can certainly still be written.

use crate::error::{IoContext, Result};
use crate::pool::{Backing, Reserve};
use crate::snapshot::Space;
use crate::units::Bytes;
use btrfs_uapi::space::{BlockGroupFlags, space_info};
use nix::sys::statvfs::FsFlags;
use std::os::fd::BorrowedFd;

/// Space that metadata must always have: the free space for data is reduced by what metadata lacks of it. A fiftieth of the pool, at most this.
const METADATA_ROOM: u64 = 512 << 20;

/// The free space of a pool, from the kernel's figures: `available` (unallocated space and free space in data block groups), and the free
/// space in metadata block groups.
fn certain(total: u64, available: u64, metadata_free: u64) -> u64 {
    available.saturating_sub((total / 50).min(METADATA_ROOM).saturating_sub(metadata_free))
}

/// The space of the pool. Cost: two cheap calls on the pool, and two on its image. What the image may still grow by is free too; without a reserve, a write
/// needs space in both file systems.
pub(super) fn space(mount: BorrowedFd<'_>, backing: Option<&Backing>) -> Result<Space> {
    let fs = nix::sys::statfs::fstatfs(mount).io(|| "ask for the pool's free space")?;
    let block = u64::try_from(fs.block_size()).unwrap_or(4096);
    let mut total = fs.blocks().saturating_mul(block);
    let groups = space_info(mount).io(|| "ask for the pool's block groups")?;
    let used: u64 = groups.iter().filter(|g| !g.flags.contains(BlockGroupFlags::GLOBAL_RSV)).map(|g| g.used_bytes * copies(g.flags)).sum();
    let metadata_free: u64 = groups.iter().filter(|g| is_metadata(g.flags)).map(|g| g.total_bytes.saturating_sub(g.used_bytes)).sum();
    let mut free = certain(total, fs.blocks_available().saturating_mul(block), metadata_free);
    let image = backing.map(|b| b.space(Bytes(total))).transpose()?;
    match (&image, backing.map(Backing::reserve)) {
        // Space inside the image that is already allocated may be added to this; counting it would be a guess.
        (Some(i), Some(Reserve::None)) => free = free.min(i.beneath_free.0),
        (Some(i), _) => {
            free = i.certain(Bytes(used), Bytes(free)).0;
            total = i.size.0;
        }
        (None, _) => {}
    }
    Ok(Space { total: Bytes(total), used: Bytes(used), free: Bytes(free), image, read_only: fs.flags().contains(FsFlags::ST_RDONLY) })
}

fn copies(flags: BlockGroupFlags) -> u64 {
    let twice = BlockGroupFlags::DUP | BlockGroupFlags::RAID1 | BlockGroupFlags::RAID10;
    if flags.intersects(twice) { 2 } else { 1 }
}

/// Metadata proper; the global reserve is within it and is counted there.
fn is_metadata(flags: BlockGroupFlags) -> bool {
    flags.contains(BlockGroupFlags::METADATA) && !flags.contains(BlockGroupFlags::GLOBAL_RSV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_metadata_lacks_is_not_free() {
        let gib = 1 << 30;
        assert_eq!(certain(10 * gib, 5 * gib, gib), 5 * gib);
        assert_eq!(certain(50 * gib, 5 * gib, 0), 5 * gib - METADATA_ROOM);
        assert_eq!(certain(50 * gib, 1, 0), 0);
    }
}
