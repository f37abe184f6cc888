//! Directories. Listings use the cookies of the backing file system, so a directory of any size is read in one pass.
use super::{LONG, Policy};

/// Names and attributes only change through the mount.
pub const POLICY: Policy = Policy { entry_ttl: LONG, attr_ttl: LONG, no_flush: false };
