//! A volume: a backing directory that appears as the root of the mount, or as a directory in it. The backing can be exchanged.

use crate::claim::Claim;
use crate::descriptors::Usage;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A backing directory of a volume. A rebind replaces it by another.
#[derive(Debug)]
pub(crate) struct Backing {
    pub root: Arc<OwnedFd>,
    /// The claim: no other mount serves it while files of this backing are open.
    pub claim: Option<Arc<Claim>>,
    pub path: PathBuf,
    dev: u64,
    /// The number of this backing, which distinguishes its inode numbers from those of others.
    pub index: u64,
    /// Whether passthrough works for its files.
    pub passes: bool,
    /// Other devices below it (subvolumes, mounts), each with its number and whether passthrough works.
    devices: Mutex<HashMap<u64, (u64, bool)>>,
}

/// Passthrough works for one layer only: not if the backing file system is stacked on another.
fn passes(fd: impl AsFd) -> bool {
    const OVERLAY: u32 = 0x794c_7630;
    const FUSE: u32 = 0x6573_5546;
    const ECRYPTFS: u32 = 0xf15f;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    rustix::fs::fstatfs(fd).is_ok_and(|s| ![OVERLAY, FUSE, ECRYPTFS].contains(&(s.f_type as u32)))
}

#[derive(Debug)]
pub(crate) struct Volume {
    pub name: OsString,
    /// Its number in the lock broker.
    pub id: u64,
    /// The node of its root directory. A rebind does not change it.
    pub root_node: u64,
    current: RwLock<Arc<Backing>>,
    removed: AtomicBool,
    /// The descriptors that it uses.
    pub usage: Usage,
}

/// The numbers of backings in use. A number becomes free when the last node of its backing is forgotten.
static USED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
/// How many backings the number of a node has room for.
pub(crate) const BACKINGS: u64 = 1 << 12;

/// Why a directory cannot be a backing.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// [`BACKINGS`] are in use.
    Full,
    Io(std::io::Error),
}

fn used() -> std::sync::MutexGuard<'static, BTreeSet<u64>> {
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_free(used: &BTreeSet<u64>) -> Result<u64, Unusable> {
    (0..BACKINGS).find(|i| !used.contains(i)).ok_or(Unusable::Full)
}

impl Drop for Backing {
    fn drop(&mut self) {
        used().remove(&self.index);
    }
}

impl Backing {
    /// A directory that is not claimed.
    #[cfg(test)]
    pub fn open(path: &Path) -> Result<Arc<Self>, Unusable> {
        Self::new(path, Arc::new(crate::claim::open(path).map_err(|e| Unusable::Io(e.into()))?), None)
    }

    /// Makes a directory a backing. The first one of a process has the native inode numbers.
    pub fn claimed(path: &Path, claim: Arc<Claim>) -> Result<Arc<Self>, Unusable> {
        Self::new(path, claim.root.clone(), Some(claim))
    }

    fn new(path: &Path, root: Arc<OwnedFd>, claim: Option<Arc<Claim>>) -> Result<Arc<Self>, Unusable> {
        let dev = rustix::fs::fstat(&root).map_err(|e| Unusable::Io(e.into()))?.st_dev;
        let mut used = used();
        let index = first_free(&used)?;
        used.insert(index);
        let passes = passes(&root);
        Ok(Arc::new(Backing { root, claim, passes, path: path.to_owned(), dev, index, devices: Mutex::default() }))
    }

    fn device(&self, dev: u64, passes: impl FnOnce() -> bool) -> (u64, bool) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let next = devices.len() as u64 + 1;
        *devices.entry(dev).or_insert_with(|| (next, passes()))
    }

    /// Whether passthrough works for a file below it.
    pub fn passes_to(&self, dev: u64, file: &OwnedFd) -> bool {
        if dev == self.dev { self.passes } else { self.device(dev, || passes(file)).1 }
    }

    /// The number of an inode in the mount: its own, if there is one volume on one device.
    pub fn number(&self, dev: u64, ino: u64) -> u64 {
        let device = if dev == self.dev { 0 } else { self.device(dev, || false).0 };
        // Bit 62 is for numbers that no inode has. An inode that does not fit these fields (2^40 inodes, 2^10 devices) may get the number of another: the table
        // handles that.
        let number = (ino & 0xff_ffff_ffff) | (device & 0x3ff) << 40 | (self.index & 0xfff) << 50;
        // 1 is the root of the mount.
        if number <= 1 { number | 1 << 61 } else { number & !(1 << 62) }
    }
}

impl Volume {
    pub fn new(name: OsString, id: u64, root_node: u64, backing: Arc<Backing>) -> Arc<Self> {
        Arc::new(Volume { name, id, root_node, current: RwLock::new(backing), removed: AtomicBool::default(), usage: Usage::default() })
    }

    pub fn backing(&self) -> Arc<Backing> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks it as no longer served: only open files can still be used.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Exchanges the backing and returns the old one.
    pub fn exchange(&self, backing: Arc<Backing>) -> Arc<Backing> {
        std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), backing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_directories_can_be_served_and_no_more() {
        let mut used: BTreeSet<u64> = (0..BACKINGS).collect();
        assert!(matches!(first_free(&used), Err(Unusable::Full)));
        used.remove(&7);
        assert!(matches!(first_free(&used), Ok(7)));
    }
}
