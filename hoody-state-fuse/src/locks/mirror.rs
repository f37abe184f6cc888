//! The SQLite locks that users of the mount hold are also held on the backing file, as OFD locks, for processes that use the file in the backing directory.
//! Those wait for users of the mount, or are refused, as natively; and users of the mount wait for them.
//!
//! All users of the mount together are one owner, so a system call (half a microsecond) is only needed when what they hold together changes. A further reader
//! of the same bytes costs nothing.

use super::{Class, Conflict, LockedFile, Mutex};
use hoody_state::locked_db::broker::{LockKind, Range, Ranges, rules};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, flock};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{OnceLock, PoisonError};

/// The locks that are held on a backing file.
#[derive(Debug, Default)]
pub struct Mirror(Mutex<State>);

/// The socket to the process that keeps the locks if this one dies: OFD locks belong to the open file, which both have.
static KEEPER: OnceLock<OwnedFd> = OnceLock::new();

/// Lets the process at the other end of a socket keep the locks on backing files if this process dies. It gets each file (device, inode and a descriptor) when
/// locks are held on it, and only device and inode when there are none any more. This can be set once.
pub fn keep_with(socket: OwnedFd) {
    if KEEPER.set(socket).is_err() {
        tracing::warn!("a second keeper of locks is ignored");
    }
}

