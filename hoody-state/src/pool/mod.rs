//! The pool: the BTRFS file system that contains everything.
//!
//! It is on a device, or on a loop image that this module creates, formats, mounts and grows. It describes itself: a small record inside names
//! its server, its format and its id base. A file system without that record is never changed.
//!
//! **Guarantees.**
//! 1. [`Pool::open`] ends with the pool mounted at `<run>/pool`, or with an error and nothing left mounted that was not before.
//! 2. It may be killed at any instant and called again: each [`Step`] leaves a state that the next call recognises (`tests.rs` stops after each).
//! 3. Nothing is written to a file system that is not ours: a device or image is read first, then mounted read-only without replaying its log, and only the
//!    record makes it ours. While a pool is being created, its future id is in `<data>/pool.format`, by which an unfinished pool is recognised.
//! 4. A data directory has one server (`flock` on `<data>/pool.lock`), an image has one loop device; the kernel detaches it with the last unmount.
//! 5. BTRFS is given no more of an image than is reserved beneath it (`reserve.rs`).
//! 6. A mounted pool that the kernel has made read-only is opened as it is and not changed.
//! 7. Dropping a [`Pool`] leaves it mounted: containers continue when a server ends. [`Pool::unmount`] takes it down.
//!
//! Only the creation of the file system starts a process (`mkfs.btrfs`), once in a pool's life.

mod format;
mod grow;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod kernel_tests;
pub mod layout;
mod mount;
mod open;
mod record;
mod reserve;
#[cfg(test)]
mod reserve_tests;
mod step;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use crate::model::space::ImageSpace;
pub use record::{FORMAT, PoolRecord};
pub use reserve::{Backing, DEFAULT_AHEAD, Reserve, Tended};
pub use step::Step;

use crate::error::{IoContext, Result};
use crate::sys::loops;
use crate::units::Bytes;
use nix::fcntl::Flock;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The default of the first host id of the range that containers' ids are mapped to.
pub const DEFAULT_ID_BASE: u32 = 100_000;

/// The default size of a new image. The image is sparse: it takes only what is written from the disk, and it can grow (`size`), so the number is a limit
/// rather than a cost.
pub const DEFAULT_SIZE: Bytes = Bytes::gib(20);

/// The smallest size of an image: in less, BTRFS has no space for its block groups.
pub const MIN_SIZE: Bytes = Bytes::mib(256);

/// The settings of a pool.
#[derive(Debug, Clone, Default)]
pub struct PoolConfig {
    /// The directory of the image and the lock; created if it does not exist.
    pub data: PathBuf,
    /// The directory of what does not survive a reboot; the pool is mounted at `pool` in it.
    pub run: PathBuf,
    /// A block device for the pool instead of an image. If it is empty, it is formatted.
    pub device: Option<PathBuf>,
    /// The size to which an image is created (default: [`DEFAULT_SIZE`]) or grown; it is never made smaller.
    pub size: Option<Bytes>,
    /// The id base that the pool must have. `None`: a new pool gets [`DEFAULT_ID_BASE`].
    pub id_base: Option<u32>,
    /// A name for the server, stored in the record; a new name replaces the old one.
    pub server_name: Option<String>,
    /// How much to reserve beneath an image. `None`: the reserve is left as it is, to read a pool without a server.
    pub reserve: Option<Reserve>,
}

impl PoolConfig {
    /// A pool on an image of the default size, with the default reserve.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        PoolConfig { data: data.into(), run: run.into(), reserve: Some(Reserve::default()), ..Self::default() }
    }

    /// Where the pool is mounted.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.run.join(MOUNT_POINT)
    }
}

/// The name of the mount point in the run directory.
const MOUNT_POINT: &str = "pool";
/// The image in the data directory.
const IMAGE: &str = "pool.img";

/// A mounted pool and the lock on it.
#[derive(Debug)]
pub struct Pool {
    data: PathBuf,
    run: PathBuf,
    image: Option<PathBuf>,
    backing: Option<Backing>,
    record: PoolRecord,
    // Held as long as the pool is open.
    lock: Flock<File>,
    new_mount: bool,
    /// Whether what containers write is counted: servers count, tools that only read do not.
    counts: bool,
}

impl Pool {
    /// Finds or creates, mounts and grows the pool. Quick if it is mounted already.
    ///
    /// # Errors
    /// `data_in_use`, `pool_foreign`, `pool_too_new`, `id_base_mismatch`, `pool_shrink`, `pool_too_small`, `pool_size_of_device`, `mkfs_not_found`,
    /// `mkfs_failed`, `mount_point_in_use`, `loop_unavailable`, `btrfs_unavailable`.
    pub fn open(config: &PoolConfig) -> Result<Self> {
        open::open(config, &|_| false)
    }

    /// Unmounts the pool of `config` if it is mounted, whichever process mounted it; for use while no server runs.
    ///
    /// # Errors
    /// `data_in_use` while a server uses it, `pool_busy` while programs use files in it.
    pub fn take_down(config: &PoolConfig) -> Result<()> {
        if !config.data.exists() {
            return Ok(());
        }
        let lock = open::lock(&config.data)?;
        let image = config.device.is_none().then(|| config.data.join(IMAGE));
        take_down(&config.run, image.as_deref())?;
        drop(lock);
        Ok(())
    }

