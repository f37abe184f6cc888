//! Open files: opening them, and the requests that the kernel sends even with passthrough.

use super::entries::Entry;
use super::{Core, GENERATION, fail};
use crate::backing_file::BackingFile;
use crate::caller::{AsCaller, without_fsetid};
use crate::connections::inherits;
use crate::descriptors::{Purpose, Taken};
use crate::locks::{Class, process_of};
use crate::nodes::NodeKind;
use crate::recognise::{Content, content, has_database_name, proc_path, reopen};
use crate::table::{Handle, Node};
use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, ReplyCreate, ReplyEmpty, ReplyOpen, ReplyWrite, Request};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The flags to open the backing file with. The kernel handles appending and bypassing caches itself.
fn backing_flags(flags: i32) -> OFlags {
    #[allow(clippy::cast_sign_loss)]
    let flags = OFlags::from_bits_retain(flags as u32);
    let mode = flags & OFlags::RWMODE;
    // 3 is for ioctl only.
    let mode = if mode == OFlags::RWMODE { OFlags::RDWR } else { mode };
    mode | (flags & (OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC | OFlags::NOATIME)) | OFlags::CLOEXEC
}

/// Whether SQLite may have opened a file with these flags: it never appends, truncates, or opens a database write-only.
fn may_be_sqlite(flags: i32) -> bool {
    flags & (nix::libc::O_APPEND | nix::libc::O_TRUNC) == 0 && flags & nix::libc::O_ACCMODE != nix::libc::O_WRONLY
}

/// The most that one request copies. The caller asks again for the rest, and can be killed in between.
const LONGEST_COPY: usize = 64 << 20;

