//! The meaning of SQLite's locks: the bytes that it locks (`os_unix.c`, `wal.c`), and which requests need the intent, may be refused, or begin to write.

pub use super::bytes::{CKPT, DATABASE, DMS, PENDING, READ, RESERVED, SHARED, WAL_INDEX, WRITE};
use super::bytes::{SHM, write_bytes};
use super::file::File;
use super::{Class, LockKind, Owner, Range, Request, View};

/// Whether a lock on these bytes is not one that SQLite takes (rule 9).
#[must_use]
pub fn is_ordinary(class: Class, range: Range) -> bool {
    match class {
        Class::Plain => true,
        Class::Database => !range.within(DATABASE),
        Class::Shm => !range.within(SHM),
    }
}

/// Rule 1: whether this request may be granted only to the owner of the file's intent.
pub(super) fn needs_intent(file: &File, r: &Request, view: &dyn View) -> bool {
    if is_ordinary(r.class, r.range) {
        return false;
    }
    let nothing = |range| file.held(r.owner).is_none_or(|h| !h.ranges.holds(range));
    match r.class {
        Class::Plain => false,
        Class::Shm => match r.kind {
            LockKind::Read => r.range.within(READ) && nothing(WAL_INDEX) && !is_reader(file, r),
            LockKind::Write => r.range.overlaps(WRITE),
        },
        Class::Database => {
            if !r.range.overlaps(DATABASE) || view.is_wal(r.file) {
                return false;
            }
            match r.kind {
                LockKind::Read => {
                    r.range.overlaps(PENDING) && nothing(SHARED) && (!is_reader(file, r) || (view.has_hot_journal(r.file) && !file.anyone_writes(RESERVED)))
                }
                LockKind::Write => true,
            }
        }
    }
}

/// Rule 7: whether the owner is a reader: opened read-only, or its intent was revoked while it only read; or a guest (rule 6).
fn is_reader(file: &File, r: &Request) -> bool {
    (r.read_only && !file.disproved.contains(&r.owner)) || file.readers.contains(&r.owner) || file.guests.contains(&r.owner)
}

/// Whether a request shows that an owner with a read-only handle writes: it asks to write while it reads. (WRITE alone is what a read-only connection takes to
/// recover a log.)
pub(super) fn disproves_reader(file: &File, r: &Request) -> bool {
    r.read_only && r.class == Class::Shm && begins_write(r) && file.held(r.owner).is_some_and(|h| h.ranges.holds(READ))
}

/// Rule 2: whether SQLite makes this request only to find out whether the lock is free. It is refused at once on a conflict.
pub(super) fn is_hint(r: &Request, view: &dyn View) -> bool {
    r.kind == LockKind::Write
        && !is_ordinary(r.class, r.range)
        && match r.class {
            Class::Plain => false,
            Class::Shm => r.range.within(READ) || r.range == CKPT || r.range.overlaps(DMS),
            Class::Database => r.range.overlaps(DATABASE) && !r.range.within(RESERVED) && view.is_wal(r.file),
        }
}

/// Rule 3: whether the request is of a reader that chose its snapshot before it was queued.
pub(super) fn takes_snapshot(r: &Request) -> bool {
    r.class == Class::Shm && r.kind == LockKind::Read && r.range.within(READ)
}

/// Rule 4: whether an owner still needs its intent.
pub(super) fn keeps_intent(class: Class, file: &File, owner: Owner, is_wal: bool) -> bool {
    let Some(held) = file.held(owner) else { return false };
    match class {
        Class::Plain => false,
        Class::Shm => held.ranges.holds(WRITE) || held.ranges.holds(READ),
        Class::Database => !is_wal && held.ranges.holds(DATABASE),
    }
}

/// Whether a grant would let its owner begin to change the database.
pub(super) fn begins_write(r: &Request) -> bool {
    r.kind == LockKind::Write && !is_ordinary(r.class, r.range) && write_bytes(r.class).is_some_and(|b| r.range.overlaps(b))
}
