//! Small pools for tests and benches: made in a temporary directory, taken down on drop, even when a test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Pool, PoolConfig, mount};
use crate::sys::loops;
use crate::units::Bytes;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A pool on a sparse image of 1 GiB in a temporary directory. Needs root, BTRFS, loop devices and btrfs-progs, and says so if one is missing.
pub struct LoopPool {
    pool: Option<Pool>,
    config: PoolConfig,
    // After the pool: its drop unmounts what lies in it.
    _dir: tempfile::TempDir,
}

impl Default for LoopPool {
    fn default() -> Self {
        Self::new()
    }
}

impl LoopPool {
    /// A pool of 1 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Bytes::gib(1))
    }

    /// A pool of `size`.
    #[must_use]
    pub fn of(size: Bytes) -> Self {
        let dir = tempfile::Builder::new().prefix("hoody-pool-").tempdir().expect("a temporary directory");
        let mut config = PoolConfig::new(dir.path().join("data"), dir.path().join("run"));
        config.size = Some(size);
        let mut made = LoopPool { pool: None, config, _dir: dir };
        made.open();
        made
    }

    /// The pool, which is open.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("the pool is open")
    }

    /// What it is opened with; change it before [`LoopPool::open`].
    pub fn config(&mut self) -> &mut PoolConfig {
        &mut self.config
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.pool().root()
    }

    /// Lets go of the pool as the end of a server does: it stays mounted.
    pub fn close(&mut self) {
        self.pool = None;
    }

    /// Opens it again.
    pub fn open(&mut self) {
        self.close();
        let pool = Pool::open(&self.config);
        self.pool = Some(pool.expect("a test pool (this test needs root, BTRFS, loop devices and mkfs.btrfs of btrfs-progs)"));
    }
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        self.close();
        clean_up(&self.config);
    }
}

/// Takes a pool down by force: whatever still uses it loses it.
pub fn clean_up(config: &PoolConfig) {
    if mount::unmount(&config.mount_point()).is_err() {
        mount::detach_all(&config.mount_point());
    }
    for name in ["pool.img", "pool.img.new"] {
        let _ = loops::detach(&config.data.join(name));
    }
}

/// As a reboot: mounts and loop devices are gone, and everything in the run directory.
pub fn reboot(config: &PoolConfig) {
    clean_up(config);
    let _ = std::fs::remove_dir_all(&config.run);
}

/// A free loop device for `file`; detached when it is dropped.
#[must_use]
pub fn attach_free(file: &File) -> File {
    loops::attach_file(file).expect("a loop device (this test needs root and the module loop)").file
}

/// The same, with the device's path.
#[must_use]
pub fn attach_device(file: &File) -> (PathBuf, File) {
    let attached = loops::attach_file(file).expect("a loop device (this test needs root and the module loop)");
    (attached.device, attached.file)
}

/// Whether a file is behind a loop device.
#[must_use]
pub fn is_attached(file: &Path) -> bool {
    loops::find(file).expect("a look at the loop devices").is_some()
}
