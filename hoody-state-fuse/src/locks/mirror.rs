//! What the mount's users hold of SQLite's locks, held once more on the backing file itself: by an OFD lock, for processes that use the file beside the mount.
//! They wait for the mount's users, or are refused, as natively; and the mount's users wait for them.
//!
//! All users together are one owner, so there is a system call where what they hold together changes: half a microsecond. One of many readers of the same
//! bytes costs nothing.

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

/// What is held on a backing file.
#[derive(Debug, Default)]
pub struct Mirror(Mutex<State>);

/// Who keeps the locks when this process dies: the locks are an open file's, and it has the same.
static KEEPER: OnceLock<OwnedFd> = OnceLock::new();

/// Has the process at the other end of a socket keep the locks that are held on backing files, for when this process dies: it is sent each file (its device and
/// inode, and a descriptor) while locks are held on it, and device and inode alone when they have gone. Set once.
pub fn keep_with(socket: OwnedFd) {
    if KEEPER.set(socket).is_err() {
        tracing::warn!("a second keeper of locks was left out");
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
    // One that has gone or is stopped holds nobody up.
    let _ = sendmsg(keeper, &[IoSlice::new(&inode)], &mut with, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

#[derive(Debug, Default)]
struct State {
    held: Ranges,
    /// The file opened to write, where `LockedFile::fd` is not; looked for at the first lock.
    own: Option<Option<OwnedFd>>,
    /// Data do not pass through: what the mount's users see of a `-shm` is not what others see.
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

/// The part of a range that is SQLite's.
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
            // On a read-only file system nobody writes, and read locks do.
            if writable { None } else { crate::recognise::reopen(&file.fd, OFlags::RDWR).ok() }
        });
        own.as_ref().unwrap_or(&file.fd).as_fd()
    }

    /// What is to be held on the file for what is held by users.
    fn kind(&self, class: Class, range: Range, kind: LockKind) -> LockKind {
        // Whoever attaches to a `-shm` beside the mount is refused where he would see another than the mount's users do.
        if self.alone && class == Class::Shm && range == rules::DMS { LockKind::Write } else { kind }
    }

    /// False: somebody else is in the way.
    fn set(&mut self, file: &LockedFile, range: Range, kind: Option<LockKind>) -> bool {
        let lock = describe(range, number(kind));
        match fcntl(self.descriptor(file), FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return false,
            // A file that cannot be written has no writers beside the mount either.
            Err(Errno::EBADF) => {}
            Err(e) => tracing::warn!("what is locked by the mount's users is not locked on the file itself: {e}"),
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

    /// Data do not pass through to this file.
    pub(crate) fn set_alone(&self) {
        self.mirror().alone = true;
    }

    /// Users are about to hold this on all of `range`; false: somebody beside the mount is in the way.
    pub(super) fn keep_others_out(&self, range: Range, kind: LockKind) -> bool {
        let class = self.class();
        let Some(range) = of_sqlite(class, range) else { return true };
        let mut state = self.mirror();
        let kind = state.kind(class, range, kind);
        state.holds(range, kind) || state.set(self, range, Some(kind))
    }

    /// Users hold only `left` in `range` from now on.
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

    /// Who beside the mount is in the way of a lock.
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

/// A range in parts that are held alike; what is held to write counts.
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
