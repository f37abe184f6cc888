//! The space that the file system beneath an image reserves for the pool.
//!
//! A sparse image may be larger than the free space of the file system beneath it. A write that finds no space there fails inside BTRFS, which then becomes
//! read-only for all containers. So BTRFS is offered only as much as there is space for: the size of its device is a part of the image, not its length. When
//! nothing more can be offered, a container that writes gets ENOSPC, and the pool stays writable.
//!
//! **Reserved** (`fallocate`) is all that BTRFS uses, and some more ahead of use. **Offered** is the reserved space, and a quarter of what the file system
//! beneath has free beyond 4 GiB. Reserving takes milliseconds. Offering more takes a transaction of the pool, which can last a second or two on a busy disk;
//! in that time a container may fill gigabytes of memory with its writes. So more is offered than is reserved while there is plenty of space beneath, and no
//! more than is reserved when space runs low.
//!
//! **Guarantees** (with [`Reserve::Full`] and [`Reserve::Ahead`], on a file system beneath whose `fallocate` is a promise: ext4, XFS, tmpfs; on BTRFS
//! the image is made no-COW for that):
//! 1. While less than 4 GiB are free beneath, or with [`Reserve::Full`], every block that BTRFS can hand out has space beneath, however fast containers
//!    write and whatever else fills the file system beneath.
//! 2. While more is free there, the space reserved ahead exists beneath in any case, and the rest unless other programs take three quarters of it
//!    between two calls of [`Backing::tend`].
//! 3. Growing reserves first and offers afterwards; shrinking withdraws first and releases afterwards. A crash in between leaves space reserved but unused
//!    until the next open.
//! 4. Nothing is released within the offered part: the pool is mounted without discard. Space goes back to the file system beneath from the end of the image,
//!    when more than twice the reserve is free.
//!
//! With [`Reserve::None`] the image is sparse to its end, freed blocks are discarded, and none of these guarantees holds.

use super::grow::GRAIN;
use crate::error::{Code, Error, IoContext, Result};
use crate::model::space::{ImageSpace, LEFT_BENEATH};
use crate::units::Bytes;
use btrfs_uapi::filesystem::{ResizeAmount, ResizeArgs, resize};
use btrfs_uapi::raw::{BTRFS_DEV_EXTENT_KEY, BTRFS_DEV_TREE_OBJECTID};
use btrfs_uapi::tree_search::{SearchFilter, tree_search};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The default of how much is reserved ahead of use.
pub const DEFAULT_AHEAD: Bytes = Bytes::gib(2);
/// If more than this is free beneath, a part of the excess is offered without being reserved.
const PLENTY: u64 = 4 << 30;
/// That part is one in so many.
const OFFERED_PART: u64 = 4;
/// The smallest device that BTRFS allows.
const SMALLEST: u64 = 256 << 20;
/// The number of the pool's only device.
const DEVICE: u64 = 1;
/// Smaller changes are not made.
const STEP: u64 = 256 << 20;

/// How much space a pool reserves beneath its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// The space in use and this much more.
    Ahead(Bytes),
    /// The whole image.
    Full,
    /// Nothing: the file system beneath must never become full.
    None,
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve::Ahead(DEFAULT_AHEAD)
    }
}

impl FromStr for Reserve {
    type Err = Error;

    /// `full`, `none`, or a size.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "full" => Ok(Reserve::Full),
            "none" => Ok(Reserve::None),
            size => {
                let size: Bytes =
                    size.parse().map_err(|_| Error::new(Code::InvalidSize, format!("{s:?} is not a reserve: write full, none or a size such as 2G")))?;
                let least = Bytes::mib(64);
                if size < least {
                    return Err(Error::new(Code::InvalidSize, format!("a reserve of {size} is too small: at least {least}")));
                }
                Ok(Reserve::Ahead(size))
            }
        }
    }
}

/// How much may be offered beyond the reserved space.
fn on_trust(space: &ImageSpace) -> u64 {
    space.beneath_free.0.saturating_sub(PLENTY) / OFFERED_PART
}

/// An image and its reserve.
#[derive(Debug, Clone)]
pub struct Backing {
    image: PathBuf,
    reserve: Reserve,
    /// The offset up to which the image is reserved, as far as this process knows.
    reserved_to: Arc<AtomicU64>,
}

