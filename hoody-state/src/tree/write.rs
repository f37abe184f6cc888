//! A file that is written whole before anybody sees it.
//!
//! It has no name while it is written (`O_TMPFILE`), so nothing is left of it when the process ends. It gets its name in one step when it is complete and on
//! the disk.

use super::attributes::By;
use super::node::{Meta, Node};
use super::place::Place;
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What belongs to one content: it is not given to another one.
const OF_CONTENT: &[&[u8]] = &[b"security.capability", b"security.ima", b"security.evm"];

/// Owner and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// On the host.
    pub uid: u32,
    /// On the host.
    pub gid: u32,
    /// Twelve bits.
    pub mode: u32,
}

/// A file without a name.
#[derive(Debug)]
pub struct Staged {
    file: File,
    device: (u32, u32),
}

impl Staged {
    /// An empty one in the subvolume of `dir`, which may be `O_PATH`. It inherits from `dir` what a new file there would.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn beside(dir: BorrowedFd<'_>) -> Result<Self> {
        let what = || "make a temporary file in a container";
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR).io(what)?);
        let device = Meta::of(file.as_fd()).io(what)?.device;
        Ok(Staged { file, device })
    }

    /// Its inode number.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn meta(&self) -> Result<Meta> {
        Meta::of(self.file.as_fd()).io(|| "look at a file that was written")
    }

    /// The same as something that was looked up.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn into_node(self) -> Result<Node> {
        Node::new(self.file.into()).io(|| "look at a file that was written")
    }

    /// One that can get a name in `dir`: itself, or a copy by reflink if `dir` is in another subvolume.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn moved_beside(self, dir: BorrowedFd<'_>) -> Result<Self> {
        if Meta::of(dir).io(|| "look at a directory of a container")?.device == self.device {
            return Ok(self);
        }
        let mut moved = Self::beside(dir)?;
        if let Err(e) = rustix::fs::ioctl_ficlone(&moved.file, &self.file) {
            // Files with and without copy-on-write share no data.
            tracing::debug!(error = %e, "a written file is copied instead of shared");
            io::Seek::rewind(&mut &self.file).io(|| "copy a written file")?;
            io::copy(&mut &self.file, &mut moved.file).io(|| "copy a written file")?;
        }
        Ok(moved)
    }

    /// Gives it owner and mode.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn own(&self, o: Ownership) -> Result<()> {
        let what = || "set owner and mode of a written file";
        // A change of owner clears the set-id bits, so it comes first.
        rustix::fs::fchown(&self.file, Some(Uid::from_raw(o.uid)), Some(Gid::from_raw(o.gid))).io(what)?;
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(o.mode)).io(what)
    }

    /// Gives it the extended attributes, ACLs among them, of the file that it replaces, except for those that stand for its content, such as capabilities.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn take_attributes_of(&self, node: &Node) -> Result<()> {
        let (from, to) = (By::Path(node.as_fd()), By::Open(self.file.as_fd()));
        for name in from.list()?.iter().filter(|n| !OF_CONTENT.contains(&n.as_slice()) && !n.starts_with(b"trusted.") && !n.starts_with(b"btrfs.")) {
            if let Some(value) = from.get(name)? {
                to.set(name, &value)?;
            }
        }
        Ok(())
    }

    /// Makes its data and attributes durable.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().io(|| "sync a written file")
    }

    /// Gives it a name; false if something has it. Not durable until the directory is synced.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn link(&self, to: Place<'_>) -> Result<bool> {
        let shown = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(CWD, shown, to.dir, to.name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::NOENT) => Err(Error::new(Code::FileNotFound, "the directory was removed while a file was written to it; nothing is kept of the file")),
            Err(e) => Err(e).io(|| format!("name a written file {:?}", to.name)),
        }
    }
}

impl Write for Staged {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the names in a directory durable; it may be `O_PATH`.
///
/// # Errors
/// Those of the system calls.
pub fn sync_directory(dir: BorrowedFd<'_>) -> Result<()> {
    let what = || "sync a directory of a container";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(dir, ".", flags, Mode::empty()).io(what)?;
    rustix::fs::fsync(open).io(what)
}
