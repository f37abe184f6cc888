//! The write-ahead log (`-wal`): written by one connection at a time, read by all, never locked, so nobody needs to hear of a close.
use super::{NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-wal";

/// One node, like an ordinary file's. Processes beside the mount write it too, and remove it: its name and size are asked for each time, which is when a
/// connection opens it, and when the log is recovered.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: true };
