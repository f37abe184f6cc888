//! Directories beneath the image's root, opened one component at a time without following a symlink.
//!
//! The directories down to the one being written are kept open, as a stack. A directory's modification time is set when it leaves the stack, after everything in
//! it was written. So archives of any size need memory for one path only.

use super::path::{shown, unsafe_path};
use crate::error::{Error, IoContext, Result};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Open {
    name: Vec<u8>,
    fd: OwnedFd,
    mtime: Timespec,
}

/// The root and the directories that are open beneath it.
pub(super) struct Tree {
    root: OwnedFd,
    root_mtime: Timespec,
    stack: Vec<Open>,
    id_base: u32,
}

/// What exists under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Nothing,
    Directory,
    Other,
}

pub(super) fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: mtime, last_modification: mtime }
}

/// Removes the ACLs that something new inherited from its directory.
pub(super) fn disinherit(fd: &OwnedFd) -> Result<(), Errno> {
    for name in super::xattr::INHERITED {
        match fs::fremovexattr(fd, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn mtime(stat: &fs::Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b'/')
}

impl Tree {
    pub(super) fn open(root: &Path, id_base: u32) -> Result<Self> {
        let fd = fs::open(root, DIR, Mode::empty()).io(|| format!("open {}", root.display()))?;
        let root_mtime = mtime(&fs::fstat(&fd).io(|| format!("stat {}", root.display()))?);
        Ok(Tree { root: fd, root_mtime, stack: Vec::new(), id_base })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// An owner as host ids.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.id_base.saturating_add(uid))), Some(Gid::from_raw(self.id_base.saturating_add(gid))))
    }

    /// Enters the directory at `parts` and creates it (0755, owned by root) if it is missing. Directories that are not on this path are finished.
    pub(super) fn enter(&mut self, parts: &[&[u8]]) -> Result<BorrowedFd<'_>> {
        let common = self.stack.iter().zip(parts).take_while(|(o, p)| o.name == **p).count();
        self.leave(common)?;
        for (i, name) in parts.iter().enumerate().skip(common) {
            let parent = self.current();
            let what = || shown(&joined(&parts[..=i]));
            let fd = match fs::openat(parent, *name, DIR, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    fs::mkdirat(parent, *name, Mode::from_raw_mode(0o755)).io(|| format!("make the directory {}", what()))?;
                    let fd = fs::openat(parent, *name, DIR, Mode::empty()).io(|| format!("open {}", what()))?;
                    let (uid, gid) = self.owner(0, 0);
                    fs::fchown(&fd, uid, gid).io(|| format!("change the owner of {}", what()))?;
                    disinherit(&fd).io(|| format!("remove the inherited ACL of {}", what()))?;
                    fs::fchmod(&fd, Mode::from_raw_mode(0o755)).io(|| format!("change the mode of {}", what()))?;
                    fd
                }
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(unsafe_path(&joined(parts), &format!("its parent {} is a symlink or not a directory", what()))),
                Err(e) => return Err(Error::io(format!("open {}", what()), e)),
            };
            let mtime = mtime(&fs::fstat(&fd).io(|| format!("stat {}", what()))?);
            self.stack.push(Open { name: name.to_vec(), fd, mtime });
        }
        Ok(self.current())
    }

    /// Sets the final modification time of the directory entered last.
    pub(super) fn set_mtime(&mut self, mtime: Timespec) {
        match self.stack.last_mut() {
            Some(o) => o.mtime = mtime,
            None => self.root_mtime = mtime,
        }
    }

    /// The directory entered last.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), |o| o.fd.as_fd())
    }

    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.stack.len() > depth {
            if let Some(o) = self.stack.pop() {
                fs::futimens(&o.fd, &times(o.mtime)).io(|| format!("change the times of {}", shown(&o.name)))?;
            }
        }
        Ok(())
    }

    /// Finishes all directories.
    pub(super) fn close(mut self) -> Result<()> {
        self.leave(0)?;
        fs::futimens(&self.root, &times(self.root_mtime)).io(|| "change the times of the image's root")
    }

    /// What `name` is in the directory entered last; symlinks are not followed.
    pub(super) fn existing(&self, name: &[u8]) -> Result<Existing> {
        match fs::statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => Ok(Existing::Directory),
            Ok(_) => Ok(Existing::Other),
            Err(Errno::NOENT) => Ok(Existing::Nothing),
            Err(e) => Err(Error::io(format!("stat {}", shown(name)), e)),
        }
    }

    /// Removes `name` from the directory entered last, with everything in it.
    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        let removed = match self.existing(name)? {
            Existing::Nothing => Ok(()),
            Existing::Other => fs::unlinkat(self.current(), name, AtFlags::empty()).map_err(Into::into),
            // The standard library's walk holds descriptors and follows no symlink; the path to its start is our own descriptor.
            Existing::Directory => std::fs::remove_dir_all(self.proc_path(name)),
        };
        removed.io(|| format!("remove {}", shown(name)))
    }

    /// Empties the directory entered last.
    pub(super) fn empty(&self) -> Result<()> {
        let what = "list a directory of the image";
        for entry in fs::Dir::read_from(self.current()).io(|| what)? {
            let entry = entry.io(|| what)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// A path to `name` in the directory entered last, for calls that take no descriptor.
    pub(super) fn proc_path(&self, name: &[u8]) -> std::path::PathBuf {
        use std::os::unix::ffi::OsStrExt;
        Path::new("/proc/self/fd").join(self.current().as_raw_fd().to_string()).join(std::ffi::OsStr::from_bytes(name))
    }

    /// Opens the directory at `parts` for reading, without changing the stack; `None` if it is missing, not a directory, or behind a symlink.
    pub(super) fn look_up(&self, parts: &[&[u8]]) -> Result<Option<OwnedFd>> {
        let path = if parts.is_empty() { b".".to_vec() } else { joined(parts) };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.root, path.as_slice(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(e) => Err(Error::io(format!("open {}", shown(&path)), e)),
        }
    }
}
