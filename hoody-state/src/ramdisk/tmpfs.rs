//! A tmpfs a disk, mounted in a directory of its name. It is mounted on the host, so that it outlives every container and this process; what a
//! container's processes write into it is charged to their own cgroup by the kernel.

use super::{Filled, RamDisks};
use crate::error::{Code, Error, IoContext, Result};
use crate::model::mount::MountSource;
use crate::units::Bytes;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A [`RamDisks`] of tmpfs mounts below one directory.
#[derive(Debug)]
pub struct TmpfsRamDisks {
    dir: PathBuf,
    owner: u32,
    /// Looking and mounting are two steps.
    making: Mutex<()>,
}

impl TmpfsRamDisks {
    /// Disks below `dir`, made if need be, whose root directories belong to the id `owner` and may be written by everybody who reaches them, as `/tmp`.
    /// `dir` itself lets only root and the group `owner` pass, whatever the mode of what is above it: to a plain user of the host the disks are closed.
    ///
    /// # Errors
    /// Of making the directory.
    pub fn new(dir: impl Into<PathBuf>, owner: u32) -> Result<Self> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).io(|| format!("make {}", dir.display()))?;
        let close = || format!("close {} to all but group {owner}", dir.display());
        std::os::unix::fs::chown(&dir, None, Some(owner)).io(close)?;
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o710)).io(close)?;
        Ok(TmpfsRamDisks { dir, owner, making: Mutex::default() })
    }

    fn at(&self, name: &str) -> Result<PathBuf> {
        super::check_name(name)?;
        Ok(self.dir.join(name))
    }
}

/// Whether a tmpfs of its own is mounted there: the directory alone would be of the file system around it.
fn mounted(at: &Path, above: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::symlink_metadata(p).map(|m| m.dev()).ok();
    statfs(at).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC) && device(at) != device(above)
}

impl RamDisks for TmpfsRamDisks {
    fn ensure(&self, name: &str, size: Bytes) -> Result<Option<MountSource>> {
        let at = self.at(name)?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
        if mounted(&at, &self.dir) {
            match mount(None::<&str>, &at, None::<&str>, flags | MsFlags::MS_REMOUNT, Some(format!("size={}", size.0).as_str())) {
                Ok(()) => {}
                Err(Errno::EINVAL) => tracing::warn!(disk = name, "holds more than {size}: it keeps its size"),
                Err(e) => return Err(failed(&at, e)),
            }
            return Ok(Some(at.into()));
        }
        std::fs::create_dir_all(&at).io(|| format!("make {}", at.display()))?;
        let options = format!("size={},mode=1777,uid={owner},gid={owner}", size.0, owner = self.owner);
        // Huge pages where they fit, on kernels that have them for tmpfs.
        let huge = format!("{options},huge=within_size");
        match mount(Some("hoody-ramdisk"), &at, Some("tmpfs"), flags, Some(huge.as_str())) {
            Err(Errno::EINVAL) => mount(Some("hoody-ramdisk"), &at, Some("tmpfs"), flags, Some(options.as_str())).map_err(|e| failed(&at, e))?,
            r => r.map_err(|e| failed(&at, e))?,
        }
        Ok(Some(at.into()))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let at = self.at(name)?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        while mounted(&at, &self.dir) {
            umount2(&at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|e| failed(&at, e))?;
        }
        match std::fs::remove_dir(&at) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", at.display()), e)),
            _ => Ok(()),
        }
    }

    fn filled(&self, name: &str) -> Result<Option<Filled>> {
        let at = self.at(name)?;
        if !mounted(&at, &self.dir) {
            return Ok(None);
        }
        let s = nix::sys::statvfs::statvfs(&at).io(|| format!("ask how full {} is", at.display()))?;
        let bytes = |blocks: u64| Bytes(blocks * s.fragment_size());
        Ok(Some(Filled { used: bytes(s.blocks() - s.blocks_free()), size: bytes(s.blocks()) }))
    }

    fn list(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.dir).io(|| format!("list {}", self.dir.display()))?;
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

fn failed(at: &Path, e: Errno) -> Error {
    Error::new(Code::RamdiskFailed, format!("the RAM disk {} cannot be mounted or taken off: {e}", at.display())).with_source(e)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Disks(tempfile::TempDir, TmpfsRamDisks);

    impl crate::ramdisk::suite::Harness for Disks {
        fn disks(&self) -> &dyn RamDisks {
            &self.1
        }
        fn again(&self) -> Box<dyn RamDisks + '_> {
            Box::new(TmpfsRamDisks::new(self.0.path(), 100_000).unwrap())
        }
    }

    #[test]
    fn contract() {
        let dir = tempfile::tempdir().unwrap();
        let disks = TmpfsRamDisks::new(dir.path(), 100_000).unwrap();
        crate::ramdisk::suite::run(&Disks(dir, disks));
    }

    #[test]
    fn a_plain_user_of_the_host_does_not_reach_a_disk_and_the_containers_root_does() {
        use std::os::unix::process::CommandExt;
        // Where everybody may pass, as under a --run that somebody made.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let disks = TmpfsRamDisks::new(dir.path().join("ramdisks"), 100_000).unwrap();
        let disk = disks.ensure("a", Bytes::mib(1)).unwrap().unwrap();
        let at = disk.path().unwrap();
        std::fs::write(at.join("secret"), "x").unwrap();
        let reads = |id: u32| std::process::Command::new("cat").arg(at.join("secret")).uid(id).gid(id).output().unwrap().status.success();
        let (stranger, container) = (reads(65_534), reads(100_000));
        disks.remove("a").unwrap();
        assert!(!stranger && container, "stranger {stranger}, container {container}");
    }
}
