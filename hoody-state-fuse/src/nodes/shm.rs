//! The wal-index (`-shm`) of a database: mapped by every connection, locked byte by byte in WAL mode.
use super::{NEVER, Policy};

/// The suffix of its name.
pub const SUFFIX: &str = "-shm";

/// Look-ups are not cached: connections are distinguished by what their thread did just before.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: false };
