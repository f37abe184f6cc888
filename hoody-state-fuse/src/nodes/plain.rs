//! Ordinary files: ordinary POSIX locks, one node an inode. An empty one may yet become a database, so its name is asked for each time.
use super::{LONG, Policy};

/// The kernel keeps size and times right itself when it writes through.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
