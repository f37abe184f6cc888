//! The rollback journal (`-journal`): made and unlinked (or truncated, or zeroed) in each transaction; hot if it is left behind.
use super::{LONG, NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-journal";

/// One node; the name only changes through the mount.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: NEVER, fresh: false, no_flush: true };
