//! Which backends a host is to have: those that were given, and the machine's own.

use crate::freeze::Freezer;
use crate::locked_db::LockedDb;
use crate::ramdisk::RamDisks;
use crate::runtime::Runtime;
use crate::share::ShareMount;
use crate::snapshot::SnapshotStore;
use std::sync::Arc;

/// A backend that containers may be without.
pub(super) enum Choice<T: ?Sized> {
    /// The machine's, if there is a machine.
    Default,
    /// This one, or none.
    Made(Option<Arc<T>>),
}

/// The backends that were given, for the machine to add its own.
pub(super) struct Backends {
    pub store: Option<Arc<dyn SnapshotStore>>,
    pub freezer: Option<Arc<dyn Freezer>>,
    pub runtime: Option<Arc<dyn Runtime>>,
    pub shares: Option<Arc<dyn ShareMount>>,
    pub databases: Choice<dyn LockedDb>,
    pub ramdisks: Choice<dyn RamDisks>,
}
