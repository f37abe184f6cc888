//! The root of a volume, and looking up paths beneath it.

use super::node::{Node, failed};
use super::path::TreePath;
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often a look-up is tried again when something is renamed meanwhile.
const TRIES: u32 = 128;

/// What a symbolic link in the last place of a path means. Links before it are always followed, as a process in the container would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// What it leads to.
    Follow,
    /// The link itself.
    Keep,
}

/// An open volume. What it was opened on stays readable when the volume is deleted or exchanged meanwhile.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The volume whose root directory `dir` is.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Root(dir)
    }

    /// What stands at `path`. Nothing is opened for reading by it.
    ///
    /// # Errors
    /// `file_not_found` (also for links in a circle), `not_a_directory`: something before the last name is none.
    pub fn find(&self, path: &TreePath, last: Last) -> Result<Node> {
        let flags = if last == Last::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
        let fd = self.open(path, OFlags::PATH | flags).map_err(|e| failed(path, e))?;
        Node::new(fd).io(|| format!("look at {}", path.shown()))
    }

    /// The directory that `path` stands in, as an `O_PATH` descriptor, and its last name there, whether or not anything has that name. Links in the
    /// directory's path are followed inside the volume.
    ///
    /// # Errors
    /// `file_not_found`, `not_a_directory`; `invalid_path` for the root.
    pub fn parent<'p>(&self, path: &'p TreePath) -> Result<(OwnedFd, &'p [u8])> {
        let (dir, name) = path.split().ok_or_else(|| Error::new(Code::InvalidPath, "/ stands in no directory: name something in it"))?;
        let fd = self.open(&dir, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| failed(&dir, e))?;
        Ok((fd, name))
    }

    fn open(&self, path: &TreePath, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let relative = if path.is_root() { b".".as_slice() } else { path.as_bytes() };
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.0, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something was renamed on the way: the kernel cannot say for certain that it is still inside.
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                r => return Ok(r?),
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