    /// The record of the pool of `config` if it is mounted now. Takes no lock, so that it works beside a running server.
    ///
    /// # Errors
    /// `pool_foreign` if something else is mounted there.
    pub fn peek(config: &PoolConfig) -> Result<Option<PoolRecord>> {
        let at = config.mount_point();
        if mount::at(&at)?.is_none() {
            return Ok(None);
        }
        record::read(&at)
    }

    /// The run directory under which the pool of `config` is mounted now, which may differ from `config.run`.
    ///
    /// # Errors
    /// Of reading `/proc` and `/sys`.
    pub fn mounted_run(config: &PoolConfig) -> Result<Option<PathBuf>> {
        let device = match &config.device {
            Some(d) => std::fs::canonicalize(d).ok(),
            None => loops::find(&config.data.join(IMAGE))?.map(|a| a.device),
        };
        let Some(device) = device else { return Ok(None) };
        let at = mount::below(Path::new("/"))?.into_iter().find(|m| m.source == device && m.at.file_name().is_some_and(|n| n == MOUNT_POINT));
        Ok(at.and_then(|m| m.at.parent().map(Path::to_path_buf)))
    }

    /// What is wrong with the mounts and loop devices of the pool of `config`, one line for each problem: an unexpected mount below the run directory, or more than
    /// one loop device on its image. Mounts at the paths `known` are expected. Takes no lock, changes nothing.
    ///
    /// # Errors
    /// Of reading `/proc` and `/sys`.
    pub fn look_at_mounts(config: &PoolConfig, known: &[PathBuf]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mounts = mount::below(&config.run)?;
        let root = std::fs::canonicalize(config.mount_point()).unwrap_or_else(|_| config.mount_point());
        let (pools, others): (Vec<_>, Vec<_>) = mounts.into_iter().partition(|m| m.at == root);
        if pools.len() > 1 {
            wrong.push(format!("{} mounts cover each other at {}: stop the server and unmount them", pools.len(), root.display()));
        }
        wrong.extend(others.iter().filter(|m| !known.contains(&m.at)).map(|m| {
            format!("{} ({}) is mounted at {}, where no server of this version mounts anything: umount it", m.source.display(), m.kind, m.at.display())
        }));
        if config.device.is_none() {
            let devices = loops::devices(&config.data.join(IMAGE))?;
            if devices > 1 {
                wrong.push(format!(
                    "{devices} loop devices are attached to {}: `losetup -j` lists them; detach those that are not mounted",
                    config.data.join(IMAGE).display()
                ));
            }
        }
        Ok(wrong)
    }

    /// The pool's root on this host.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.run.join(MOUNT_POINT)
    }

    /// Whether [`Pool::open`] has mounted it, so that nothing in it can be in use yet.
    #[must_use]
    pub fn freshly_mounted(&self) -> bool {
        self.new_mount
    }

    /// Where the pool of `config` is mounted, and its image or device, if it is mounted and the kernel has made it read-only. Takes no lock.
    pub(crate) fn read_only_at(config: &PoolConfig) -> Result<Option<(PathBuf, Option<Backing>)>> {
        let at = config.mount_point();
        if mount::at(&at)?.is_none() || !read_only(&at)? {
            return Ok(None);
        }
        let backing = config.device.is_none().then(|| Backing::new(config.data.join(IMAGE), config.reserve.unwrap_or(Reserve::None)));
        Ok(Some((at, backing)))
    }

    /// Whether the store counts what containers write.
    pub(crate) fn counts_what_is_written(&self) -> Result<bool> {
        Ok(self.counts && !read_only(&self.root())?)
    }

    /// The image and its reserve; `None` for a device.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// The directory of what does not survive a reboot.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The directory of the image.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The pool's record.
    #[must_use]
    pub fn record(&self) -> &PoolRecord {
        &self.record
    }

    /// The figures of the reserve beneath the image; `None` for a device.
    #[must_use]
    pub fn reserve_setting(&self) -> Option<Reserve> {
        self.backing.as_ref().map(Backing::reserve)
    }

    /// Adjusts the reserve beneath the image; to be called regularly. Does nothing for a device.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn tend(&self) -> Result<Tended> {
        self.backing.as_ref().map_or(Ok(Tended::Nothing), |b| b.tend(&self.root()))
    }

    /// Undoes what [`Pool::open`] created: the mount, with it the loop device, and the entry in the run directory. No data is lost; `open` mounts it again.
    ///
    /// # Errors
    /// `pool_busy` while a program runs from it or has a file open in it.
    pub fn unmount(self) -> Result<()> {
        take_down(&self.run, self.image.as_deref())?;
        drop(self.lock);
        Ok(())
    }
}

/// Whether the file system mounted at `root` is read-only.
fn read_only(root: &Path) -> Result<bool> {
    let fs = nix::sys::statfs::statfs(root).io(|| format!("look at {}", root.display()))?;
    Ok(fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn take_down(run: &Path, image: Option<&Path>) -> Result<()> {
    let at = run.join(MOUNT_POINT);
    mount::unmount(&at)?;
    if let Some(image) = image {
        loops::detach(image)?;
    }
    for dir in [at.as_path(), run] {
        match std::fs::remove_dir(dir) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::ResourceBusy) => {}
            Err(e) => return Err(e).io(|| format!("remove directory {}", dir.display())),
        }
    }
    Ok(())
}
