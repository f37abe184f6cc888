//! The file system for `fuser`: each request finds its node and is passed to the module for its kind.

mod attributes;
mod data;
mod directories;
mod entries;
mod flags;
mod locking;
mod requests;
mod xattrs;

use crate::cpu_latency::CpuLatency;
use crate::descriptors::{Descriptors, Purpose, Taken};
use crate::locks::{Busy, LockService};
use crate::sync_pool::SyncPool;
use crate::table::{Node, Table};
use crate::volume::Volume;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use requests::{Kind, Requests};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Generations only matter for NFS, which is not supported.
const GENERATION: fuser::Generation = fuser::Generation(0);

/// How soon more names are forgotten, if that was not enough, and how many times.
const FORGET_AGAIN: Duration = Duration::from_millis(10);
const FORGET_ROUNDS: u32 = 20;
/// How many names are forgotten at a time: few enough that look-ups do not wait long.
const FORGET_AT_ONCE: usize = 4096;

/// The state that the event loops and the control socket share.
pub(crate) struct Core {
    pub table: Table,
    pub locks: Arc<LockService>,
    pub sync: SyncPool,
    /// Threads for requests that read or write much.
    pub bulk: SyncPool,
    /// Whether the kernel reads, writes and maps the backing files itself.
    pub passthrough: AtomicBool,
    /// Whether each connection of a process has its own node.
    pub node_per_connection: bool,
    /// The volumes by name. If `single`, the only one is the root.
    pub volumes: RwLock<BTreeMap<OsString, Arc<Volume>>>,
    pub single: bool,
    /// The group that may enter the root of volumes, besides root; `None`: everybody.
    pub group: Option<u32>,
    pub latency: CpuLatency,
    /// Makes the kernel forget names. It is set once the mount exists.
    pub notifier: OnceLock<Notifier>,
    /// With more nodes than this, unused names are forgotten: each node has a descriptor.
    pub most_nodes: usize,
    pub forgetting: AtomicBool,
    /// The limits of descriptors.
    pub descriptors: Descriptors,
    /// The numbers of requests so far.
    pub requests: Requests,
    /// Set when the kernel sends no more requests.
    pub ended: Ended,
}

/// A flag that is set once and can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Ended(Mutex<bool>, Condvar);

impl Ended {
    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    pub fn wait(&self) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            ended = self.1.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Core {
    /// If there are too many nodes, makes the kernel forget unused names. This happens on another thread, because the kernel may need an answer from this one
    /// for it.
    fn forget_unused(self: &Arc<Self>) {
        if self.table.len() <= self.most_nodes || self.forgetting.swap(true, Ordering::Relaxed) {
            return;
        }
        let core = self.clone();
        self.bulk.run(move || {
            for _ in 0..FORGET_ROUNDS {
                for (directory, name) in core.table.unused((core.most_nodes / 4 + 1).min(FORGET_AT_ONCE)) {
                    if let Some(notifier) = core.notifier.get() {
                        // The name may be forgotten already.
                        let _ = notifier.inval_entry(INodeNo(directory), &name);
                    }
                }
                // The kernel reports a little later what it has forgotten. Some names may be in use.
                std::thread::sleep(FORGET_AGAIN);
                if core.table.len() <= core.most_nodes {
                    break;
                }
            }
            core.forgetting.store(false, Ordering::Relaxed);
        });
    }

    /// Checks that the volume of the node may use one more descriptor.
    fn admit(&self, node: &Node, purpose: Purpose) -> Result<(), Errno> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner).len();
        self.descriptors.admit(&node.volume, volumes, purpose)
    }

    /// Counts one more descriptor for an open file of the volume of the node.
    fn take_open(&self, node: &Node) -> Result<Taken, Errno> {
        self.admit(node, Purpose::Open)?;
        Ok(Taken::new(&node.volume, Purpose::Open))
    }

    /// Counts a request on an event loop.
    fn begin(&self, kind: Kind) -> Busy<'_> {
        self.requests.count(kind);
        let busy = self.locks.busy();
        self.latency.request(busy.since());
        busy
    }

    /// Runs a job that may free many blocks of the disk, which can take long. If somebody waits for a lock, it runs on another thread.
    fn slowly(&self, job: impl FnOnce() + Send + 'static) {
        if self.locks.somebody_waits() { self.sync.run(job) } else { job() }
    }
}

/// The file system.
pub(crate) struct DatabaseFs(pub Arc<Core>);

fn fail(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}

/// Sends the result.
macro_rules! answer {
    ($reply:ident, $result:expr, $ok:pat => $send:expr) => {
        match $result {
            Ok($ok) => $send,
            Err(e) => $reply.error(fail(e)),
        }
    };
}

