//! Which freezer this machine has.

use crate::cgroup::CgroupTree;
use crate::error::{Code, Error, Result};
use crate::freeze::Freezer;
use crate::freeze::cgroup1::Cgroup1Freezer;
use crate::freeze::cgroup2::Cgroup2Freezer;
use std::sync::Arc;

/// The best freezer of this machine for the containers of `cgroups`: v2's where v2 is mounted (hybrid hosts too), else v1's.
/// Error: `no_freezer` ([`Kind::Unavailable`](crate::Kind::Unavailable)).
///
/// # Errors
/// As above.
pub fn freezer(cgroups: &CgroupTree) -> Result<Arc<dyn Freezer>> {
    if cgroups.layout().v2().is_some() {
        return Ok(Arc::new(Cgroup2Freezer::new(cgroups.clone())));
    }
    if cgroups.layout().v1("freezer").is_some() {
        return Ok(Arc::new(Cgroup1Freezer::new(cgroups.clone())));
    }
    Err(Error::new(Code::NoFreezer, "this machine cannot freeze: mount cgroup v2, or the freezer controller of v1"))
}
