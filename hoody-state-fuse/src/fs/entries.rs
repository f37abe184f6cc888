//! Names: look-up, creation, links, renaming and removal.

use super::{Core, GENERATION, attributes};
use crate::caller::AsCaller;
use crate::descriptors::Purpose;
use crate::nodes::{LONG, NEVER, NodeKind, journal};
use crate::recognise;
use crate::table::Node;
use fuser::{FileAttr, INodeNo, ReplyEntry, Request};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The node of a name, in the form for the kernel.
pub(super) struct Entry {
    pub node: Arc<Node>,
    pub attr: FileAttr,
    pub entry_ttl: Duration,
    pub attr_ttl: Duration,
}

impl Entry {
    pub fn send(self, reply: ReplyEntry) {
        reply.entry_with_ttls(&self.attr_ttl, &self.entry_ttl, &self.attr, GENERATION);
    }
}

/// The answer for a name that does not exist. The kernel may cache it, because names only appear through the mount; but not that of a journal, which a process
/// may leave that uses the database in the backing directory.
pub(super) fn absent(name: &OsStr, reply: ReplyEntry) {
    let none = FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: std::time::UNIX_EPOCH,
        mtime: std::time::UNIX_EPOCH,
        ctime: std::time::UNIX_EPOCH,
        crtime: std::time::UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    };
    let ttl = if name.as_bytes().ends_with(journal::SUFFIX.as_bytes()) { NEVER } else { LONG };
    reply.entry(&ttl, &none, GENERATION);
}

impl Core {
    /// The directory of a name. The root of several volumes cannot be changed.
    fn parent(&self, id: u64) -> Result<Arc<Node>, Errno> {
        if !self.single && id == 1 { Err(Errno::PERM) } else { self.table.node(id) }
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        if !self.single && parent == 1 {
            let volumes = self.volumes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let volume = volumes.get(name).ok_or(Errno::NOENT)?;
            let node = self.table.node(volume.root_node)?;
            let attr = attributes::attr(node.id, &node.stat()?);
            return Ok(Entry { node, attr, entry_ttl: NEVER, attr_ttl: LONG });
        }
        let parent = self.table.node(parent)?;
        let dir = parent.path()?;
        let path = openat(&*dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.enter(&parent, &dir, name, path)
    }

    /// The node of the file that was opened as `name`; it is created if there is none.
    pub(super) fn enter(&self, parent: &Node, dir: &Arc<OwnedFd>, name: &OsStr, path: OwnedFd) -> Result<Entry, Errno> {
        let stat = rustix::fs::fstat(&path)?;
        let known = |dev, ino| self.table.locked_by_inode(dev, ino).map(|file| self.locks.is_database(&file));
        let kind = recognise::kind(dir.as_fd(), name, &path, &stat, &known);
        if self.table.by_inode(parent, &stat).is_none() {
            self.admit(parent, Purpose::Known)?;
        }
        let node = self.table.enter(parent, name, kind, path, &stat);
        if matches!(kind, NodeKind::Database | NodeKind::Shm) {
            let locked = self.table.locked(&node)?;
            locked.set_place(dir.clone(), name.to_owned());
        }
        let attr = attributes::attr(node.id, &stat);
        let may_become_database = kind == NodeKind::Plain && stat.st_size == 0;
        let entry_ttl = if may_become_database { NEVER } else { kind.policy().entry_ttl };
        let attr_ttl = node.attr_ttl(&stat);
        Ok(Entry { node, attr, entry_ttl, attr_ttl })
    }

    fn made(&self, parent: &Node, dir: &Arc<OwnedFd>, name: &OsStr) -> Result<Entry, Errno> {
        let path = openat(&**dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.enter(parent, dir, name, path)
    }

    pub(super) fn mknod(&self, req: &Request, parent: u64, name: &OsStr, mode: u32, umask: u32, rdev: u32) -> Result<Entry, Errno> {
        let parent = self.parent(parent)?;
        let dir = parent.path()?;
        {
            let _as = AsCaller::new(req.uid(), req.gid(), umask);
            let kind = FileType::from_raw_mode(mode);
            if kind == FileType::RegularFile {
                openat(&*dir, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::from_raw_mode(mode))?;
            } else {
                rustix::fs::mknodat(&*dir, name, kind, Mode::from_raw_mode(mode), u64::from(rdev))?;
            }
        }
        self.made(&parent, &dir, name)
    }

    pub(super) fn mkdir(&self, req: &Request, parent: u64, name: &OsStr, mode: u32, umask: u32) -> Result<Entry, Errno> {
        let parent = self.parent(parent)?;
        let dir = parent.path()?;
        {
            let _as = AsCaller::new(req.uid(), req.gid(), umask);
            rustix::fs::mkdirat(&*dir, name, Mode::from_raw_mode(mode))?;
        }
        self.made(&parent, &dir, name)
    }

    pub(super) fn symlink(&self, req: &Request, parent: u64, name: &OsStr, target: &Path) -> Result<Entry, Errno> {
        let parent = self.parent(parent)?;
        let dir = parent.path()?;
        {
            let _as = AsCaller::new(req.uid(), req.gid(), 0);
            rustix::fs::symlinkat(target, &*dir, name)?;
        }
        self.made(&parent, &dir, name)
    }

    pub(super) fn readlink(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let path = self.table.node(id)?.path()?;
        Ok(rustix::fs::readlinkat(&*path, "", Vec::new())?.into_bytes())
    }

    pub(super) fn unlink(&self, parent: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let dir = self.parent(parent)?.path()?;
        rustix::fs::unlinkat(&*dir, name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }

    pub(super) fn rename(&self, from: u64, name: &OsStr, to: u64, new_name: &OsStr, flags: u32) -> Result<(), Errno> {
        let (from, to) = (self.parent(from)?, self.parent(to)?);
        if from.volume.id != to.volume.id {
            return Err(Errno::XDEV);
        }
        let flags = rustix::fs::RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        rustix::fs::renameat_with(&*from.path()?, name, &*to.path()?, new_name, flags)
    }

    pub(super) fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        let (node, parent) = (self.table.node(id)?, self.parent(parent)?);
        if node.volume.id != parent.volume.id {
            return Err(Errno::XDEV);
        }
        let dir = parent.path()?;
        rustix::fs::linkat(&*node.path()?, "", &*dir, name, AtFlags::EMPTY_PATH)?;
        // The kernel links its own inode, so it must get the same node.
        let stat: Stat = node.stat()?;
        let policy = node.kind().policy();
        let again = self.table.enter_again(node.id).ok_or(Errno::STALE)?;
        let attr = attributes::attr(again.id, &stat);
        Ok(Entry { node: again, attr, entry_ttl: policy.entry_ttl, attr_ttl: NEVER })
    }
}
