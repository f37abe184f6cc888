//! The wal-index (`-shm`) of a database: mapped by every connection, locked byte by byte in WAL mode.
use super::{NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-shm";

/// Each look-up must come here: a connection is told from another by what its thread did just before.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: false };
