//! The flags of files (`chattr`), of which a container's root can set some.
//!
//! The kernel sends them only for files whose flags differ from those in the base, never in a full stream. So changes of flags arrive, but not flags set before
//! the first copy.
//!
//! *Immutable* and *append-only* are ignored on purpose: a container cannot set or clear them, so only the host's root or a lying peer can have put them
//! there, and they would forbid every later increment and the container itself to change the file. *No copy-on-write* is set where the kernel allows it: on
//! directories and on files that are empty. Compression is an extended attribute (`btrfs.compression`) in the stream, which sets it.

use super::{Apply, failed};
use crate::error::Result;
use nix::libc;
use nix::sys::stat::{Mode, fstatat};
use rustix::fs::{IFlags, XattrFlags};

/// Of `struct btrfs_inode_item` (`fs/btrfs/btrfs_inode.h`), with what `chattr` calls them.
const KNOWN: &[(u64, IFlags)] = &[
    (1 << 1, IFlags::NOCOW),
    (1 << 3, NO_COMPRESSION),
    (1 << 5, IFlags::SYNC),
    (1 << 8, IFlags::NODUMP),
    (1 << 9, IFlags::NOATIME),
    (1 << 10, IFlags::DIRSYNC),
];
/// `FS_NOCOMP_FL`, for which rustix has no name.
pub(super) const NO_COMPRESSION: IFlags = IFlags::from_bits_retain(0x400);
pub(super) const COMPRESSION: &str = "btrfs.compression";

/// The new flags of a file: `now` with those of `sent` that a container can set.
fn wanted(now: IFlags, sent: u64, keeps_cow: bool) -> IFlags {
    KNOWN.iter().filter(|(_, flag)| !(keeps_cow && *flag == IFlags::NOCOW)).fold(now, |flags, (bit, flag)| {
        // Whether a file is compressed depends on its attribute.
        let on = sent & bit != 0 && !(*flag == NO_COMPRESSION && now.contains(IFlags::COMPRESSED));
        if on { flags | *flag } else { flags - *flag }
    })
}

impl Apply<'_> {
    pub(super) fn flags(&mut self, path: &[u8], sent: u64) -> Result<()> {
        let s = self.spot(path)?;
        let stat = fstatat(&*s.dir, s.name.as_c_str(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed("look at", path, e))?;
        let directory = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => true,
            libc::S_IFREG => false,
            // Other kinds of files have no flags with an effect.
            _ => return Ok(()),
        };
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
        let fd = nix::fcntl::openat(&*s.dir, s.name.as_c_str(), flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
        let now = rustix::fs::ioctl_getflags(&fd).map_err(|e| failed("read the flags of", path, e))?;
        let wanted = wanted(now, sent, !directory && stat.st_size > 0);
        if wanted == now {
            return Ok(());
        }
        // Setting flags resets the compression to that of the file system, or to none.
        let mut compression = [0; 64];
        let compression = rustix::fs::fgetxattr(&fd, COMPRESSION, &mut compression).ok().map(|n| compression[..n].to_vec());
        if let Err(e) = rustix::fs::ioctl_setflags(&fd, wanted) {
            // Flags say how data should be stored and are not part of the data: those that this kernel does not accept are ignored.
            tracing::debug!(error = %e, "flags of a file were not set");
            return Ok(());
        }
        match compression {
            Some(value) => rustix::fs::fsetxattr(&fd, COMPRESSION, &value, XattrFlags::empty()).map_err(|e| failed("set an attribute of", path, e)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_cannot_set_is_left_as_it_is() {
        let immutable_and_append = (1 << 6) | (1 << 7);
        assert_eq!(wanted(IFlags::empty(), immutable_and_append | (1 << 8), false), IFlags::NODUMP);
        assert_eq!(wanted(IFlags::NOATIME | IFlags::COMPRESSED, 1 << 3, false), IFlags::COMPRESSED);
    }

    #[test]
    fn copy_on_write_is_for_empty_files_to_turn_off() {
        assert_eq!(wanted(IFlags::empty(), 2, true), IFlags::empty());
        assert_eq!(wanted(IFlags::NOCOW, 0, true), IFlags::NOCOW);
        assert_eq!(wanted(IFlags::empty(), 2, false), IFlags::NOCOW);
    }
}
