//! Attributes of files, and the space of the file system.

use super::Core;
use crate::caller::without_fsetid;
use crate::nodes::{NEVER, NodeKind};
use crate::recognise::{proc_path, reopen};
use crate::table::Node;
use fuser::{FileAttr, INodeNo, TimeOrNow};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The attributes to change.
pub(super) struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
}

#[allow(clippy::cast_sign_loss)]
fn time(seconds: i64, nanos: u64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos);
    if seconds >= 0 { UNIX_EPOCH + Duration::from_secs(seconds as u64) + nanos } else { UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanos }
}

pub(super) fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        _ => fuser::FileType::RegularFile,
    }
}

/// The attributes of a node: those of its backing inode, with the number of the node.
#[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
pub(super) fn attr(id: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(id),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: file_type(FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

fn timespec(t: Option<TimeOrNow>) -> Timespec {
    match t {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(t)) => match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Timespec { tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(d.subsec_nanos()) },
            // `fuser` 0.18 subtracts both parts from the epoch. The kernel subtracts the seconds and adds the nanoseconds.
            Err(before) => {
                let d = before.duration();
                Timespec { tv_sec: -i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(d.subsec_nanos()) }
            }
        },
    }
}

impl Core {
    /// The attributes of the root of several volumes, which contains only the volumes.
    fn volumes_root(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo(1),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: fuser::FileType::Directory,
            perm: if self.group.is_some() { 0o710 } else { 0o755 },
            nlink: 2,
            uid: 0,
            gid: self.group.unwrap_or(0),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    pub(super) fn getattr(&self, tid: u32, id: u64, fh: Option<u64>) -> Result<(Duration, FileAttr), Errno> {
        if !self.single && id == 1 {
            return Ok((NEVER, self.volumes_root()));
        }
        if let Some(handle) = fh.and_then(|fh| self.table.handle(fh).ok()) {
            let stat = rustix::fs::fstat(handle.file())?;
            return Ok((handle.node.attr_ttl(&stat), attr(id, &stat)));
        }
        let node = self.table.node(id)?;
        let stat = node.stat()?;
        Ok((node.attr_ttl(&stat), attr(self.shown_as(tid, &node), &stat)))
    }

    /// The inode number for a thread. If its process has a database open several times, it is that of its own connection.
    fn shown_as(&self, tid: u32, node: &Node) -> u64 {
        let holder = || self.locks.connection_of(&self.table.locked_already(node)?, tid);
        // An empty file may become a database.
        let may_be_database = self.node_per_connection && matches!(node.kind(), NodeKind::Database | NodeKind::Plain);
        let number = if may_be_database { node.connections.look(tid, holder) } else { None };
        number.unwrap_or(node.id)
    }

    pub(super) fn setattr(&self, id: u64, fh: Option<u64>, change: &Change) -> Result<(Duration, FileAttr), Errno> {
        if !self.single && id == 1 {
            return Err(Errno::PERM);
        }
        let node = self.table.node(id)?;
        let open = fh.and_then(|fh| self.table.handle(fh).ok()).filter(|h| !h.read_only);
        // An open file can be changed even if its volume was removed.
        let path = if open.is_some() || node.is_open() { node.own_path() } else { node.path()? };
        if change.uid.is_some() || change.gid.is_some() {
            let uid = change.uid.map(rustix::fs::Uid::from_raw);
            let gid = change.gid.map(rustix::fs::Gid::from_raw);
            rustix::fs::chownat(&*path, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = change.mode {
            rustix::fs::chmod(proc_path(&path), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if let Some(size) = change.size {
            without_fsetid(|| match open {
                Some(handle) => rustix::fs::ftruncate(handle.file(), size),
                None => rustix::fs::ftruncate(reopen(&path, OFlags::WRONLY)?, size),
            })?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps { last_access: timespec(change.atime), last_modification: timespec(change.mtime) };
            rustix::fs::utimensat(&*path, "", &times, AtFlags::EMPTY_PATH)?;
        }
        let stat = node.stat()?;
        Ok((node.attr_ttl(&stat), attr(id, &stat)))
    }

    pub(super) fn statfs(&self, id: u64) -> Result<StatVfs, Errno> {
        if !self.single && id == 1 {
            let volumes = self.volumes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            return match volumes.values().next() {
                Some(v) => rustix::fs::fstatvfs(&*v.backing().root),
                None => rustix::fs::statvfs("/"),
            };
        }
        rustix::fs::fstatvfs(&*self.table.node(id)?.path()?)
    }
}
