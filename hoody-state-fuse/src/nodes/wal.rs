//! The write-ahead log (`-wal`): written by one connection at a time, read by all, never locked, so nobody needs to hear of a close.
use super::{LONG, NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-wal";

/// One node; the name only changes through the mount.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: NEVER, fresh: false, no_flush: true };
