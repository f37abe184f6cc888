//! Copying a name with everything in it into another tree of the same pool, by reflink: no data are read or written, and both share their extents.
//!
//! **Kept**: owner, mode with its set-id and sticky bits, times to the nanosecond, extended attributes with ACLs and capabilities, flags (see
//! [`attributes`](super::attributes) for the exceptions), holes (not space that is reserved beyond a file's end), devices and FIFOs as they are, and hard links among all that one [`Copier`] copies. A nested
//! subvolume arrives as a plain directory with its content: a subvolume cannot be put in the place of a name in one step.
//!
//! **The source** is a tree that nobody changes, such as a snapshot. **The target** is a directory that nobody else changes until the copy is in its place: an
//! unfinished copy has everything in it, but not yet its owners and modes at every level.
//!
//! Names are looked up one at a time in open directories and never followed; a directory is found again by its inode number. So no depth is too deep, and only
//! two directories are open at a time. Memory: the names of the directories on the way down, and one entry for each file with several names.
//!
//! A copy that fails leaves what it has made: [`remove`](super::remove::remove) takes it away.

use super::attributes::{Attributes, By};
use super::dir_id::{DirId, names};
use super::place::Place;
use crate::error::{IoContext, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// How much is copied at a time where extents cannot be shared.
const PIECE: u64 = 1 << 20;

/// The first copy of a file with several names.
struct FirstName {
    dir: DirId,
    name: CString,
    inode: u64,
}

/// Copies names. What it copies is linked with each other as the sources are.
pub struct Copier<'a> {
    /// Any directory of the pool.
    pool: BorrowedFd<'a>,
    /// Asked before each name: an error ends the copy.
    go_on: &'a dyn Fn() -> Result<()>,
    /// By device and inode number of the source.
    links: HashMap<(u64, u64), FirstName>,
}

/// A directory on the way down.
struct Level {
    source: DirId,
    target: DirId,
    attributes: Attributes,
    /// What is left to copy in it.
    names: Vec<CString>,
}

/// A pair of directories that are open.
struct Pair {
    source: OwnedFd,
    target: OwnedFd,
}

impl<'a> Copier<'a> {
    /// `pool` is any directory of the file system of both trees. `go_on` is asked before each name.
    #[must_use]
    pub fn new(pool: BorrowedFd<'a>, go_on: &'a dyn Fn() -> Result<()>) -> Self {
        Copier { pool, go_on, links: HashMap::new() }
    }