impl Backing {
    pub(super) fn new(image: PathBuf, reserve: Reserve) -> Self {
        Backing { image, reserve, reserved_to: Arc::default() }
    }

    /// How much is to be reserved.
    #[must_use]
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// The figures, for a pool whose device has the size `offered`.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn space(&self, offered: Bytes) -> Result<ImageSpace> {
        let what = || format!("look at {}", self.image.display());
        let meta = std::fs::metadata(&self.image).io(what)?;
        let beneath = nix::sys::statfs::statfs(&self.image).io(|| format!("ask for the free space beneath {}", self.image.display()))?;
        let block = u64::try_from(beneath.block_size()).unwrap_or(4096);
        Ok(ImageSpace {
            size: Bytes(meta.len() / GRAIN * GRAIN),
            offered,
            reserved: Bytes(meta.blocks().saturating_mul(512)),
            beneath_free: Bytes(beneath.blocks_available().saturating_mul(block)),
        })
    }

    /// Reserves the missing space of the offered part of the image, as far as there is space; for a pool that was just mounted.
    pub(super) fn settle(&self, root: &Path) -> Result<()> {
        let pool = Handle::open(self, root)?;
        if self.reserve == Reserve::None {
            return pool.offer(pool.length()?);
        }
        if !pool.can_reserve()? {
            tracing::warn!(image = %self.image.display(), "the file system beneath the image cannot reserve space (no fallocate): a full disk makes the pool read-only");
            return pool.offer(pool.length()?);
        }
        // The image was sparse until now, is new, or had another reserve: space that is no longer to be reserved is released first.
        let look = pool.look()?;
        let keep = look.to_reserve(self.ahead());
        if self.space(Bytes(look.offered))?.reserved.0 > keep.saturating_add(STEP) || look.offered > keep {
            pool.give_up(keep)?;
        }
        self.reserved_to.store(0, Ordering::Relaxed);
        pool.bring_up(self.ahead())?;
        let reserved = self.reserved_to.load(Ordering::Relaxed);
        if reserved < look.used_end {
            let lacking = Bytes(look.used_end - reserved);
            tracing::warn!(image = %self.image.display(), %lacking, "the disk beneath the image has no space for everything in the pool: free some");
        }
        Ok(())
    }

    /// Reserves and offers more if less than the reserve is free, or releases some if much more is free. Cheap if neither is due.
    pub(super) fn tend(&self, root: &Path) -> Result<Tended> {
        let pool = Handle::open(self, root)?;
        if self.reserve == Reserve::None {
            return Ok(Tended::Nothing);
        }
        if pool.bring_up(self.ahead())? {
            return Ok(Tended::Grown);
        }
        let (look, reserved) = (pool.look()?, self.reserved_to.load(Ordering::Relaxed));
        let keep = look.to_reserve(self.ahead());
        if self.ahead() > u64::MAX / 4 || reserved <= keep.saturating_add(self.ahead()).saturating_add(STEP) {
            return Ok(Tended::Nothing);
        }
        pool.give_up(keep)?;
        pool.bring_up(self.ahead())?;
        tracing::debug!(from = %Bytes(reserved), to = %Bytes(keep), "space beneath the pool's image was released");
        Ok(Tended::Shrunk)
    }

    fn ahead(&self) -> u64 {
        match self.reserve {
            Reserve::Ahead(b) => b.0,
            Reserve::Full => u64::MAX,
            Reserve::None => 0,
        }
    }
}

/// The result of `Backing::tend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// Nothing was due, or nothing could be done.
    Nothing,
    /// BTRFS was offered more.
    Grown,
    /// Space was released to the file system beneath.
    Shrunk,
}

/// The state of the pool's device.
#[derive(Clone, Copy)]
struct Look {
    length: u64,
    offered: u64,
    used: u64,
    used_end: u64,
}

impl Look {
    /// The offset up to which the image must be reserved so that `ahead` bytes are free in it.
    fn to_reserve(self, ahead: u64) -> u64 {
        let wanted = self.used.saturating_add(ahead).max(self.used_end).max(SMALLEST).min(self.length);
        (wanted.div_ceil(GRAIN) * GRAIN).min(self.length)
    }
}

