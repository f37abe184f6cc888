//! Changes in a directory that do not show in its times.

use crate::error::{IoContext, Result};
use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;
use std::os::fd::BorrowedFd;

/// Runs `f`, and then restores the times of the directory.
pub(super) fn keeping_times<T>(dir: BorrowedFd<'_>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let s = fstat(dir).io(|| "look at a directory")?;
    let out = f()?;
    futimens(dir, &TimeSpec::new(s.st_atime, s.st_atime_nsec), &TimeSpec::new(s.st_mtime, s.st_mtime_nsec)).io(|| "set the times of a directory")?;
    Ok(out)
}