    /// Copies `from` with everything in it to `to`, which must not exist. Cost: a few system calls a name; the size of files costs nothing.
    ///
    /// # Errors
    /// `pool_full`, `disk_limit_reached`, `io` (also when `from` does not exist); what `go_on` says.
    pub fn copy(&mut self, from: Place<'_>, to: Place<'_>) -> Result<()> {
        let Some((top, mut pair)) = self.name(from.dir, from.name, to.dir, to.name)? else { return Ok(()) };
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                level.attributes.give(By::Open(pair.target.as_fd()))?;
                levels.pop();
                if let Some(above) = levels.last() {
                    pair = Pair {
                        source: above.source.open(self.pool).io(|| "open a directory that is copied")?,
                        target: above.target.open(self.pool).io(|| "open a copy of a directory")?,
                    };
                }
                continue;
            };
            if let Some((below, open)) = self.name(pair.source.as_fd(), &name, pair.target.as_fd(), &name)? {
                levels.push(below);
                pair = open;
            }
        }
        Ok(())
    }

    /// Makes the directory `to` with the attributes of the open directory `from` and nothing in it.
    ///
    /// # Errors
    /// As for [`Copier::copy`].
    pub fn copy_empty(&mut self, from: BorrowedFd<'_>, to: Place<'_>) -> Result<OwnedFd> {
        let (attributes, target) = self.directory(from, to.dir, to.name)?;
        attributes.give(By::Open(target.as_fd()))?;
        Ok(target)
    }

    /// Copies one name. A directory is made and not filled: what is left to do is returned.
    fn name(&mut self, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &CStr) -> Result<Option<(Level, Pair)>> {
        (self.go_on)()?;
        let what = || format!("copy {name:?}");
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).io(what)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty()).io(what)?;
            let (attributes, target) = self.directory(source.as_fd(), to, new).map_err(|e| e.context(what()))?;
            let level = Level { source: DirId::of(source.as_fd())?, target: DirId::of(target.as_fd())?, attributes, names: names(source.as_fd())? };
            return Ok(Some((level, Pair { source, target })));
        }
        let several = stat.st_nlink > 1;
        if several && self.link(&stat, to, new).io(what)? {
            return Ok(None);
        }
        match kind {
            FileType::RegularFile => self.file(from, name, to, new),
            _ => self.special(kind, &stat, from, name, to, new),
        }
        .map_err(|e| e.context(what()))?;
        if several {
            let inode = rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW).io(what)?.st_ino;
            self.links.insert((stat.st_dev, stat.st_ino), FirstName { dir: DirId::of(to)?, name: new.to_owned(), inode });
        }
        Ok(None)
    }

    fn directory(&mut self, source: BorrowedFd<'_>, to: BorrowedFd<'_>, new: &CStr) -> Result<(Attributes, OwnedFd)> {
        let attributes = Attributes::of(By::Open(source))?;
        // Nobody else's until it has its owner and mode.
        rustix::fs::mkdirat(to, new, Mode::RWXU).io(|| "make a directory")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, new, flags, Mode::empty()).io(|| "open a new directory")?;
        attributes.prepare(By::Open(target.as_fd()))?;
        Ok((attributes, target))
    }

    /// Links to the copy that was made of the same file, if there is one; whether it did.
    fn link(&self, stat: &rustix::fs::Stat, to: BorrowedFd<'_>, new: &CStr) -> std::io::Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        let Ok(dir) = first.dir.open(self.pool) else { return Ok(false) };
        match rustix::fs::linkat(&dir, &first.name, to, new, AtFlags::empty()) {
            Ok(()) => {}
            // It is in another subvolume, has as many names as it can have, or was moved away: then this name gets a copy of its own.
            Err(Errno::XDEV | Errno::MLINK | Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        if rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW)?.st_ino == first.inode {
            return Ok(true);
        }
        rustix::fs::unlinkat(to, new, AtFlags::empty())?;
        Ok(false)
    }

    fn file(&self, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &CStr) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty()).io(|| "open it")?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = File::from(rustix::fs::openat(to, new, flags, Mode::RUSR | Mode::WUSR).io(|| "make a file")?);
        let attributes = Attributes::of(By::Open(source.as_fd()))?;
        attributes.prepare(By::Open(target.as_fd()))?;
        if attributes.stat.st_size > 0 {
            match rustix::fs::ioctl_ficlone(&target, &source) {
                // Files with checksums and files without (`chattr +C`) share no extents, and the flag does not always tell which it is.
                Err(Errno::INVAL) => {
                    self.data(&source, &target, &attributes)?;
                    // Shared extents are on the disk and become part of the file with a transaction. Data that were written are neither until they are synced.
                    target.sync_all().io(|| "write out its data")?;
                }
                done => done.io(|| "share its data")?,
            }
        }
        attributes.give(By::Open(target.as_fd()))
    }

    /// Copies the data that extents cannot be shared for; holes stay holes.
    fn data(&self, source: &File, target: &File, attributes: &Attributes) -> Result<()> {
        let what = || "copy its data";
        let size = attributes.stat.st_size.cast_unsigned();
        let mut piece = vec![0; usize::try_from(PIECE.min(size)).unwrap_or_default()];
        let mut at = 0;
        while at < size {
            let begin = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                begin => begin.io(what)?,
            };
            let end = rustix::fs::seek(source, SeekFrom::Hole(begin)).io(what)?.min(size);
            at = begin;
            while at < end {
                (self.go_on)()?;
                let n = usize::try_from((end - at).min(PIECE)).unwrap_or_default();
                source.read_exact_at(&mut piece[..n], at).io(what)?;
                target.write_all_at(&piece[..n], at).io(what)?;
                at += n as u64;
            }
        }
        target.set_len(size).io(what)
    }

    /// A link, FIFO, socket or device: made anew and never opened.
    fn special(&self, kind: FileType, stat: &rustix::fs::Stat, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &CStr) -> Result<()> {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, path, Mode::empty()).io(|| "look it up")?;
        if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&source, "", Vec::new()).io(|| "read a symbolic link")?;
            rustix::fs::symlinkat(target, to, new).io(|| "make a symbolic link")?;
        } else {
            rustix::fs::mknodat(to, new, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev).io(|| "make it")?;
        }
        let target = rustix::fs::openat(to, new, path, Mode::empty()).io(|| "look up what was made")?;
        let attributes = Attributes::of(By::Path(source.as_fd()))?;
        attributes.prepare(By::Path(target.as_fd()))?;
        attributes.give(By::Path(target.as_fd()))
    }
}
