//! The wal-index (`-shm`) of a database: mapped by every connection, locked byte by byte in WAL mode. As fresh as its database.
use super::{NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-shm";

/// Each look-up must come here.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, fresh: true, no_flush: false };
