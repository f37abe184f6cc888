//! The rollback journal (`-journal`): made and unlinked (or truncated, or zeroed) in each transaction; hot if it is left behind.
use super::{LONG, Policy};

/// What it is called.
pub const SUFFIX: &str = "-journal";

/// One node, like an ordinary file's.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: true };
