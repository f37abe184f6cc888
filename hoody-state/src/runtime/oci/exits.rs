//! Exits of containers: one thread that sleeps in epoll on a pidfd for each init (and on the consoles).

mod oom;

use super::console::Consoles;
use super::record::{Before, Dirs, Record};
use crate::cgroup::CgroupTree;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::{ContainerId, RunId};
use crate::runtime::{Exit, ExitListener, OomListener};
use crate::sys::process;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oom::OomWatch;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WAKE: u64 = 0;
const CONSOLE: u64 = 1;
/// How long to wait for the exit code of another process's child: its parent reaps it in this time or never.
const CODE_TIMEOUT: Duration = Duration::from_millis(200);

/// The thread, and what it watches.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    listener: OnceLock<ExitListener>,
    oom_listener: OnceLock<OomListener>,
    cgroups: CgroupTree,
    dirs: Dirs,
    consoles: Arc<Consoles>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last_token: u64,
    watches: HashMap<u64, Watch>,
    /// What notifies of lack of memory.
    memory: HashMap<u64, OomWatch>,
    starting: HashSet<ContainerId>,
    /// Containers of which a process will become our child that a caller waits for: it is not an orphan.
    expecting: HashMap<ContainerId, usize>,
    /// Processes of the runtime that another thread waits for.
    helpers: HashSet<i32>,
    /// Runs that ended before they could be watched.
    ended: Vec<(ContainerId, RunId, Before)>,
    console_at: Option<Instant>,
    /// When to check the consoles whose growth the kernel does not notify.
    poll_at: Option<Instant>,
    stopping: bool,
}

struct Watch {
    container: ContainerId,
    run: RunId,
    before: Before,
    pid: i32,
    pidfd: OwnedFd,
    /// It has ended; the time until which to wait for its exit code.
    code_by: Option<Instant>,
}

impl Watcher {
    pub fn new(cgroups: CgroupTree, dirs: Dirs, consoles: Arc<Consoles>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).io(|| "make an epoll instance")?;
        let wake = EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).io(|| "make an eventfd")?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE)).io(|| "watch an eventfd")?;
        if let Some(fd) = consoles.fd() {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, CONSOLE)).io(|| "watch the consoles")?;
        }
        let inner = Mutex::new(Inner { last_token: CONSOLE, ..Inner::default() });
        let shared = Arc::new(Shared { epoll, wake, listener: OnceLock::new(), oom_listener: OnceLock::new(), cgroups, dirs, consoles, inner });
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("hoody-exits".to_owned()).spawn(move || of_thread.run()).io(|| "start the thread that waits for exits")?;
        Ok(Watcher { shared, thread: Some(thread) })
    }

    pub fn set_listener(&self, listener: ExitListener) {
        if self.shared.listener.set(listener).is_err() {
            tracing::warn!("the exit listener was set twice; the first stays");
        }
    }

    /// Marks a start until dropped. Error: `already_running` when one is under way.
    pub fn starting(&self, container: &ContainerId) -> Result<Starting<'_>> {
        if self.shared.lock().starting.insert(container.clone()) {
            return Ok(Starting { shared: &self.shared, container: container.clone(), _expecting: self.expecting(container) });
        }
        Err(Error::new(Code::AlreadyRunning, format!("container {container} is being started already")))
    }

    /// Until dropped, dead children of ours that were in this container are left to the caller.
    pub fn expecting(&self, container: &ContainerId) -> Expecting<'_> {
        *self.shared.lock().expecting.entry(container.clone()).or_default() += 1;
        Expecting { shared: &self.shared, container: container.clone() }
    }

    /// Starts a process of the runtime that the caller waits for and then forgets.
    pub fn spawn(&self, command: &mut Command) -> std::io::Result<Helper<'_>> {
        // Under the lock, so that it is never taken for an orphan.
        let mut inner = self.shared.lock();
        let child = command.spawn()?;
        inner.helpers.insert(child.id() as i32);
        Ok(Helper { shared: &self.shared, child })
    }

    /// Reports the end of this init once. Does nothing if it is watched already.
    pub fn watch(&self, container: &ContainerId, record: &Record, pid: i32, pidfd: OwnedFd) -> Result<()> {
        let run = &record.run;
        self.watch_memory(container);
        let polled = self.shared.consoles.watch(container);
        let mut inner = self.shared.lock();
        if polled && inner.poll_at.is_none() {
            inner.poll_at = Some(Instant::now() + Duration::from_secs(1));
            let _ = self.shared.wake.write(1);
        }
        if inner.watches.values().any(|w| w.pid == pid && w.run == *run) {
            return Ok(());
        }
        inner.last_token += 1;
        let token = inner.last_token;
        self.shared.epoll.add(&pidfd, EpollEvent::new(EpollFlags::EPOLLIN, token)).io(|| format!("watch process {pid}"))?;
        inner.watches.insert(token, Watch { container: container.clone(), run: run.clone(), before: record.before, pid, pidfd, code_by: None });
        Ok(())
    }

    /// Reports a run that ended before it could be watched.
    pub fn already_ended(&self, container: &ContainerId, record: &Record) {
        self.shared.lock().ended.push((container.clone(), record.run.clone(), record.before));
        let _ = self.shared.wake.write(1);
    }

    /// Reaps orphans of our containers that this process has inherited.
    pub fn reap_orphans(&self) {
        self.shared.reap_orphans();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        let _ = self.shared.wake.write(1);
        if let Some(t) = self.thread.take()
            // The listener may hold the last reference to the runtime.
            && t.thread().id() != std::thread::current().id()
        {
            let _ = t.join();
        }
    }
}

