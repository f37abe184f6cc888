//! Finds out from the kernel what runs, for a server that has just started.

use super::OciRuntime;
use super::record::{Init, Record};
use crate::error::Result;
use crate::id::ContainerId;
use crate::runtime::Running;
use crate::sys::process;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long to wait for a start whose server was killed, which continues without it.
const HALF_WAY: Duration = Duration::from_secs(3);

impl OciRuntime {
    /// See [`Runtime::adopt`](crate::runtime::Runtime::adopt). If it is `None` and processes are left (of a start that failed half-way), the caller must
    /// [`kill`](crate::runtime::Runtime::kill).
    pub(super) fn adopt_run(&self, c: &ContainerId) -> Result<Option<Running>> {
        let Some((record, pid, pidfd)) = self.find_init(c, HALF_WAY)? else { return Ok(None) };
        if !self.config.looks_only {
            // A record has one writer, and a start writes its own.
            if self.dirs.load(c, &self.boot_id)?.is_some_and(|r| r.init.is_none() && r.run == record.run) {
                self.dirs.save(c, &record)?;
            }
            self.dirs.clear_others(c, &record.run)?;
            self.watcher.watch(c, &record, pid, pidfd)?;
        }
        Ok(Some(Running { run: record.run, pid, started_at: record.started_at }))
    }

    /// See [`Runtime::running`](crate::runtime::Runtime::running).
    pub(super) fn running_now(&self, c: &ContainerId) -> Result<Option<Running>> {
        if self.dirs.load(c, &self.boot_id)?.is_none_or(|r| r.init.is_none()) {
            return Ok(None);
        }
        let found = self.find_init(c, Duration::ZERO)?;
        Ok(found.map(|(record, pid, _)| Running { run: record.run, pid, started_at: record.started_at }))
    }

    /// The living init of the last run. `patience`: how long to wait for one that may be starting.
    pub(super) fn find_init(&self, c: &ContainerId, patience: Duration) -> Result<Option<(Record, i32, OwnedFd)>> {
        let Some(mut record) = self.dirs.load(c, &self.boot_id)? else { return Ok(None) };
        let init = match record.init {
            Some(init) => init,
            None => {
                let Some(pid) = self.await_pid_file(c, &record, patience)? else { return Ok(None) };
                let Some(stat) = process::proc_stat(pid) else { return Ok(None) };
                Init { pid, start_time: stat.start_time }
            }
        };
        // First the pidfd is opened, then the process is checked: so the checks are about the process of the pidfd, or it has ended.
        let Ok(pidfd) = process::pidfd_open(init.pid) else { return Ok(None) };
        let alive = process::proc_stat(init.pid).is_some_and(|s| s.start_time == init.start_time && !matches!(s.state, 'Z' | 'X'));
        if !alive
            || is_dying(init.pid)
            || !self.is_in_group(c, init.pid)
            || process::pidfd_signal(&pidfd, 0).is_err_and(|e| e.raw_os_error() == Some(nix::libc::ESRCH))
        {
            return Ok(None);
        }
        record.init = Some(init);
        Ok(Some((record, init.pid, pidfd)))
    }

    fn await_pid_file(&self, c: &ContainerId, record: &Record, patience: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + patience;
        loop {
            // In this order: a runtime that ends between the two has written the file.
            let populated = self.cgroups.populated(c)?;
            if let Some(pid) = self.dirs.pid_file(c, &record.run) {
                return Ok(Some(pid));
            }
            if !populated || Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether a process is in the container's group: only the runtime puts processes there, and none can leave.
    pub(super) fn is_in_group(&self, c: &ContainerId, pid: i32) -> bool {
        let path = self.cgroups.path(c);
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().filter_map(|l| l.splitn(3, ':').nth(2)).any(|p| p.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }
}

/// Whether a process was sent SIGKILL and has not died yet: a crash of ours interrupted a kill. It will die.
fn is_dying(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|l| l.strip_prefix("SigPnd:").or(l.strip_prefix("ShdPnd:")));
    pending.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & (1 << (nix::libc::SIGKILL - 1)) != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn only_what_is_killed_is_dying() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!super::is_dying(child.id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!super::is_dying(std::process::id().cast_signed()));
    }
}
