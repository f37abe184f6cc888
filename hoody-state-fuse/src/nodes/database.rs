//! Main database files: those with SQLite's header, and empty ones with a database's name or SQLite's locks on them.
//!
//! A database has one node, as every file has. A process that opens it several times is shown another inode number for each further connection, so that SQLite
//! asks us for locks instead of refusing by itself: see `connections`.
use super::{NEVER, Policy};

/// Recognised by this suffix while still empty.
pub const SUFFIXES: [&str; 6] = [".db", ".db3", ".sqlite", ".sqlite3", ".s3db", ".sl3"];

/// Each look-up and each request for attributes must come here: what is shown depends on the thread that asks.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: false };