/// The mounted pool and its image, open.
struct Handle<'a> {
    backing: &'a Backing,
    image: File,
    pool: File,
}

impl<'a> Handle<'a> {
    fn open(backing: &'a Backing, root: &Path) -> Result<Self> {
        let image = File::options().read(true).write(true).open(&backing.image).io(|| format!("open {}", backing.image.display()))?;
        let pool = File::open(root).io(|| format!("open {}", root.display()))?;
        Ok(Handle { backing, image, pool })
    }

    fn length(&self) -> Result<u64> {
        Ok(self.image.metadata().io(|| "ask for the image's length")?.len() / GRAIN * GRAIN)
    }

    fn offered(&self) -> Result<u64> {
        let info = btrfs_uapi::device::device_info(self.pool.as_fd(), DEVICE).io(|| "ask for the size of the pool's device")?;
        info.map(|d| d.total_bytes).ok_or_else(|| Error::internal("a pool without its device"))
    }

    fn free(&self) -> Result<u64> {
        let fs = nix::sys::statfs::fstatfs(&self.pool).io(|| "ask for the pool's free space")?;
        Ok(fs.blocks_available().saturating_mul(u64::try_from(fs.block_size()).unwrap_or(4096)))
    }

    /// The end of the last chunk on the device. Nothing is stored beyond it.
    fn used_end(&self) -> Result<u64> {
        let filter = SearchFilter::for_objectid_range(u64::from(BTRFS_DEV_TREE_OBJECTID), BTRFS_DEV_EXTENT_KEY, DEVICE, DEVICE);
        let mut end = 0;
        tree_search(self.pool.as_fd(), filter, |item, data| {
            // `struct btrfs_dev_extent`: chunk tree, chunk's object, chunk's offset, length; 8 bytes each.
            let length = data.get(24..32).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            end = end.max(item.offset.saturating_add(length));
            Ok(())
        })
        .io(|| "look for the pool's chunks")?;
        Ok(end)
    }

    fn look(&self) -> Result<Look> {
        let offered = self.offered()?;
        Ok(Look { length: self.length()?, offered, used: offered.saturating_sub(self.free()?), used_end: self.used_end()? })
    }

