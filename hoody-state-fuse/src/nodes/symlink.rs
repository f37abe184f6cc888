//! Symbolic links. The kernel follows them; this program never does.
use super::{LONG, Policy};

/// The target of a link never changes.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
