//! The rollback journal (`-journal`): made and unlinked (or truncated, or zeroed) in each transaction; hot if it is left behind.
use super::{NEVER, Policy};

/// What it is called.
pub const SUFFIX: &str = "-journal";

/// One node, like an ordinary file's. A process beside the mount may have left it, or taken it away: whoever looks whether it is there must not be told what
/// was before.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: true };
