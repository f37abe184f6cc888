//! cgroup v1: `freezer.state`. The kernel sends no notification for it, so it is read repeatedly with short, growing, bounded pauses.

use super::{FreezeState, Freezer, Pauses, failed, not_found, timed_out};
use crate::cgroup::CgroupTree;
use crate::error::Result;
use crate::id::ContainerId;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Freezes by the freezer controller of cgroup v1.
#[derive(Debug)]
pub struct Cgroup1Freezer {
    cgroups: CgroupTree,
}

impl Cgroup1Freezer {
    /// For the containers of `cgroups`, on a machine where the freezer controller is mounted.
    #[must_use]
    pub fn new(cgroups: CgroupTree) -> Self {
        Cgroup1Freezer { cgroups }
    }

    fn file(&self, container: &ContainerId) -> Result<PathBuf> {
        Ok(self.cgroups.v1_dir("freezer", container).ok_or_else(|| not_found(container))?.join("freezer.state"))
    }

    /// `THAWED`, `FREEZING` or `FROZEN`. Reading also makes the kernel check whether all tasks are frozen.
    fn read(&self, container: &ContainerId) -> Result<String> {
        let file = self.file(container)?;
        std::fs::read_to_string(&file).map_err(|e| failed(container, "read", &file, e))
    }

    fn write(&self, container: &ContainerId, value: &str) -> Result<()> {
        let file = self.file(container)?;
        std::fs::write(&file, value).map_err(|e| failed(container, "write", &file, e))
    }

    /// Whether a freeze was requested, finished or not.
    fn before(&self, container: &ContainerId) -> Result<FreezeState> {
        Ok(if self.read(container)?.starts_with("FR") { FreezeState::Frozen } else { FreezeState::Thawed })
    }
}

impl Freezer for Cgroup1Freezer {
    fn freeze_waking(&self, container: &ContainerId, timeout: Duration, wake: &dyn Fn(&[i32])) -> Result<FreezeState> {
        let deadline = Instant::now() + timeout;
        let before = self.before(container)?;
        if before == FreezeState::Thawed {
            self.write(container, "FROZEN")?;
        }
        let mut pauses = Pauses::new();
        let mut pause = Duration::from_micros(20);
        while !self.read(container)?.starts_with("FROZEN") {
            if Instant::now() >= deadline {
                if before == FreezeState::Thawed {
                    self.write(container, "THAWED")?;
                }
                return Err(timed_out(&self.cgroups, container, timeout));
            }
            pauses.wake(&self.cgroups, container, wake);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
            // A task that was being forked may have missed the first call.
            if pause > Duration::from_millis(1) {
                self.write(container, "FROZEN")?;
            }
        }
        Ok(before)
    }

    fn thaw(&self, container: &ContainerId) -> Result<FreezeState> {
        let before = self.before(container)?;
        if before == FreezeState::Frozen {
            self.write(container, "THAWED")?;
        }
        Ok(before)
    }

    fn state(&self, container: &ContainerId) -> Result<FreezeState> {
        Ok(if self.read(container)?.starts_with("FROZEN") { FreezeState::Frozen } else { FreezeState::Thawed })
    }
}
