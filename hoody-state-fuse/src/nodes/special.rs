//! Pipes, sockets and devices: names and attributes only; the kernel opens them itself.
use super::{LONG, Policy};

/// Nothing of theirs passes through here.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
