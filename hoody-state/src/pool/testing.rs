//! Small pools for tests and benches, in a temporary directory. They are removed on drop, even when a test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Pool, PoolConfig, mount};
use crate::sys::loops;
use crate::units::Bytes;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A pool on a sparse image in a temporary directory. Needs root, BTRFS, loop devices and btrfs-progs, and panics with a message that says so.
pub struct LoopPool {
    pool: Option<Pool>,
    config: PoolConfig,
    // Dropped after the pool, which unmounts what is in it.
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

    /// The open pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("the pool is open")
    }

    /// The configuration that it is opened with; change it before [`LoopPool::open`].
    pub fn config(&mut self) -> &mut PoolConfig {
        &mut self.config
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.pool().root()
    }

    /// Closes the pool as the end of a server does: it stays mounted.
    pub fn close(&mut self) {
        self.pool = None;
    }

    /// Has the effect of a power cut, and opens the pool again: it has what was on the disk when this was called. No store of it is open any more.
    pub fn cut_power(&mut self) {
        let (image, copy) = (self.config.data.join("pool.img"), self.config.data.join("pool.img.cut"));
        let copied = std::process::Command::new("cp").arg("--sparse=always").args([&image, &copy]).status().expect("cp");
        assert!(copied.success(), "the image was not copied");
        self.close();
        reboot(&self.config);
        std::fs::rename(&copy, &image).expect("the copy takes the place of the image");
        self.open();
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

/// Unmounts a pool by force, even if something uses it.
pub fn clean_up(config: &PoolConfig) {
    if mount::unmount(&config.mount_point()).is_err() {
        mount::detach_all(&config.mount_point());
    }
    for name in ["pool.img", "pool.img.new"] {
        let _ = loops::detach(&config.data.join(name));
    }
}

/// Has the effect of a reboot: removes mounts, loop devices and everything in the run directory.
pub fn reboot(config: &PoolConfig) {
    clean_up(config);
    let _ = std::fs::remove_dir_all(&config.run);
}

/// A free loop device for `file`; detached when it is dropped.
#[must_use]
pub fn attach_free(file: &File) -> File {
    loops::attach_file(file).expect("a loop device (this test needs root and the module loop)").file
}

/// Attaches a free loop device to `file`; returns its path too.
#[must_use]
pub fn attach_device(file: &File) -> (PathBuf, File) {
    let attached = loops::attach_file(file).expect("a loop device (this test needs root and the module loop)");
    (attached.device, attached.file)
}

/// Whether a loop device is attached to a file.
#[must_use]
pub fn is_attached(file: &Path) -> bool {
    loops::find(file).expect("the list of loop devices").is_some()
}
