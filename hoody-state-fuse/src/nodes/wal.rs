//! The write-ahead log (`-wal`): written by one connection at a time, read by all, never locked, so closes need not be reported.
use super::{NEVER, Policy};

/// The suffix of its name.
pub const SUFFIX: &str = "-wal";

/// One node, as for an ordinary file. Processes that use the backing directory write and delete it too, so its name and size are not cached. They are needed
/// when a connection opens it, and when the log is recovered.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: true };
