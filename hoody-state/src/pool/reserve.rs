//! What the file system beneath an image keeps for the pool.
//!
//! A sparse image promises more than the file system beneath it may have left. A write that finds no room there fails inside BTRFS, which then turns
//! read-only for everybody. So BTRFS is offered only what there is room for: the size of its device is a part of the image, not its length. When nothing
//! more can be offered, a container that writes gets ENOSPC, and the pool stays writable.
//!
//! **Reserved** (`fallocate`) is all that BTRFS uses, and so much more ahead of use. **Offered** is what is reserved, and a quarter of what the file
//! system beneath has free beyond 4 GiB. Reserving takes milliseconds; offering more takes a transaction of the pool, which a busy disk makes last a
//! second or two, in which a container may fill gigabytes of memory with what it writes. So while there is plenty beneath, more is offered than is
//! reserved; when it runs low, nothing is.
//!
//! **What holds** (with [`Reserve::Full`] and [`Reserve::Ahead`], on a file system beneath whose `fallocate` is a promise: ext4, XFS, tmpfs; on BTRFS
//! the image is made no-COW for that):
//! 1. While less than 4 GiB are free beneath, or with [`Reserve::Full`], every block that BTRFS can hand out has room beneath, however fast containers
//!    write and whatever else fills the file system beneath.
//! 2. While more is free there, what was reserved ahead has room beneath in any case, and the rest unless others take three quarters of it between
//!    two looks ([`Backing::tend`]).
//! 3. Growing reserves first and offers afterwards; shrinking takes back first and gives up afterwards. A crash in between leaves room reserved that
//!    nobody uses until the next open.
//! 4. Nothing is given up within the offered part: the pool is mounted without discard. Room goes back to the file system beneath from the end of
//!    the image, when more than twice the reserve is free.
//!
//! With [`Reserve::None`] the image is sparse to its end and freed blocks are discarded, and nothing of this holds.

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

/// What is reserved ahead of use when nobody says otherwise.
pub const DEFAULT_AHEAD: Bytes = Bytes::gib(2);
/// Of what is free beneath beyond this, a part is offered without being reserved.
const PLENTY: u64 = 4 << 30;
/// Which part.
const OFFERED_PART: u64 = 4;
/// BTRFS makes no device smaller.
const SMALLEST: u64 = 256 << 20;
/// A device is always number one of a pool: a pool has no other.
const DEVICE: u64 = 1;
/// What changes by less than this is left as it is.
const STEP: u64 = 256 << 20;

/// How much room beneath its image a pool reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// What is in use and this much more.
    Ahead(Bytes),
    /// The whole image.
    Full,
    /// Nothing: the file system beneath must never be full.
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
                    size.parse().map_err(|_| Error::new(Code::InvalidSize, format!("{s:?} is no reserve: write full, none or a size such as 2G")))?;
                let least = Bytes::mib(64);
                if size < least {
                    return Err(Error::new(Code::InvalidSize, format!("a reserve of {size} is too small: at least {least}")));
                }
                Ok(Reserve::Ahead(size))
            }
        }
    }
}

/// What may be offered beyond what is reserved.
fn on_trust(space: &ImageSpace) -> u64 {
    space.beneath_free.0.saturating_sub(PLENTY) / OFFERED_PART
}

/// An image and its reserve.
#[derive(Debug, Clone)]
pub struct Backing {
    image: PathBuf,
    reserve: Reserve,
    /// Up to where the image is reserved, as far as this process knows.
    reserved_to: Arc<AtomicU64>,
}

impl Backing {
    pub(super) fn new(image: PathBuf, reserve: Reserve) -> Self {
        Backing { image, reserve, reserved_to: Arc::default() }
    }

    /// What is to be reserved.
    #[must_use]
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// The figures, for a pool of whose device `offered` is the size.
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

    /// Reserves what the offered part of the image lacks, as far as there is room; for a pool that has just been mounted.
    pub(super) fn settle(&self, root: &Path) -> Result<()> {
        let pool = Handle::open(self, root)?;
        if self.reserve == Reserve::None {
            return pool.offer(pool.length()?);
        }
        if !pool.can_reserve()? {
            tracing::warn!(image = %self.image.display(), "the file system beneath the image cannot reserve room (no fallocate): a full disk makes the pool read-only");
            return pool.offer(pool.length()?);
        }
        // Sparse to its end until now, just made, or of a server with another reserve: what is not to be reserved goes back first.
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
            tracing::warn!(image = %self.image.display(), %lacking, "the disk beneath the image has no room for all that the pool holds: free some");
        }
        Ok(())
    }

    /// Reserves and offers more when less than the reserve is free, or takes some back when much more is. Cheap when neither is due.
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
        tracing::debug!(from = %Bytes(reserved), to = %Bytes(keep), "room beneath the pool's image was given back");
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

/// What a look at the reserve came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// It was as it should be, or nothing could be done.
    Nothing,
    /// BTRFS has more than before.
    Grown,
    /// The file system beneath got some back.
    Shrunk,
}

/// What the pool's device looks like.
#[derive(Clone, Copy)]
struct Look {
    length: u64,
    offered: u64,
    used: u64,
    used_end: u64,
}

impl Look {
    /// Up to where the image is to be reserved, so that `ahead` bytes are free in it.
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

    /// The end of the last chunk on the device: nothing is stored beyond.
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
            // How much room there is shows when it is asked for.
            Ok(()) | Err(Errno::ENOSPC | Errno::EDQUOT) => Ok(true),
            Err(e) => Err(e).io(|| format!("reserve room for {}", self.backing.image.display())),
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

    /// Gives back what the image holds beyond `end`.
    fn give_up_beyond(&self, end: u64) -> Result<()> {
        let length = self.length()?;
        if end >= length {
            return Ok(());
        }
        let (at, len) = (i64::try_from(end).unwrap_or(i64::MAX), i64::try_from(length - end).unwrap_or(i64::MAX));
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE | FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        match fallocate(&self.image, flags, at, len) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(e).io(|| format!("give back what {} holds beyond its use", self.backing.image.display())),
        }
    }

    fn offer(&self, size: u64) -> Result<()> {
        if self.offered()? == size {
            return Ok(());
        }
        resize(self.pool.as_fd(), ResizeArgs::new(ResizeAmount::Set(size))).io(|| format!("make the pool's device {} long", Bytes(size)))
    }

    /// Reserves what is lacking, as far as there is room beneath, and offers what there is. Whether it did anything.
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
            tracing::debug!(from = %Bytes(look.offered), to = %Bytes(target), reserved = %Bytes(reserved), "the pool's device has another size");
            changed = true;
        }
        Ok(changed)
    }

    /// Whether more is reserved than before.
    fn reserve_up_to(&self, wanted: u64, look: &Look) -> Result<bool> {
        let before = self.backing.reserved_to.load(Ordering::Relaxed);
        let space = self.backing.space(Bytes(look.offered))?;
        // At the start all of it is asked for: what is reserved already takes nothing.
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

    /// Takes the device back to `keep`, where nothing is stored beyond, and gives up what the image holds there. Moves no data, unless something was
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
