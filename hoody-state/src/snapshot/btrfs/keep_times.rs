//! Changes in a directory that do not show in its times.

use crate::error::{IoContext, Result};
use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// Runs `f`, and then restores the times of the directory.
pub(super) fn keeping_times<T>(dir: BorrowedFd<'_>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let s = fstat(dir).io(|| "look at a directory")?;
    let out = f()?;
    futimens(dir, &TimeSpec::new(s.st_atime, s.st_atime_nsec), &TimeSpec::new(s.st_mtime, s.st_mtime_nsec)).io(|| "set the times of a directory")?;
    Ok(out)
}

/// Removes a stub, and keeps the times of its directory.
pub(super) fn remove_stub(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    keeping_times(dir, || unlinkat(dir, name, UnlinkatFlags::RemoveDir).io(|| "remove the stub of a nested subvolume"))
}
