//! Kills every process in a container's group, and waits until the group is empty.

use super::events;
use super::tree::{CgroupTree, children, procs_below};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::sys::process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one round waits before it looks for orphans and signals again.
const ROUND: Duration = Duration::from_millis(20);

impl CgroupTree {
    /// Whether a live process is in the container's group. `false` if the container has no group.
    ///
    /// # Errors
    /// `io`.
    pub fn populated(&self, container: &ContainerId) -> Result<bool> {
        match self.v2_dir(container).map(|d| events::read(&d)) {
            Some(Ok(e)) if e.populated => Ok(true),
            // Without v2, or where a process was put into a v1 group alone.
            _ => Ok(!self.procs(container)?.is_empty() || self.strays(container)?),
        }
    }

    /// Waits until the container has no live process; `false` if it still has one after the timeout. Sleeps in poll.
    ///
    /// # Errors
    /// `io`.
    pub fn wait_empty(&self, container: &ContainerId, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        if let Some(dir) = self.v2_dir(container)
            && dir.is_dir()
            && !events::wait(&dir, timeout, |e| !e.populated)?
        {
            return Ok(false);
        }
        // v1 does not notify, so the descriptors of the processes themselves are polled.
        loop {
            let pids = self.v1_procs(container)?;
            let Some(&pid) = pids.first() else { return Ok(true) };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let Ok(fd) = process::pidfd_open(pid) else {
                // A dead process that is still listed; the list is right in a moment.
                std::thread::sleep(Duration::from_micros(200).min(left));
                continue;
            };
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => std::thread::yield_now(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e).io(|| format!("poll process {pid}")),
            }
        }
    }

    /// Kills every process of the container, frozen or not, including those that are being forked, and returns when none is left. The group stays, thawed. A
    /// container without a group is not an error.
    ///
    /// # Errors
    /// `kill_timeout`, which names the processes left (a process asleep in the kernel dies when its wait is over).
    pub fn kill(&self, container: &ContainerId, timeout: Duration) -> Result<()> {
        self.kill_with(container, timeout, &|| {})
    }

    /// The same; `reap` is called between rounds, to reap orphans that this process has inherited.
    pub(crate) fn kill_with(&self, container: &ContainerId, timeout: Duration, reap: &dyn Fn()) -> Result<()> {
        if !self.exists(container) {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        loop {
            if !self.v2_kill(container)? {
                self.signal_all(container)?;
            } else {
                // The list includes processes that are dying. They must not be frozen: if this process were killed just then, they would stay frozen and never die.
                signal(&self.v1_procs(container)?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.wait_empty(container, ROUND.min(left))? {
                reap();
                return self.thaw_all(container);
            }
            reap();
            if left.is_zero() {
                // No one may meet a frozen group that he did not freeze.
                self.thaw_all(container)?;
                let who = describe(&self.procs(container)?);
                return Err(Error::new(
                    Code::KillTimeout,
                    format!("container {container} still has processes {timeout:?} after they were killed: {who}; find out what they wait for, then try again"),
                ));
            }
        }
    }

    /// `cgroup.kill` of v2 (Linux 5.14): atomic against forks, and reaches frozen processes. `false` where the kernel has no such file.
    fn v2_kill(&self, container: &ContainerId) -> Result<bool> {
        let Some(file) = self.v2_dir(container).map(|d| d.join("cgroup.kill")) else { return Ok(false) };
        kill_group_file(&file)
    }

    /// Without `cgroup.kill`: freezes so that nothing forks, signals all, thaws so that they can die. One round; the caller repeats until the group is empty.
    fn signal_all(&self, container: &ContainerId) -> Result<()> {
        // In the hierarchy that freezers read, so that they see a freeze that a crash here leaves behind.
        match (self.v2_dir(container), self.v1_dir("freezer", container)) {
            (Some(v2), _) => drop(std::fs::write(v2.join("cgroup.freeze"), "1")),
            (None, Some(v1)) => drop(std::fs::write(v1.join("freezer.state"), "FROZEN")),
            (None, None) => {}
        }
        let mut pids = self.procs(container)?;
        pids.extend(self.v1_procs(container)?);
        pids.sort_unstable();
        pids.dedup();
        signal(&pids);
        self.thaw_all(container)
    }

    /// Whether a v1 group has a process that v2 does not know to be the container's.
    fn strays(&self, container: &ContainerId) -> Result<bool> {
        Ok(!self.v1_procs(container)?.is_empty())
    }

    /// Processes of the container by its v1 freezer group (or whichever v1 hierarchy there is).
    fn v1_procs(&self, container: &ContainerId) -> Result<Vec<i32>> {
        let roots = self.layout().v1_roots();
        let root = self.layout().v1("freezer").or_else(|| roots.first().copied());
        root.map_or(Ok(Vec::new()), |r| procs_below(&self.dir(r, container)))
    }

    /// Thaws the container's groups and those below, in v2 and v1, whoever froze them.
    fn thaw_all(&self, container: &ContainerId) -> Result<()> {
        for (dir, file, frozen, thawed) in
            [(self.v2_dir(container), "cgroup.freeze", "1", "0"), (self.v1_dir("freezer", container), "freezer.state", "FR", "THAWED")]
        {
            let Some(dir) = dir else { continue };
            for d in std::iter::once(dir.clone()).chain(children(&dir)?) {
                let path = d.join(file);
                // v1 says FROZEN or FREEZING.
                if std::fs::read_to_string(&path).is_ok_and(|s| s.starts_with(frozen)) {
                    std::fs::write(&path, thawed).io(|| format!("thaw {}", d.display()))?;
                }
            }
        }
        Ok(())
    }
}

fn signal(pids: &[i32]) {
    for pid in pids {
        // The pid was in the group a moment ago and cannot belong to another process before it is reaped. ESRCH means that the process has ended.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Writes a `cgroup.kill`; `false` if there is none.
pub(super) fn kill_group_file(file: &Path) -> Result<bool> {
    match std::fs::write(file, "1") {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV)) => Ok(false),
        Err(e) => Err(e).io(|| format!("write {}", file.display())),
    }
}

/// Up to five processes by pid, name and state, for a message.
pub(crate) fn describe(pids: &[i32]) -> String {
    let mut who: Vec<String> = pids.iter().filter_map(|&p| process::proc_stat(p).map(|s| format!("{p} ({}, state {})", s.comm, s.state))).take(5).collect();
    if who.is_empty() {
        who.push("none that is visible".to_owned());
    } else if pids.len() > who.len() {
        who.push(format!("and {} more", pids.len() - who.len()));
    }
    who.join(", ")
}