fn tell_keeper(file: BorrowedFd<'_>, holds: bool) {
    let (Some(keeper), Ok(stat)) = (KEEPER.get(), rustix::fs::fstat(file)) else { return };
    let mut inode = [0; 16];
    inode[..8].copy_from_slice(&stat.st_dev.to_ne_bytes());
    inode[8..].copy_from_slice(&stat.st_ino.to_ne_bytes());
    let (files, mut space) = ([file], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut with = SendAncillaryBuffer::new(&mut space);
    if holds {
        with.push(SendAncillaryMessage::ScmRights(&files));
    }
    // A keeper that has ended or is stopped must not delay anybody.
    let _ = sendmsg(keeper, &[IoSlice::new(&inode)], &mut with, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

#[derive(Debug, Default)]
struct State {
    held: Ranges,
    /// The file opened for writing, if `LockedFile::fd` is not. It is opened at the first lock.
    own: Option<Option<OwnedFd>>,
    /// Without passthrough, users of the mount see another content of a `-shm` than other processes do.
    alone: bool,
}

fn describe(range: Range, kind: i32) -> flock {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: SEEK_SET as i16,
        l_start: number(range.start),
        l_len: number(range.end - range.start + 1),
        l_pid: 0,
    }
}

fn number(kind: Option<LockKind>) -> i32 {
    match kind {
        None => F_UNLCK,
        Some(LockKind::Read) => F_RDLCK,
        Some(LockKind::Write) => F_WRLCK,
    }
}

/// The part of a range that SQLite locks.
fn of_sqlite(class: Class, range: Range) -> Option<Range> {
    let all = match class {
        Class::Plain => return None,
        Class::Database => rules::DATABASE,
        Class::Shm => Range::new(rules::WRITE.start, rules::DMS.end),
    };
    range.overlaps(all).then(|| Range::new(range.start.max(all.start), range.end.min(all.end)))
}

impl State {
    fn descriptor<'a>(&'a mut self, file: &'a LockedFile) -> BorrowedFd<'a> {
        use std::os::fd::AsFd as _;
        let own = self.own.get_or_insert_with(|| {
            let writable = fcntl(&file.fd, FcntlArg::F_GETFL).is_ok_and(|f| OFlag::from_bits_truncate(f) & OFlag::O_ACCMODE == OFlag::O_RDWR);
            // On a read-only file system nobody can write, and read locks are enough.
            if writable { None } else { crate::recognise::reopen(&file.fd, OFlags::RDWR).ok() }
        });
        own.as_ref().unwrap_or(&file.fd).as_fd()
    }

    /// The lock to hold on the file for the locks that users hold.
    fn kind(&self, class: Class, range: Range, kind: LockKind) -> LockKind {
        // Without passthrough a process that maps the `-shm` in the backing directory would see another content than users of the mount: it is refused.
        if self.alone && class == Class::Shm && range == rules::DMS { LockKind::Write } else { kind }
    }

    /// Returns false if another process holds a conflicting lock.
    fn set(&mut self, file: &LockedFile, range: Range, kind: Option<LockKind>) -> bool {
        let lock = describe(range, number(kind));
        match fcntl(self.descriptor(file), FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return false,
            // A file that cannot be written has no writers in the backing directory either.
            Err(Errno::EBADF) => {}
            Err(e) => tracing::warn!("the locks of users of the mount cannot be set on the backing file: {e}"),
        }
        let held_nothing = self.held.is_empty();
        self.held.set(range, kind);
        if held_nothing != self.held.is_empty() && KEEPER.get().is_some() {
            let holds = held_nothing;
            tell_keeper(self.descriptor(file), holds);
        }
        true
    }

    fn holds(&self, range: Range, kind: LockKind) -> bool {
        self.held.iter().any(|(held, k)| k == kind && range.within(held))
    }
}

impl LockedFile {
    fn mirror(&self) -> super::MutexGuard<'_, State> {
        self.mirror.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that passthrough does not work for this file.
    pub(crate) fn set_alone(&self) {
        self.mirror().alone = true;
    }

    /// Locks all of `range` for users. Returns false if a process in the backing directory holds a conflicting lock.
    pub(super) fn keep_others_out(&self, range: Range, kind: LockKind) -> bool {
        let class = self.class();
        let Some(range) = of_sqlite(class, range) else { return true };
        let mut state = self.mirror();
        let kind = state.kind(class, range, kind);
        state.holds(range, kind) || state.set(self, range, Some(kind))
    }

    /// Reduces the locks in `range` to `left`.
    pub(super) fn allow_others(&self, range: Range, left: &[(Range, LockKind)]) {
        let class = self.class();
        let Some(range) = of_sqlite(class, range) else { return };
        let mut state = self.mirror();
        if !state.held.holds(range) {
            return;
        }
        let kept: Vec<(Range, LockKind)> = left.iter().filter_map(|(r, k)| of_sqlite(class, *r).map(|r| (r, state.kind(class, r, *k)))).collect();
        for (part, kind) in parts(range, &kept) {
            let is_held = kind.map_or_else(|| !state.held.holds(part), |kind| state.holds(part, kind));
            if !is_held {
                state.set(self, part, kind);
            }
        }
    }

    /// The process in the backing directory that holds a conflicting lock.
    pub(super) fn in_the_way(&self, range: Range, kind: LockKind) -> Option<Conflict> {
        let range = of_sqlite(self.class(), range)?;
        let mut lock = describe(range, number(Some(kind)));
        fcntl(self.mirror().descriptor(self), FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
        let kind = i32::from(lock.l_type);
        let start = u64::try_from(lock.l_start).unwrap_or_default();
        let end = u64::try_from(lock.l_len).ok().filter(|n| *n > 0).map_or(u64::MAX, |n| start + n - 1);
        (kind != F_UNLCK).then(|| Conflict { start, end, kind, pid: u32::try_from(lock.l_pid).unwrap_or_default() })
    }
}

/// Splits a range into parts that are held in the same way. A write lock wins.
fn parts(range: Range, held: &[(Range, LockKind)]) -> Vec<(Range, Option<LockKind>)> {
    let mut starts = vec![range.start];
    starts.extend(held.iter().flat_map(|(r, _)| [r.start, r.end.saturating_add(1)]).filter(|at| range.start < *at && *at <= range.end));
    starts.sort_unstable();
    starts.dedup();
    let mut parts: Vec<(Range, Option<LockKind>)> = Vec::with_capacity(starts.len());
    for (i, start) in starts.iter().enumerate() {
        let part = Range::new(*start, starts.get(i + 1).map_or(range.end, |next| next - 1));
        let kind = held.iter().filter(|(r, _)| part.within(*r)).map(|(_, k)| *k).max();
        match parts.last_mut() {
            Some((last, k)) if *k == kind => last.end = part.end,
            _ => parts.push((part, kind)),
        }
    }
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_what_is_held_changes() {
        use LockKind::{Read, Write};
        let r = Range::new;
        assert_eq!(parts(r(0, 9), &[]), [(r(0, 9), None)]);
        assert_eq!(parts(r(0, 9), &[(r(0, 9), Read), (r(2, 3), Read)]), [(r(0, 9), Some(Read))]);
        assert_eq!(parts(r(0, 9), &[(r(2, 3), Write), (r(3, 20), Read)]), [(r(0, 1), None), (r(2, 3), Some(Write)), (r(4, 9), Some(Read))]);
    }
}
