//! Ordinary files, with ordinary POSIX locks and one node for each inode. An empty one may become a database, so its name is not cached.
use super::{LONG, Policy};

/// The kernel updates size and times itself when it writes.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