/// The exit code of an init that has ended, from the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
}

impl Ended {
    /// The exit from a wait status.
    fn of_status(status: i32) -> Self {
        Ended { code: Some(process::wait_status_code(status)), signal: Some(status & 0x7f).filter(|s| *s != 0) }
    }
}

/// A start under way.
pub(super) struct Starting<'a> {
    shared: &'a Shared,
    container: ContainerId,
    _expecting: Expecting<'a>,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.shared.lock().starting.remove(&self.container);
    }
}

/// See [`Watcher::expecting`].
pub(super) struct Expecting<'a> {
    shared: &'a Shared,
    container: ContainerId,
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        if let Some(n) = inner.expecting.get_mut(&self.container) {
            *n -= 1;
            if *n == 0 {
                inner.expecting.remove(&self.container);
            }
        }
    }
}

/// A process of the runtime. Dropping kills and reaps it.
pub(super) struct Helper<'a> {
    shared: &'a Shared,
    pub child: Child,
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        // Both do nothing to a process that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.shared.lock().helpers.remove(&(self.child.id() as i32));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let n = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(e) => {
                    tracing::error!(error = %e, "exits can no longer be waited for");
                    return;
                }
            };
            for e in &events[..n] {
                match e.data() {
                    WAKE => {
                        let _ = self.wake.read();
                        if self.lock().stopping {
                            return;
                        }
                    }
                    CONSOLE => self.console_ready(),
                    token if self.memory_ready(token) => {}
                    token => self.exited(token, e.events().contains(EpollFlags::EPOLLHUP)),
                }
            }
            self.due();
        }
    }

    /// The time until the next thing that is due; for ever if there is none.
    fn timeout(&self) -> EpollTimeout {
        let inner = self.lock();
        let next = inner.watches.values().filter_map(|w| w.code_by).chain(inner.console_at).chain(inner.poll_at).min();
        match next {
            None => EpollTimeout::NONE,
            Some(at) => EpollTimeout::try_from(at.saturating_duration_since(Instant::now()) + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX),
        }
    }

    fn due(&self) {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.console_at.is_some_and(|at| at <= now) {
            inner.console_at = None;
            self.listen_to_consoles(EpollFlags::EPOLLIN);
        }
        let poll = inner.poll_at.take_if(|at| *at <= now).is_some();
        let late: Vec<u64> = inner.watches.iter().filter(|(_, w)| w.code_by.is_some_and(|at| at <= now)).map(|(t, _)| *t).collect();
        let ended = std::mem::take(&mut inner.ended);
        drop(inner);
        if poll {
            // A console that is added meanwhile sets the time itself.
            if let Some(pause) = self.consoles.poll() {
                self.lock().poll_at = Some(Instant::now() + pause);
            }
        }
        for token in late {
            self.exited(token, true);
        }
        for (container, run, before) in ended {
            self.report(&container, &run, before, Ended::default());
        }
    }

    /// Ignores the consoles for a while after each check, so that chatty containers do not keep this thread awake.
    fn console_ready(&self) {
        let pause = self.consoles.ready();
        self.listen_to_consoles(EpollFlags::empty());
        self.lock().console_at = Some(Instant::now() + pause);
    }

    fn listen_to_consoles(&self, flags: EpollFlags) {
        if let Some(fd) = self.consoles.fd() {
            let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, CONSOLE));
        }
    }

    /// `last`: the exit code will not become known any more.
    fn exited(&self, token: u64, last: bool) {
        let mut inner = self.lock();
        let Some(w) = inner.watches.get_mut(&token) else { return };
        let ended = match waitid(Id::PIDFd(w.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, code)) => Ended { code: Some(code), signal: None },
            Ok(WaitStatus::Signaled(_, signal, _)) => Ended { code: Some(128 + signal as i32), signal: Some(signal as i32) },
            Ok(_) => return,
            // Not our child, or another thread has reaped it: the kernel keeps the status for holders of a pidfd.
            Err(_) => process::pidfd_exit_status(&w.pidfd).map_or_else(Ended::default, Ended::of_status),
        };
        if ended.code.is_none() && !last {
            if w.code_by.is_none() {
                w.code_by = Some(Instant::now() + CODE_TIMEOUT);
                // The pidfd stays readable. The hang-up, which epoll always reports, means that the process was reaped.
                let _ = self.epoll.modify(&w.pidfd, &mut EpollEvent::new(EpollFlags::empty(), token));
            }
            return;
        }
        let Some(w) = inner.watches.remove(&token) else { return };
        let _ = self.epoll.delete(&w.pidfd);
        let others = inner.watches.values().any(|o| o.container == w.container);
        if !others {
            self.drop_memory(&mut inner.memory, |o| o.container == w.container);
        }
        drop(inner);
        if !others {
            self.consoles.unwatch(&w.container);
        }
        self.report(&w.container, &w.run, w.before, ended);
    }

    fn report(&self, container: &ContainerId, run: &RunId, before: Before, ended: Ended) {
        let exit = Exit {
            code: ended.code,
            signal: ended.signal,
            killed_for_memory: self.cgroups.killed_for_memory(container).saturating_sub(before.killed_for_memory),
            last_lines: self.consoles.last_lines(container, before.console),
        };
        self.reap_orphans();
        if let Err(e) = self.dirs.clear_run(container, run) {
            tracing::warn!(%container, %run, error = %e, "could not remove a run that ended");
        }
        tracing::debug!(%container, %run, code = ?exit.code, "run ended");
        if let Some(listener) = self.listener.get() {
            listener(container, run, exit);
        }
    }

    /// Reaps dead children of this process that no caller waits for and that were in a container's cgroup. Costs one call if there are none.
    fn reap_orphans(&self) {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Some(pid) = waitid(Id::All, peek).ok().and_then(|s| s.pid()) {
            if !self.reap(pid.as_raw()) {
                // A caller waits for it, and it hides the children behind it.
                let me = std::process::id() as i32;
                let Ok(all) = std::fs::read_dir("/proc") else { return };
                let pids = all.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
                for pid in pids.filter(|p| process::proc_stat(*p).is_some_and(|s| s.ppid == me && s.state == 'Z')) {
                    self.reap(pid);
                }
                return;
            }
        }
    }

    /// Reaps a dead child if it is an orphan of ours.
    fn reap(&self, pid: i32) -> bool {
        let Ok(pidfd) = process::pidfd_open(pid) else { return false };
        let inner = self.lock();
        if inner.helpers.contains(&pid) || inner.watches.values().any(|w| w.pid == pid) || !self.is_orphan(pid, &inner.expecting) {
            return false;
        }
        waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG).is_ok_and(|s| s.pid().is_some())
    }

    fn is_orphan(&self, pid: i32, expecting: &HashMap<ContainerId, usize>) -> bool {
        if self.cgroups.layout().v2().is_none() {
            // v1 forgets the group of a dead process, but the runtime's helpers have recognisable names.
            return expecting.is_empty() && process::proc_stat(pid).is_some_and(|s| s.comm.starts_with("runc:["));
        }
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        container_of(&groups, self.cgroups.parent()).is_some_and(|c| !expecting.contains_key(&c))
    }
}

/// The container below `parent` whose v2 group `/proc/<pid>/cgroup` names.
fn container_of(groups: &str, parent: &str) -> Option<ContainerId> {
    let path = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    path.strip_prefix(parent)?.strip_prefix('/')?.split(['/', ' ']).next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_known_by_its_group() {
        let c = "65f0c0ffee00000000000001";
        let found = |s: &str| container_of(s, "/hoody/p").map(|c| c.to_string());
        assert_eq!(found(&format!("4:memory:/\n0::/hoody/p/{c}/run (deleted)\n")).as_deref(), Some(c));
        assert_eq!(found(&format!("0::/hoody/p/{c}\n")).as_deref(), Some(c));
        assert_eq!(found(&format!("0::/hoody/p2/{c}\n")), None);
        assert_eq!(found("0::/\n"), None);
    }
}
