//! The write-ahead log (`-wal`): written by one connection at a time, read by all, never locked, so nobody needs to hear of a close.
use super::{LONG, Policy};

/// What it is called.
pub const SUFFIX: &str = "-wal";

/// One node, like an ordinary file's.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: true };