impl Filesystem for DatabaseFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let want = InitFlags::FUSE_POSIX_LOCKS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_HAS_IOCTL_DIR
            | InitFlags::FUSE_NO_EXPORT_SUPPORT;
        if let Err(missing) = config.add_capabilities(want) {
            let there = want & !missing;
            tracing::info!("this kernel's FUSE lacks {missing:?}");
            let _ = config.add_capabilities(there);
        }
        if self.0.passthrough.load(Ordering::Relaxed) {
            let ok = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok();
            if !ok {
                tracing::warn!(
                    "this kernel has no FUSE passthrough: reads and writes go through the page cache, and threads of one process lock each other out as natively"
                );
                self.0.passthrough.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.0.ended.set();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _busy = self.0.begin(Kind::Lookup);
        match self.0.lookup(parent.0, name) {
            Ok(e) => e.send(reply),
            Err(Errno::NOENT) => entries::absent(name, reply),
            Err(e) => reply.error(fail(e)),
        }
        self.0.forget_unused();
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let _busy = self.0.begin(Kind::Forget);
        self.0.table.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let _busy = self.0.begin(Kind::Getattr);
        answer!(reply, self.0.getattr(req.pid(), ino.0, fh.map(|f| f.0)), (ttl, attr) => reply.attr(&ttl, &attr));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _busy = self.0.begin(Kind::Setattr);
        let change = attributes::Change { mode, uid, gid, size, atime, mtime };
        let core = self.0.clone();
        let set = move || answer!(reply, core.setattr(ino.0, fh.map(|f| f.0), &change), (ttl, attr) => reply.attr(&ttl, &attr));
        if size.is_some() { self.0.slowly(set) } else { set() }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.readlink(ino.0), text => reply.data(&text));
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let _busy = self.0.begin(Kind::Make);
        answer!(reply, self.0.mknod(req, parent.0, name, mode, umask, rdev), e => e.send(reply));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _busy = self.0.begin(Kind::Make);
        answer!(reply, self.0.mkdir(req, parent.0, name, mode, umask), e => e.send(reply));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _busy = self.0.begin(Kind::Make);
        answer!(reply, self.0.symlink(req, parent.0, name, target), e => e.send(reply));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Unlink);
        let (core, name) = (self.0.clone(), name.to_owned());
        self.0.slowly(move || answer!(reply, core.unlink(parent.0, &name, false), () => reply.ok()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Unlink);
        answer!(reply, self.0.unlink(parent.0, name, true), () => reply.ok());
    }

    fn rename(&self, _req: &Request, parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Rename);
        let (core, name, new) = (self.0.clone(), name.to_owned(), newname.to_owned());
        self.0.slowly(move || answer!(reply, core.rename(parent.0, &name, newparent.0, &new, flags.bits()), () => reply.ok()));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let _busy = self.0.begin(Kind::Make);
        answer!(reply, self.0.link(ino.0, newparent.0, newname), e => e.send(reply));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _busy = self.0.begin(Kind::Open);
        self.0.open(req.pid(), ino.0, flags.0, reply);
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let _busy = self.0.begin(Kind::Create);
        self.0.create(req, parent.0, name, mode, umask, flags, reply);
        self.0.forget_unused();
    }

    fn read(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, size: u32, _flags: OpenFlags, _owner: Option<LockOwner>, reply: ReplyData) {
        let _busy = self.0.begin(Kind::Read);
        answer!(reply, self.0.read(fh.0, offset, size), data => reply.data(&data));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _busy = self.0.begin(Kind::Write);
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        answer!(reply, self.0.write(fh.0, offset, data, kill), n => reply.written(n));
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Flush);
        self.0.flush(ino.0, fh.0, lock_owner.0);
        reply.ok();
    }

    fn release(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, _owner: Option<LockOwner>, _flush: bool, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Release);
        self.0.release(fh.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Fsync);
        self.0.fsync(fh.0, datasync, reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _busy = self.0.begin(Kind::Opendir);
        answer!(reply, self.0.opendir(ino.0), fh => reply.opened(FileHandle(fh), fuser::FopenFlags::empty()));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _busy = self.0.begin(Kind::Readdir);
        answer!(reply, self.0.readdir(ino.0, fh.0, offset, &mut reply), () => reply.ok());
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Release);
        self.0.table.remove_handle(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Fsyncdir);
        self.0.fsync(fh.0, datasync, reply);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.statfs(ino.0), s => {
            let small = |v: u64| u32::try_from(v).unwrap_or(u32::MAX);
            reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, small(s.f_bsize), small(s.f_namemax), small(s.f_frsize));
        });
    }

    fn setxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.setxattr(req, ino.0, name, value, flags), () => reply.ok());
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _busy = self.0.begin(Kind::Other);
        xattrs::send(reply, size, self.0.getxattr(ino.0, name));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _busy = self.0.begin(Kind::Other);
        xattrs::send(reply, size, self.0.listxattr(ino.0));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.removexattr(ino.0, name), () => reply.ok());
    }

    fn getlk(&self, req: &Request, ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32, reply: ReplyLock) {
        let _busy = self.0.begin(Kind::Other);
        let call = locking::call(req, ino.0, fh.0, lock_owner.0, (start, end), typ, pid, false, self.0.node_per_connection);
        answer!(reply, self.0.getlk(call), c => match c {
            Some(c) => reply.locked(c.start, c.end, c.kind, c.pid),
            None => reply.locked(start, end, nix::libc::F_UNLCK, 0),
        });
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let _busy = self.0.begin(if typ == nix::libc::F_UNLCK { Kind::Unlock } else { Kind::Lock });
        self.0.setlk(locking::call(req, ino.0, fh.0, lock_owner.0, (start, end), typ, pid, sleep, self.0.node_per_connection), reply);
    }

    fn fallocate(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let _busy = self.0.begin(Kind::Other);
        self.0.fallocate(fh.0, offset, length, mode, reply);
    }

    fn lseek(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.lseek(fh.0, offset, whence), at => reply.offset(at));
    }

    fn ioctl(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: fuser::IoctlFlags, cmd: u32, data: &[u8], _out: u32, reply: fuser::ReplyIoctl) {
        let _busy = self.0.begin(Kind::Other);
        answer!(reply, self.0.table.handle(fh.0).map_err(|_| Errno::NOTTY).and_then(|h| flags::call(h.file(), cmd, data)), said => reply.ioctl(0, &said));
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _busy = self.0.begin(Kind::Other);
        self.0.copy((fh_in.0, offset_in), (fh_out.0, offset_out), len, reply);
    }
}
