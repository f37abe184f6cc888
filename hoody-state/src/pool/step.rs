//! The points between the lasting changes of opening a pool, at which a test stops it.

use crate::error::{Error, Result};
use std::cell::Cell;

/// The points of [`Pool::open`](super::Pool::open) between which a lasting change is made, and what a crash right after each leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A lock file; the lock itself ended with the process.
    Locked,
    /// The id of the future pool, in `pool.format`: used again.
    Announced,
    /// `pool.img.new`, empty: created again.
    ImageMade,
    /// A file system with the announced id, on `pool.img.new` (created again) or on the device (used).
    Formatted,
    /// `pool.img`, with the announced id: used.
    Named,
    /// A loop device that the kernel has already detached, because no process has it open.
    Attached,
    /// The mount: used.
    Mounted,
    /// Some or all directories.
    LaidOut,
    /// A complete pool, and the announcement: that is removed.
    Recorded,
    /// A complete pool.
    Ready,
    /// A longer image: the loop device and the file system follow.
    ImageGrown,
    /// A longer loop device: the file system follows.
    DeviceGrown,
    /// A larger file system, and its reserve.
    FileSystemGrown,
}

/// Where a test stops `open` as a kill would, without undoing anything.
pub(super) struct Hook<'a> {
    pub(super) stop_after: &'a dyn Fn(Step) -> bool,
    pub(super) stopped: Cell<bool>,
}

impl Hook<'_> {
    pub(super) fn passed(&self, step: Step) -> Result<()> {
        if (self.stop_after)(step) {
            self.stopped.set(true);
            return Err(Error::internal(format!("stopped after {step:?}")));
        }
        Ok(())
    }
}