    fn can_reserve(&self) -> Result<bool> {
        match fallocate(&self.image, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 4096) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
            // How much space there is turns out on the attempt.
            Ok(()) | Err(Errno::ENOSPC | Errno::EDQUOT) => Ok(true),
            Err(e) => Err(e).io(|| format!("reserve space for {}", self.backing.image.display())),
        }
    }

    fn reserve(&self, from: u64, to: u64) -> Result<()> {
        let (at, len) = (i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX));
        if len == 0 {
            return Ok(());
        }
        loop {
            match fallocate(&self.image, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len) {
                Err(Errno::EINTR) => {}
                other => return other.io(|| format!("reserve {} for {}", Bytes(to - from), self.backing.image.display())),
            }
        }
    }

    /// Releases the space of the image beyond `end`.
    fn give_up_beyond(&self, end: u64) -> Result<()> {
        let length = self.length()?;
        if end >= length {
            return Ok(());
        }
        let (at, len) = (i64::try_from(end).unwrap_or(i64::MAX), i64::try_from(length - end).unwrap_or(i64::MAX));
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE | FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        match fallocate(&self.image, flags, at, len) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(e).io(|| format!("release the space of {} beyond its use", self.backing.image.display())),
        }
    }

    fn offer(&self, size: u64) -> Result<()> {
        if self.offered()? == size {
            return Ok(());
        }
        resize(self.pool.as_fd(), ResizeArgs::new(ResizeAmount::Set(size))).io(|| format!("make the pool's device {} long", Bytes(size)))
    }

    /// Reserves what is missing, as far as there is space beneath, and offers what there is. Returns whether it did anything.
    fn bring_up(&self, ahead: u64) -> Result<bool> {
        let look = self.look()?;
        let reserved = self.backing.reserved_to.load(Ordering::Relaxed);
        let step = (ahead / 8).clamp(GRAIN, STEP);
        let mut changed = false;
        let wanted = look.to_reserve(ahead);
        if wanted >= reserved.saturating_add(step) || reserved < look.used_end || (wanted == look.length && reserved < wanted) {
            changed = self.reserve_up_to(wanted, &look)?;
        }
        let reserved = self.backing.reserved_to.load(Ordering::Relaxed);
        let space = self.backing.space(Bytes(look.offered))?;
        let target = reserved.saturating_add(on_trust(&space)).min(look.length).max(look.used_end).max(SMALLEST) / GRAIN * GRAIN;
        let far = look.offered.abs_diff(target) >= step || (target == look.length && look.offered < target) || look.offered < reserved;
        if far && target != look.offered {
            self.offer(target)?;
            tracing::debug!(from = %Bytes(look.offered), to = %Bytes(target), reserved = %Bytes(reserved), "the pool's device was resized");
            changed = true;
        }
        Ok(changed)
    }

    /// Whether more is reserved than before.
    fn reserve_up_to(&self, wanted: u64, look: &Look) -> Result<bool> {
        let before = self.backing.reserved_to.load(Ordering::Relaxed);
        let space = self.backing.space(Bytes(look.offered))?;
        // At the start all of it is requested: what is reserved already costs nothing.
        let known = if before == 0 { space.reserved.0 } else { before };
        let room = space.beneath_free.0.saturating_sub(LEFT_BENEATH);
        let end = wanted.min(known.saturating_add(room)) / GRAIN * GRAIN;
        if end <= before || (before > 0 && end - before < GRAIN) {
            return Ok(false);
        }
        if let Err(e) = self.reserve(before, end) {
            tracing::debug!(error = %e, "no more can be reserved beneath the pool's image now");
            return Ok(false);
        }
        self.backing.reserved_to.store(end, Ordering::Relaxed);
        Ok(true)
    }

    /// Shrinks the device to `keep`, if nothing is stored beyond, and releases the space of the image there. Moves no data, unless something was
    /// stored there meanwhile.
    fn give_up(&self, keep: u64) -> Result<()> {
        self.offer(keep)?;
        self.give_up_beyond(keep)?;
        self.backing.reserved_to.fetch_min(keep, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reserve_is_a_size_or_a_word() {
        assert_eq!("full".parse::<Reserve>().unwrap(), Reserve::Full);
        assert_eq!("none".parse::<Reserve>().unwrap(), Reserve::None);
        assert_eq!("2G".parse::<Reserve>().unwrap(), Reserve::Ahead(Bytes::gib(2)));
        for bad in ["", "some", "-1", "1M"] {
            assert_eq!(bad.parse::<Reserve>().unwrap_err().code(), Code::InvalidSize, "{bad}");
        }
    }

    #[test]
    fn what_can_be_written_is_limited_by_the_image_and_by_what_is_beneath() {
        let s = ImageSpace { size: Bytes::gib(20), offered: Bytes::gib(4), reserved: Bytes::gib(3), beneath_free: Bytes::gib(50) };
        let (used, free) = (Bytes::gib(1), Bytes::gib(3));
        assert_eq!((s.certain(used, free), s.unreserved()), (Bytes::gib(19), Bytes::gib(1)));
        let low = ImageSpace { beneath_free: Bytes::gib(1), ..s };
        assert_eq!(low.certain(used, free), Bytes::gib(3) - Bytes(LEFT_BENEATH));
        assert_eq!(ImageSpace { beneath_free: Bytes::mib(1), ..s }.certain(used, free), Bytes::gib(2));
        assert_eq!((on_trust(&s), on_trust(&low)), ((46 << 30) / 4, 0));
    }

    #[test]
    fn what_is_reserved_covers_what_is_stored_and_what_is_ahead() {
        let gib = 1 << 30;
        let look = Look { length: 20 * gib, offered: 8 * gib, used: 2 * gib, used_end: 3 * gib };
        assert_eq!((look.to_reserve(2 * gib), look.to_reserve(gib / 2), look.to_reserve(u64::MAX)), (4 * gib, 3 * gib, 20 * gib));
        assert_eq!(Look { used: 0, used_end: 0, ..look }.to_reserve(1), SMALLEST);
    }
}
