//! Directories in a container's volume that the server makes. Nothing that the container has put there is followed or replaced.

use crate::error::{IoContext, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Makes directories that belong to the root user of containers, who has the host's user id `id_base`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContainerDirs {
    pub id_base: u32,
}

impl ContainerDirs {
    /// Opens a directory in a volume, made if need be (then it belongs to the container's root). Nothing when something else is in the way: what a
    /// container has put there is its own affair, and no link of its is followed.
    pub(crate) fn open_or_make(self, root: &Path, parts: &[&str]) -> Result<Option<OwnedFd>> {
        let dir = std::fs::File::open(root).io(|| format!("open {}", root.display()))?;
        self.open_or_make_in(dir.into(), root.display(), parts)
    }

    /// The same in an open directory, which errors call `root`.
    pub(crate) fn open_or_make_in(self, mut dir: OwnedFd, root: impl std::fmt::Display, parts: &[&str]) -> Result<Option<OwnedFd>> {
        let what = || format!("make /{} in {root}", parts.join("/"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for part in parts {
            let made = match rustix::fs::mkdirat(&dir, *part, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(rustix::io::Errno::EXIST) => false,
                Err(e) => return Err(e).io(what),
            };
            dir = match rustix::fs::openat2(&dir, *part, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
                Ok(d) => d,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
                Err(e) => return Err(e).io(what),
            };
            if made {
                self.give(dir.as_fd(), 0o755).io(what)?;
            }
        }
        Ok(Some(dir))
    }

    /// Gives a directory that still belongs to the host's root to the containers' root.
    pub(crate) fn give_new(self, dir: &Path) -> Result<()> {
        let what = || format!("give {} to the containers", dir.display());
        let d = std::fs::File::open(dir).io(what)?;
        if d.metadata().io(what)?.uid() == 0 && self.id_base != 0 {
            self.give(d.as_fd(), 0o755).io(what)?;
        }
        Ok(())
    }

    /// Gives an open file or directory to the containers' root, with this mode.
    pub(crate) fn give(self, file: BorrowedFd<'_>, mode: u32) -> std::io::Result<()> {
        nix::unistd::fchown(file, Some(self.id_base.into()), Some(self.id_base.into()))?;
        nix::sys::stat::fchmod(file, nix::sys::stat::Mode::from_bits_truncate(mode))?;
        Ok(())
    }
}

/// The path of an open directory.
pub(crate) fn path_of(dir: &OwnedFd) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).io(|| "ask for the path of an open directory")
}
