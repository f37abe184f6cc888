//! The bytes of its files that SQLite locks, and what each means.

use super::Class;
use super::ranges::Range;

/// Of a database file: PENDING.
pub const PENDING: Range = Range::byte(0x4000_0000);
/// Of a database file: RESERVED.
pub const RESERVED: Range = Range::byte(0x4000_0001);
/// Of a database file: the SHARED range.
pub const SHARED: Range = Range::new(0x4000_0002, 0x4000_01ff);
/// Of a database file: everything that SQLite locks.
pub const DATABASE: Range = Range::new(0x4000_0000, 0x4000_01ff);
/// Of a `-shm`: the one writer.
pub const WRITE: Range = Range::byte(120);
/// Of a `-shm`: the one checkpointer.
pub const CKPT: Range = Range::byte(121);
/// Of a `-shm`: the read marks.
pub const READ: Range = Range::new(123, 127);
/// Of a `-shm`: writer, checkpointer, recovery and read marks.
pub const WAL_INDEX: Range = Range::new(120, 127);
/// Of a `-shm`: the dead man's switch.
pub const DMS: Range = Range::byte(128);

/// Of a `-shm`: everything that SQLite locks.
pub(super) const SHM: Range = Range::new(120, 128);

/// The bytes whose exclusive lock means that an owner is changing the database.
pub(super) fn write_bytes(class: Class) -> Option<Range> {
    match class {
        Class::Plain => None,
        Class::Shm => Some(WRITE),
        Class::Database => Some(DATABASE),
    }
}

/// The bytes of which an owner holds at least one while a transaction is open.
pub(super) fn read_bytes(class: Class) -> Option<Range> {
    match class {
        Class::Plain => None,
        Class::Shm => Some(WAL_INDEX),
        Class::Database => Some(DATABASE),
    }
}
