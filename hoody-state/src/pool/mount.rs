//! Mounts.

use crate::error::{Error, IoContext, Kind, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an unmount waits for those who only look (udev probing a device, a directory being listed).
const PATIENCE: Duration = Duration::from_secs(2);

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) at: PathBuf,
    pub(super) kind: String,
    pub(super) source: PathBuf,
}

fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = (b == b'\\').then(|| tail.get(..3)).flatten().and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let at = unescape(fields.nth(4)?).into();
    fields.find(|f| *f == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount { at, kind, source: unescape(fields.next()?).into() })
}

/// What is mounted at `path` (the topmost, if several are).
pub(super) fn at(path: &Path) -> Result<Option<Mount>> {
    let Ok(path) = std::fs::canonicalize(path) else { return Ok(None) };
    let table = std::fs::read("/proc/self/mountinfo").io(|| "read /proc/self/mountinfo")?;
    Ok(table.split(|b| *b == b'\n').filter_map(parse).rfind(|m| m.at.as_os_str().as_bytes() == path.as_os_str().as_bytes()))
}

/// Every mount below `dir`, that of `dir` itself included.
pub(super) fn below(dir: &Path) -> Result<Vec<Mount>> {
    let Ok(dir) = std::fs::canonicalize(dir) else { return Ok(Vec::new()) };
    let table = std::fs::read("/proc/self/mountinfo").io(|| "read /proc/self/mountinfo")?;
    Ok(table.split(|b| *b == b'\n').filter_map(parse).filter(|m| m.at.starts_with(&dir)).collect())
}

/// Mounts a pool.
///
/// `noatime`: reading would otherwise write to volumes that share everything with their snapshots. `nodev`: a device node in an image must not
/// open the host's device; a container's own nodes are bind mounts of the host's, on a tmpfs of its own. Not `nosuid`: `su` and `sudo` in a container
/// run from here, and their set-uid bit leads only to the container's own ids. `user_subvol_rm_allowed`: who may remove a directory may remove a
/// subvolume in its place, so that a container's root deletes its own; by number, which could be another container's, the system call filter of
/// containers refuses it.
///
/// `discard=async` gives the room of freed blocks back: to a device that can use it, and to an image that reserves nothing beneath it. In an image with
/// a reserve a freed block stays reserved (`nodiscard`).
pub(super) fn mount(device: &Path, at: &Path, discard: bool) -> Result<()> {
    mount_with(device, at, POOL_FLAGS, options(discard))
}

/// Gives a mounted pool the options that [`mount`] gives: it may be another version's mount, or have had another reserve.
pub(super) fn set_options(at: &Path, discard: bool) -> Result<()> {
    mount_with(Path::new("none"), at, POOL_FLAGS | MsFlags::MS_REMOUNT, options(discard))
}

const POOL_FLAGS: MsFlags = MsFlags::MS_NOATIME.union(MsFlags::MS_NODEV);

fn options(discard: bool) -> &'static str {
    if discard { "discard=async,user_subvol_rm_allowed" } else { "nodiscard,user_subvol_rm_allowed" }
}

/// Mounts to look only: nothing is written, not even what a log has ready.
pub(super) fn mount_to_look(device: &Path, at: &Path) -> Result<()> {
    mount_with(device, at, MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "rescue=nologreplay")
}

fn mount_with(device: &Path, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    nix::mount::mount(Some(device), at, Some("btrfs"), flags, Some(options)).map_err(|e| match e {
        Errno::ENODEV => Error::new(Kind::Unavailable, "btrfs_unavailable", "this kernel has no BTRFS: load the module btrfs, or use a kernel that has it"),
        Errno::EPERM => Error::new(Kind::Denied, "not_root", format!("mounting {} needs root", device.display())).with_source(e),
        e => Error::io(format!("mount {} at {}", device.display(), at.display()), e),
    })
}

/// Unmounts whatever is at `path`, all layers. Nothing there is no error.
pub(super) fn unmount(path: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while at(path)?.is_some() {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::EBUSY) => {
                let message = format!("{} is in use: stop its containers and whatever has files open there, then try again", path.display());
                return Err(Error::new(Kind::Busy, "pool_busy", message));
            }
            Err(e) => return Err(Error::io(format!("unmount {}", path.display()), e)),
        }
    }
    Ok(())
}

/// Gives a mount's place free at once; the mount itself ends when its last user does.
pub(super) fn let_go(path: &Path) {
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
    fn mount_lines_are_read() {
        let m = parse(br"36 35 98:0 / /mnt\040a\134b rw,noatime shared:1 master:2 - btrfs /dev/loop\0403 rw,errors=continue").unwrap();
        assert_eq!(m, Mount { at: PathBuf::from(r"/mnt a\b"), kind: "btrfs".into(), source: PathBuf::from("/dev/loop 3") });
        assert_eq!(parse(b"36 35 98:0 / /x rw"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"a\9zb\"), r"a\9zb\");
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(at(dir.path()).unwrap(), None);
        unmount(dir.path()).unwrap();
        unmount(&dir.path().join("gone")).unwrap();
    }
}
