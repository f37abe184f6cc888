//! Main database files: files with the header of SQLite, and empty files with the name of a database or with SQLite's locks on them.
//!
//! Like every file, a database has one node. If a process opens it several times, each further connection gets its own inode number, so that SQLite sends
//! lock requests instead of refusing by itself: see `connections`.
use super::{NEVER, Policy};

/// An empty file with one of these suffixes is taken for a new database.
pub const SUFFIXES: [&str; 6] = [".db", ".db3", ".sqlite", ".sqlite3", ".s3db", ".sl3"];

/// The kernel caches nothing: the answers depend on the calling thread.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: false };
