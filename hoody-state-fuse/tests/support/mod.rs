//! A mount for a test, gone with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

pub mod daemon;

use hoody_state_fuse::mount::{Mount, MountOptions};
use std::path::{Path, PathBuf};

/// A backing directory and a mount of it.
pub struct Mounted {
    pub mount: Mount,
    pub dir: tempfile::TempDir,
}

impl Mounted {
    pub fn new(options: &MountOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("back")).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let mount = Mount::single(&dir.path().join("back"), &dir.path().join("mnt"), options).expect("mounting needs root and /dev/fuse");
        Mounted { mount, dir }
    }

    pub fn at(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub fn back(&self) -> PathBuf {
        self.dir.path().join("back")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.mount.unmount().unwrap();
    }
}

/// With passthrough and by the page cache.
pub fn both() -> [MountOptions; 2] {
    [MountOptions::default(), MountOptions { passthrough: false, ..MountOptions::default() }]
}

pub fn is_mounted(at: &Path) -> bool {
    hoody_state::mountinfo::topmost(at).unwrap().is_some()
}
