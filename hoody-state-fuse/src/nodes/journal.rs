//! The rollback journal (`-journal`): created and deleted (or truncated, or zeroed) in each transaction. If it is left behind, SQLite rolls back.
use super::{NEVER, Policy};

/// The suffix of its name.
pub const SUFFIX: &str = "-journal";

/// One node, as for an ordinary file. A process that uses the backing directory may create or delete it, so the kernel must not cache whether it exists.
pub const POLICY: Policy = Policy { entry_ttl: NEVER, attr_ttl: NEVER, no_flush: true };
