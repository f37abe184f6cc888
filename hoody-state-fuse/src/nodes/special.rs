//! Pipes, sockets and devices: names and attributes only; the kernel opens them itself.
use super::{LONG, Policy};

/// This file system does not handle their data.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
