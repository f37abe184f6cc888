//! Main database files: those with SQLite's header, and empty ones with a database's name or SQLite's locks on them.
//!
//! Each connection gets a node (and inode number) of its own: a thread's look-ups give one that nobody has opened and no other thread is shown. So SQLite
//! takes two connections of one process for two files and asks us for locks instead of refusing by itself. Data stay coherent: all nodes pass through to
//! one backing inode. The thread that holds RESERVED is shown its own node's number, because SQLite compares `stat(path)` with what it has open before it
//! writes a journal.
use super::{NEVER, Policy};

/// Recognised by this suffix while still empty.
pub const SUFFIXES: [&str; 6] = [".db", ".db3", ".sqlite", ".sqlite3", ".s3db", ".sl3"];

/// Each look-up must come here, and sizes change behind other nodes.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, fresh: true, no_flush: false };
