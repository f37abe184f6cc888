//! cgroup v2: `cgroup.freeze`, and `cgroup.events` by poll. Hybrid hosts use it too.

use super::{FreezeState, Freezer, Pauses, failed, not_found, timed_out};
use crate::cgroup::{CgroupTree, read_events, wait_events};
use crate::error::Result;
use crate::id::ContainerId;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Freezes by cgroup v2.
#[derive(Debug)]
pub struct Cgroup2Freezer {
    cgroups: CgroupTree,
}

impl Cgroup2Freezer {
    /// For the containers of `cgroups`, on a machine where v2 is mounted.
    #[must_use]
    pub fn new(cgroups: CgroupTree) -> Self {
        Cgroup2Freezer { cgroups }
    }

    fn dir(&self, container: &ContainerId) -> Result<PathBuf> {
        self.cgroups.v2_dir(container).ok_or_else(|| not_found(container))
    }

    fn read(&self, container: &ContainerId) -> Result<FreezeState> {
        let file = self.dir(container)?.join("cgroup.freeze");
        let text = std::fs::read_to_string(&file).map_err(|e| failed(container, "read", &file, e))?;
        Ok(if text.starts_with('1') { FreezeState::Frozen } else { FreezeState::Thawed })
    }

    fn write(&self, container: &ContainerId, value: &str) -> Result<()> {
        let file = self.dir(container)?.join("cgroup.freeze");
        std::fs::write(&file, value).map_err(|e| failed(container, "write", &file, e))
    }
}

impl Freezer for Cgroup2Freezer {
    fn freeze_waking(&self, container: &ContainerId, timeout: Duration, wake: &dyn Fn(&[i32])) -> Result<FreezeState> {
        let deadline = Instant::now() + timeout;
        let before = self.read(container)?;
        if before == FreezeState::Thawed {
            self.write(container, "1")?;
        }
        let dir = self.dir(container)?;
        let mut pauses = Pauses::new();
        let waited = loop {
            let waited = wait_events(&dir, pauses.left(deadline), |e| e.frozen);
            if !matches!(waited, Ok(false)) || Instant::now() >= deadline {
                break waited;
            }
            pauses.wake(&self.cgroups, container, wake);
        };
        if matches!(waited, Ok(true)) {
            return Ok(before);
        }
        if before == FreezeState::Thawed {
            self.write(container, "0")?;
        }
        // A group that was removed is reported as `cgroup_not_found`.
        self.read(container)?;
        waited?;
        Err(timed_out(&self.cgroups, container, timeout))
    }

    fn thaw(&self, container: &ContainerId) -> Result<FreezeState> {
        let before = self.read(container)?;
        if before == FreezeState::Frozen {
            self.write(container, "0")?;
        }
        Ok(before)
    }

    fn state(&self, container: &ContainerId) -> Result<FreezeState> {
        let dir = self.dir(container)?;
        let events = read_events(&dir).map_err(|e| failed(container, "read", &dir.join("cgroup.events"), e))?;
        Ok(if events.frozen { FreezeState::Frozen } else { FreezeState::Thawed })
    }
}
