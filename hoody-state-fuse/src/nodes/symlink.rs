//! Symbolic links: their text is handed to the kernel, which follows it on its own side; nothing here ever follows one.
use super::{LONG, Policy};

/// A link's text never changes.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
