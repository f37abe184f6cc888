//! Mounting and unmounting pools.

use crate::error::{Code, Error, IoContext, Result};
use crate::sys::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an unmount waits for short users of the mount (udev probing a device, a directory being listed).
const PATIENCE: Duration = Duration::from_secs(2);

/// The mount at `path` (the topmost, if there are several).
pub(super) fn at(path: &Path) -> Result<Option<MountEntry>> {
    let Ok(path) = std::fs::canonicalize(path) else { return Ok(None) };
    mountinfo::topmost(&path).io(|| "read /proc/self/mountinfo")
}

/// Every mount below `dir`, including that of `dir` itself.
pub(super) fn below(dir: &Path) -> Result<Vec<MountEntry>> {
    let Ok(dir) = std::fs::canonicalize(dir) else { return Ok(Vec::new()) };
    let mut all = mountinfo::of_this_process().io(|| "read /proc/self/mountinfo")?;
    all.retain(|m| m.at.starts_with(&dir));
    Ok(all)
}

/// Mounts a pool.
///
/// `noatime`: otherwise reading would write to volumes that share everything with their snapshots. `nodev`: a device node in an image must not
/// open the host's device; a container's own nodes are bind mounts of the host's, on a tmpfs of its own. Not `nosuid`: `su` and `sudo` in a container
/// run from here, and their set-uid bit leads only to the container's own ids. `user_subvol_rm_allowed`: who may remove a directory may remove a
/// subvolume in its place, so that a container's root deletes its own; by number, which could be another container's, the system call filter of
/// containers refuses it.
///
/// `discard=async` gives the space of freed blocks back to a device that supports it, and to the file system beneath an image without a reserve. In an image
/// with a reserve a freed block stays reserved (`nodiscard`).
pub(super) fn mount(device: &Path, at: &Path, discard: bool) -> Result<()> {
    mount_with(device, at, POOL_FLAGS, options(discard))
}

/// Gives a mounted pool the options that [`mount`] uses: another version may have mounted it, or with another reserve.
pub(super) fn set_options(at: &Path, discard: bool) -> Result<()> {
    mount_with(Path::new("none"), at, POOL_FLAGS | MsFlags::MS_REMOUNT, options(discard))
}

const POOL_FLAGS: MsFlags = MsFlags::MS_NOATIME.union(MsFlags::MS_NODEV);

fn options(discard: bool) -> &'static str {
    if discard { "discard=async,user_subvol_rm_allowed" } else { "nodiscard,user_subvol_rm_allowed" }
}

/// Mounts for reading only: nothing is written, and no log is replayed.
pub(super) fn mount_to_look(device: &Path, at: &Path) -> Result<()> {
    mount_with(device, at, MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "rescue=nologreplay")
}

fn mount_with(device: &Path, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    nix::mount::mount(Some(device), at, Some("btrfs"), flags, Some(options)).map_err(|e| match e {
        Errno::ENODEV => Error::new(Code::BtrfsUnavailable, "this kernel has no BTRFS: load the module btrfs, or use a kernel that has it"),
        Errno::EPERM => Error::new(Code::NotRoot, format!("mounting {} needs root", device.display())).with_source(e),
        e => Error::io(format!("mount {} at {}", device.display(), at.display()), e),
    })
}

/// Unmounts everything at `path`, all layers. It is not an error if nothing is mounted there.
pub(super) fn unmount(path: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while at(path)?.is_some() {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::EBUSY) => {
                let message = format!("{} is in use: stop its containers and the programs that have files open there, then try again", path.display());
                return Err(Error::new(Code::PoolBusy, message));
            }
            Err(e) => return Err(Error::io(format!("unmount {}", path.display()), e)),
        }
    }
    Ok(())
}

/// Detaches every mount at `path`: the path is free at once, and each mount ends with its last user.
#[cfg(test)]
pub(super) fn detach_all(path: &Path) {
    while matches!(at(path), Ok(Some(_))) {
        if umount2(path, MntFlags::MNT_DETACH).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(at(dir.path()).unwrap(), None);
        unmount(dir.path()).unwrap();
        unmount(&dir.path().join("gone")).unwrap();
    }
}