fn fopen_flags(kind: NodeKind, passthrough: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if kind.policy().no_flush {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    // A database may have been changed in the backing directory since.
    if !passthrough && kind != NodeKind::Database {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

impl Core {
    /// The backing id of the node, created by the first open and shared by the others. `None` without passthrough.
    fn backing_id(&self, node: &Node, file: &File, open: impl Fn(&OwnedFd) -> std::io::Result<BackingId>) -> Result<Option<Arc<BackingId>>, Errno> {
        if !node.passes || !self.passthrough.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut slot = node.passthrough.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.1.is_none() {
            let fd = file.as_fd().try_clone_to_owned().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::MFILE))?;
            // It has the present credentials of this thread: writes through it must clear set-user-id bits.
            let id = without_fsetid(|| open(&fd)).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            slot.1 = Some(Arc::new(id));
        }
        slot.0 += 1;
        Ok(slot.1.clone())
    }

    fn end_backing(node: &Node) {
        let mut slot = node.passthrough.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = slot.0.saturating_sub(1);
        if slot.0 == 0 {
            slot.1 = None;
        }
    }

    fn handle_for(&self, tid: u32, node: &Arc<Node>, file: Arc<BackingFile>, flags: i32, passthrough: bool) -> u64 {
        let read_only = flags & nix::libc::O_ACCMODE == nix::libc::O_RDONLY;
        let reader = read_only || (node.kind() == NodeKind::Shm && self.opened_by_reader(tid, node));
        let empty = || node.kind() == NodeKind::Plain && file.file().metadata().is_ok_and(|m| m.len() == 0);
        let is_connection = self.node_per_connection && may_be_sqlite(flags) && (node.is_database() || empty());
        let fh = self.table.add_handle(Handle::new(node.clone(), file, read_only, reader, passthrough));
        if is_connection {
            node.connections.open(fh, tid, process_of(tid), inherits, || self.table.unused_number());
        }
        fh
    }

    /// Checks the kind of the file again: it may have changed since the look-up.
    fn recognise_again(&self, node: &Node, file: &File, flags: i32) -> Result<(), Errno> {
        let readable = flags & nix::libc::O_ACCMODE != nix::libc::O_WRONLY;
        let (parent, name) = node.place();
        let is_database = match node.kind() {
            NodeKind::Database => self.locks.is_database(&*self.table.locked(node)?),
            NodeKind::Plain if readable => match content(file) {
                Content::Database => true,
                Content::Empty => has_database_name(&name),
                Content::Other => false,
            },
            _ => return Ok(()),
        };
        if is_database == (node.kind() == NodeKind::Database) {
            return Ok(());
        }
        node.set_kind(if is_database { NodeKind::Database } else { NodeKind::Plain });
        if is_database {
            let locked = self.table.locked(node)?;
            locked.set_class(Class::Database);
            if let Ok(dir) = self.table.node(parent).and_then(|p| p.path()) {
                locked.set_place(dir, name);
            }
            // The kernel may still use cached attributes of an ordinary file.
            if let Some(notifier) = self.notifier.get() {
                let _ = notifier.inval_inode(INodeNo(node.id), -1, 0);
            }
        }
        Ok(())
    }

    /// Whether a `-shm` is opened by a connection that has its database open read-only. SQLite opens the `-shm` of such a connection for writing too, right
    /// after it has asked for the attributes of its open database, to give the `-shm` the same mode. That request shows which connection it is: the one that
    /// the thread locked with last. A writer that is taken for a reader would get BUSY, so no other connection of the process may be about to open its own
    /// `-shm`: none that can write, holds its database, and has no `-shm` yet.
    fn opened_by_reader(&self, tid: u32, shm: &Node) -> bool {
        if !self.node_per_connection {
            return false;
        }
        let looked = || {
            let place = self.table.locked_already(shm)?.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (dir, name) = place?;
            let name = OsStr::from_bytes(name.as_bytes().strip_suffix(crate::nodes::shm::SUFFIX.as_bytes())?);
            let stat = rustix::fs::statat(&*dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let node = self.table.by_inode(shm, &stat)?;
            let fh = node.connections.take_look(tid)?;
            Some((self.table.locked_already(&node)?, fh, self.table.handle(fh).ok()?))
        };
        let Some((database, fh, connection)) = looked() else { return false };
        let reader = connection.read_only
            && self.locks.connections_of_process(&database, tid).is_some_and(|mine| {
                let opens_now = |id: &u64| self.table.handle(*id).map_or(true, |h| !h.read_only && !h.has_shm.load(Ordering::Relaxed));
                mine.contains(&fh) && !mine.iter().any(opens_now)
            });
        connection.has_shm.store(true, Ordering::Relaxed);
        reader
    }

    pub(super) fn open(&self, tid: u32, id: u64, flags: i32, reply: ReplyOpen) {
        let opened = (|| {
            let node = self.table.node(id)?;
            let path = node.path()?;
            // An open that shares a descriptor uses none.
            let is_there = node.files.is_there(backing_flags(flags));
            let taken = if is_there { Taken::new(&node.volume, Purpose::Open) } else { self.take_open(&node)? };
            let file =
                if flags & nix::libc::O_TRUNC == 0 { reopen(&path, backing_flags(flags)) } else { without_fsetid(|| reopen(&path, backing_flags(flags))) };
            let file = File::from(file?);
            self.recognise_again(&node, &file, flags)?;
            let backing = self.backing_id(&node, &file, |fd| reply.open_backing(fd))?;
            let file = node.files.share(backing_flags(flags), BackingFile::new(file, taken));
            Ok((node, file, backing))
        })();
        match opened {
            Err(e) => reply.error(fail(e)),
            Ok((node, file, backing)) => {
                let fh = FileHandle(self.handle_for(tid, &node, file, flags, backing.is_some()));
                let flags = fopen_flags(node.kind(), backing.is_some());
                match backing {
                    Some(id) => reply.opened_passthrough(fh, flags, &id),
                    None => reply.opened(fh, flags),
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn create(&self, req: &Request, parent: u64, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let created = (|| {
            if !self.single && parent == 1 {
                return Err(Errno::PERM);
            }
            let parent = self.table.node(parent)?;
            let dir = parent.path()?;
            self.admit(&parent, Purpose::Known)?;
            let taken = self.take_open(&parent)?;
            #[allow(clippy::cast_sign_loss)]
            let exclusive = OFlags::from_bits_retain(flags as u32) & OFlags::EXCL;
            let file = {
                let _as = AsCaller::new(req.uid(), req.gid(), umask);
                let flags = backing_flags(flags) | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | exclusive;
                File::from(openat(&*dir, name, flags, Mode::from_raw_mode(mode & 0o7777))?)
            };
            // Exactly the file that was created: the name may lead to another by now.
            let fd = file.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            let path = openat(rustix::fs::CWD, proc_path(&fd), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let entry = self.enter(&parent, &dir, name, path)?;
            match self.backing_id(&entry.node, &file, |fd| reply.open_backing(fd)) {
                Ok(backing) => {
                    let file = entry.node.files.share(backing_flags(flags), BackingFile::new(file, taken));
                    Ok((entry, file, backing))
                }
                Err(e) => {
                    self.table.forget(entry.node.id, 1);
                    Err(e)
                }
            }
        })();
        match created {
            Err(e) => reply.error(fail(e)),
            Ok((Entry { node, attr, entry_ttl, attr_ttl }, file, backing)) => {
                let fh = FileHandle(self.handle_for(req.pid(), &node, file, flags, backing.is_some()));
                let flags = fopen_flags(node.kind(), backing.is_some());
                let ttl = entry_ttl.min(attr_ttl);
                match backing {
                    Some(id) => reply.created_passthrough(&ttl, &attr, GENERATION, fh, flags, &id),
                    None => reply.created(&ttl, &attr, GENERATION, fh, flags),
                }
            }
        }
    }

    pub(super) fn release(&self, fh: u64) {
        let Some(handle) = self.table.remove_handle(fh) else { return };
        if let Some(locked) = self.table.locked_already(&handle.node) {
            self.locks.release(&locked, fh);
        }
        handle.node.connections.close(fh);
        if handle.passthrough {
            Self::end_backing(&handle.node);
        }
    }

    pub(super) fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let handle = self.table.handle(fh)?;
        let mut data = vec![0; size as usize];
        let mut n = 0;
        while let Some(rest) = data.get_mut(n..).filter(|r| !r.is_empty()) {
            match rustix::io::pread(handle.file(), rest, offset + n as u64) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        data.truncate(n);
        Ok(data)
    }

    pub(super) fn write(&self, fh: u64, offset: u64, data: &[u8], kill: bool) -> Result<u32, Errno> {
        let handle = self.table.handle(fh)?;
        let write = || handle.file().write_at(data, offset).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
        let n = if kill { without_fsetid(write) } else { write() }?;
        Ok(u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// Syncs on another thread: the holder of a lock may wait for it, and lock requests must not.
    pub(super) fn fsync(&self, fh: u64, datasync: bool, reply: ReplyEmpty) {
        match self.table.handle(fh) {
            Err(e) => reply.error(fail(e)),
            Ok(handle) => self.sync.run(move || match handle.sync(datasync) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(fail(e)),
            }),
        }
    }

    /// Runs on another thread than syncs, because it may write much.
    pub(super) fn fallocate(&self, fh: u64, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        #[allow(clippy::cast_sign_loss)]
        let flags = FallocateFlags::from_bits(mode as u32).ok_or(Errno::OPNOTSUPP);
        match self.table.handle(fh).and_then(|h| Ok((h, flags?))) {
            Err(e) => reply.error(fail(e)),
            Ok((handle, flags)) => self.bulk.run(move || match without_fsetid(|| rustix::fs::fallocate(handle.file(), flags, offset, length)) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(fail(e)),
            }),
        }
    }

    pub(super) fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let handle = self.table.handle(fh)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match whence {
            nix::libc::SEEK_DATA => SeekFrom::Data(offset),
            nix::libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(handle.file(), to).and_then(|at| i64::try_from(at).map_err(|_| Errno::OVERFLOW))
    }

    /// Runs on another thread than syncs, because it may read and write much.
    pub(super) fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64, reply: ReplyWrite) {
        let (source, target) = match (self.table.handle(from.0), self.table.handle(to.0)) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(e), _) | (_, Err(e)) => return reply.error(fail(e)),
        };
        let len = usize::try_from(len).unwrap_or(LONGEST_COPY).min(LONGEST_COPY);
        self.bulk.run(move || {
            let (mut at, mut put) = (from.1, to.1);
            match without_fsetid(|| rustix::fs::copy_file_range(source.file(), Some(&mut at), target.file(), Some(&mut put), len)) {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) => reply.error(fail(e)),
            }
        });
    }
}
