//! How many processes and threads (the kernel calls both *tasks*) a container may have, and all containers of the pool together.
//!
//! Every task has a number, and the host has only so many (`kernel.pid_max`). A container that forks without end would take them all, and then nothing on
//! the host could start, not even what ends that container. So each container's group has a limit, and the group above all containers has one that leaves
//! some numbers to the host however many containers there are.

use super::tree::CgroupTree;
use crate::error::{Code, Error};
use crate::id::ContainerId;
use crate::model::TaskStats;
use std::path::{Path, PathBuf};

/// Tasks that an OCI runtime needs to start something: its own threads and those of the process that it becomes.
const STARTING: u64 = 16;
/// The limit if the host does not report how many tasks it can have.
const LEAST_PID_MAX: u64 = 32_768;

/// The default for all containers together: three quarters of what the host can have.
fn default_share(pid_max: Option<u64>, threads_max: Option<u64>) -> u64 {
    let most = pid_max.into_iter().chain(threads_max).min().unwrap_or(LEAST_PID_MAX);
    most / 4 * 3
}

impl CgroupTree {
    /// The same tree with this limit for all its containers together. `None`: three quarters of what the host can have.
    #[must_use]
    pub fn with_task_limit(mut self, tasks: Option<u64>) -> Self {
        self.tasks = tasks;
        self
    }

    /// How many tasks all containers together may have.
    #[must_use]
    pub fn task_limit(&self) -> u64 {
        let host = |name: &str| number(Path::new("/proc/sys/kernel").join(name).as_path());
        self.tasks.unwrap_or_else(|| default_share(host("pid_max"), host("threads-max")))
    }

    /// Sets the limit of the group above all containers, if that exists. It is created with the first container and removed with the last.
    ///
    /// The group above that is shared with other pools of this host. It has no limit of its own until one is set here, or by an operator.
    pub(crate) fn limit_all_tasks(&self) {
        let Some(parent) = self.tasks_root().map(|r| r.join(&self.parent()[1..])) else { return };
        let most = self.task_limit().to_string();
        let set = |dir: &Path| {
            if let Err(e) = std::fs::write(dir.join("pids.max"), &most)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(group = %dir.display(), error = %e, "no limit could be set, so containers together may use up all process numbers of the host");
            }
        };
        set(&parent);
        if let Some(above) = parent.parent().filter(|a| a.file_name().is_some_and(|n| n == "hoody"))
            && self.tasks.is_none()
            && std::fs::read_to_string(above.join("pids.max")).is_ok_and(|now| now.trim() == "max")
        {
            set(above);
        }
    }

    /// Tasks of a container. `None` where the host does not count them, or the container has no group.
    #[must_use]
    pub fn tasks(&self, container: &ContainerId) -> Option<TaskStats> {
        self.tasks_root().and_then(|r| tasks_of(&self.dir(r, container)))
    }

    /// Tasks of all containers together. `None` where the host does not count them.
    #[must_use]
    pub fn all_tasks(&self) -> Option<TaskStats> {
        let root = self.tasks_root()?;
        // Without containers there is no group.
        Some(tasks_of(&root.join(&self.parent()[1..])).unwrap_or(TaskStats { usage: 0, limit: Some(self.task_limit()) }))
    }

    /// The error to report if nothing can be started in this container because its tasks are used up, else `None`. Codes: `container_task_limit`
    /// ([`Kind::Conflict`]), `pool_task_limit` ([`Kind::Unavailable`]).
    pub(crate) fn out_of_tasks(&self, container: &ContainerId) -> Option<Error> {
        let used_up = |t: &TaskStats| t.limit.is_some_and(|limit| t.usage + STARTING > limit);
        if let Some(t) = self.tasks(container).filter(used_up) {
            let (usage, limit) = (t.usage, t.limit.unwrap_or(0));
            let message = format!(
                "container {container} has {usage} processes and threads and may have {limit}: nothing more can be started in it; end some of them, stop it, or \
                 serve with a larger --container-tasks"
            );
            return Some(Error::new(Code::ContainerTaskLimit, message));
        }
        let t = self.all_tasks().filter(used_up)?;
        let message = format!(
            "the containers of this pool have {} processes and threads together and may have {}: nothing more can be started in container {container}; look \
             for the container that has most (`stats`) and stop it, or serve with a larger --pool-tasks",
            t.usage,
            t.limit.unwrap_or(0)
        );
        Some(Error::new(Code::PoolTaskLimit, message))
    }

    /// The hierarchy that counts tasks.
    fn tasks_root(&self) -> Option<&Path> {
        self.layout().v2().filter(|_| self.layout().v2_has("pids")).or_else(|| self.layout().v1("pids"))
    }

    /// The directory of the container's group that limits tasks.
    pub(super) fn tasks_dir(&self, container: &ContainerId) -> Option<PathBuf> {
        self.tasks_root().map(|r| self.dir(r, container))
    }
}

fn tasks_of(group: &Path) -> Option<TaskStats> {
    Some(TaskStats { usage: number(&group.join("pids.current"))?, limit: number(&group.join("pids.max")) })
}

/// `None` also for "max".
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_a_quarter_of_its_process_numbers() {
        assert_eq!(default_share(Some(32_768), Some(96_364)), 24_576);
        assert_eq!(default_share(Some(4_194_304), Some(15_000)), 11_250);
        assert_eq!(default_share(None, None), 24_576);
    }
}
