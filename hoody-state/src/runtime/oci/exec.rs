//! Runs a command in a running container.
//!
//! With the subreaper the runtime ends as soon as the command runs (`--detach`): its pipes are ours, and it has become our child. Without, the runtime stays as
//! its parent, and a daemon that keeps the pipes open keeps the call waiting.
//!
//! If v2 is mounted, each exec has a group of its own below the container's, `exec-<n>`, so that what it started can be killed with it (except for a daemon that left
//! its parent in the instant before the command was moved there). On v1 alone a time-out kills the command's own process.

use super::record::oci_id;
use super::start::{cannot_run, read_log};
use super::{OciRuntime, find, not_running, program, spec};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::{ContainerId, OperationId, RunId};
use crate::runtime::{Cancel, ExecOutput, ExecSpec, cancelled};
use crate::sys::process;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long to wait for the end of a killed command.
const DYING: Duration = Duration::from_secs(2);

impl OciRuntime {
    /// See [`Runtime::exec`](crate::runtime::Runtime::exec). A command that does not exist gives 127, one that may not be executed 126, as in shells.
    pub(super) fn exec_in(&self, c: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        let (record, _, init) = self.find_init(c, Duration::ZERO)?.ok_or_else(|| not_running(c))?;
        self.exec_in_run(c, &record.run, spec).map_err(|e| match e.code() {
            // Its files and groups went with it.
            Code::Io if process::has_ended(&init) => not_running(c),
            _ => e,
        })
    }

    fn exec_in_run(&self, c: &ContainerId, run: &RunId, spec: &ExecSpec) -> Result<ExecOutput> {
        let runtime = find::runtime(self.config.runtime.as_deref())?;
        let process = spec::exec_process(spec)?;
        if self.is_frozen(c) {
            return Err(Error::new(Code::ContainerPaused, format!("container {c} is paused: resume it before running a command in it")));
        }
        let name = format!("exec-{}", OperationId::generate());
        let files = Files::new(&self.dirs.bundle(c, run), &name);
        fs::write(&files.process, spec::json(&process)?).io(|| format!("write {}", files.process.display()))?;
        let mut command = self.command(&runtime, &files.log);
        command.arg("exec").arg("--process").arg(&files.process).arg("--pid-file").arg(&files.pid);
        if self.config.subreaper {
            command.arg("--detach");
        }
        let mut groups: Vec<OwnedFd> = Vec::new();
        if let Some(f) = self.cgroups.open_child(c, &name)? {
            groups.push(f.into());
        }
        command.arg(oci_id(c, run)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::enter_before_exec(&mut command, groups);
        let expecting = self.watcher.expecting(c);
        let mut helper = self.watcher.spawn(&mut command).map_err(|e| cannot_run(&runtime, e))?;
        drop(command);

        let mut pump = Pump::new(&mut helper.child, spec)?;
        let pidfd = process::pidfd_open(helper.child.id() as i32).io(|| "open a pidfd of the runtime")?;
        let until = pump.run(&pidfd)?;
        if until != Until::Ended {
            // A runtime that is killed in the middle may leave a command with an unknown pid. So it may finish its start, which takes a moment, and what it started is
            // killed.
            if self.config.subreaper
                && self.await_end(&pidfd, DYING).is_ok()
                && let Some(pid) = files.read_pid()
            {
                self.gather(c, &name, pid);
            }
            self.kill_exec(c, &name, &files);
            let _ = helper.child.kill();
        }
        let status = helper.child.wait().io(|| "wait for the runtime")?;
        let mut result = End::of(status, until);
        if self.config.subreaper && until == Until::Ended && status.success() {
            result = self.follow(c, &name, &files, &mut pump)?;
        }
        drop(helper);
        drop(expecting);
        pump.last_words();
        self.watcher.reap_orphans();
        self.forget_exec_group(c, &name);

        if result.until == Until::Cancelled {
            return Err(cancelled(c));
        }
        let mut out = pump.out;
        (out.exit_code, out.timed_out) = (result.code, result.until == Until::TimedOut);
        let said = read_log(&files.log);
        if out.exit_code == 0 || out.timed_out || said.is_empty() {
            return Ok(out);
        }
        self.failed(c, spec, out, &said)
    }

    /// Follows the command after the runtime has ended: it is our child.
    fn follow(&self, c: &ContainerId, name: &str, files: &Files, pump: &mut Pump<'_>) -> Result<End> {
        let pid = files.read_pid().ok_or_else(|| Error::new(Code::ExecFailed, "the runtime wrote no pid file for the command"))?;
        // A child that is dead but not reaped can be opened, and no other thread reaps it while it is expected.
        let pidfd = match process::pidfd_open(pid) {
            // It is gone, and was not our child to be reaped: the container was killed meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {
                return Err(Error::new(Code::NotRunning, format!("container {c} has ended: start it first")));
            }
            opened => opened.io(|| format!("open a pidfd of the command (process {pid})"))?,
        };
        self.gather(c, name, pid);
        let until = pump.run(&pidfd)?;
        if until != Until::Ended {
            self.kill_exec(c, name, files);
            self.await_end(&pidfd, DYING)?;
        }
        // A process that sleeps in the kernel is reaped as an orphan when it wakes.
        let code = match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            _ => process::pidfd_exit_code(&pidfd).unwrap_or(if until == Until::Ended { 255 } else { 137 }),
        };
        Ok(End { code, until })
    }

    /// Moves the command, and what it has forked, into the group of this exec: a runtime that knows v2 has put it into `run`.
    fn gather(&self, c: &ContainerId, name: &str, pid: i32) {
        let Some(group) = self.cgroups.v2_dir(c).map(|d| d.join(name).join("cgroup.procs")) else { return };
        let mut ours = vec![pid];
        let mut next = 0;
        while let Some(&parent) = ours.get(next) {
            next += 1;
            // ESRCH: it has ended, and needs no group.
            let _ = fs::write(&group, parent.to_string());
            let children = format!("/proc/{parent}/task/{parent}/children");
            let forked: Vec<i32> = match fs::read_to_string(children) {
                Ok(text) => text.split_ascii_whitespace().filter_map(|p| p.parse().ok()).collect(),
                // A kernel without that file.
                Err(_) => {
                    let all = self.cgroups.procs(c).unwrap_or_default();
                    all.into_iter().filter(|p| process::proc_stat(*p).is_some_and(|s| s.ppid == parent)).collect()
                }
            };
            ours.extend(forked.into_iter().filter(|p| self.is_in_group(c, *p)));
            if ours.len() > 1000 {
                return;
            }
        }
    }

    /// The command did not run: its working directory or its program is to blame, or something else. Then the message is the runtime's own, `said`.
    fn failed(&self, c: &ContainerId, spec: &ExecSpec, mut out: ExecOutput, said: &str) -> Result<ExecOutput> {
        let name = spec.command.first().map_or("", String::as_str);
        // The container may have ended while the command was being started.
        let Some((_, pid, _)) = self.find_init(c, Duration::ZERO)? else { return Err(not_running(c)) };
        let root = rustix::fs::open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
        if let Some(e) = root.as_ref().and_then(|root| wrong_directory(root.as_fd(), c, spec)) {
            return Err(e);
        }
        let Some(fault) = root.as_ref().and_then(|root| program::fault(root.as_fd(), spec)) else {
            let failed = || Error::new(Code::ExecFailed, format!("container {c} could not run {name:?}: {said}"));
            return Err(self.cgroups.out_of_tasks(c).unwrap_or_else(failed));
        };
        out.exit_code = fault.exit_code();
        out.stderr = format!("{name}: {}\n", fault.message()).into_bytes();
        Ok(out)
    }

    /// Ends the command and what it started, after the timeout or when the caller has left.
    fn kill_exec(&self, c: &ContainerId, name: &str, files: &Files) {
        if let Some(dir) = self.cgroups.v2_dir(c) {
            let _ = fs::write(dir.join(name).join("cgroup.kill"), "1");
        }
        // If there is no such group, and for a command that the runtime has moved and we have not.
        if let Some(pid) = files.read_pid()
            && let Ok(fd) = process::pidfd_open(pid)
            && self.is_in_group(c, pid)
        {
            let _ = process::pidfd_signal(&fd, nix::libc::SIGKILL);
        }
    }

    /// A group with processes left (a daemon) stays until the run ends.
    fn forget_exec_group(&self, c: &ContainerId, name: &str) {
        if let Some(dir) = self.cgroups.v2_dir(c) {
            let dir = dir.join(name);
            if !matches!(fs::remove_dir(&dir), Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY)) {
                return;
            }
            // Killed a moment ago.
            let _ = crate::cgroup::wait_events(&dir, Duration::from_millis(20), |e| !e.populated);
            let _ = fs::remove_dir(&dir);
        }
    }
}

/// Why the command could not begin in its working directory. Runtimes do not tell this from a missing program.
fn wrong_directory(root: BorrowedFd<'_>, c: &ContainerId, spec: &ExecSpec) -> Option<Error> {
    let cwd = spec.cwd.as_deref().filter(|d| !d.is_empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let why = match rustix::fs::openat2(root, cwd, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => "does not exist",
        Err(rustix::io::Errno::NOTDIR) => "is not a directory, or one of its parents is not",
        Err(rustix::io::Errno::LOOP) => "is a loop of symbolic links",
        _ => return None,
    };
    Some(Error::new(Code::WorkingDirectoryNotFound, format!("the working directory {cwd:?} of container {c} {why}: create it, or name another")))
}

/// How the command ended.
struct End {
    code: i32,
    until: Until,
}

impl End {
    fn of(status: ExitStatus, until: Until) -> Self {
        let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
        End { code: if until == Until::Ended { code } else { 137 }, until }
    }
}

/// What ended the wait for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The process ended.
    Ended,
    /// The timeout passed.
    TimedOut,
    /// The caller left.
    Cancelled,
}

/// The files of one exec, removed with it.
struct Files {
    process: std::path::PathBuf,
    log: std::path::PathBuf,
    pid: std::path::PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Self {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        Files { process: file("json"), log: file("log"), pid: file("pid") }
    }

    fn read_pid(&self) -> Option<i32> {
        fs::read_to_string(&self.pid).ok()?.trim().parse().ok().filter(|p| *p > 0)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for f in [&self.process, &self.log, &self.pid] {
            let _ = fs::remove_file(f);
        }
    }
}

/// Feeds and drains a process without ever blocking on one of its three pipes.
struct Pump<'a> {
    stdin: Option<ChildStdin>,
    pending: &'a [u8],
    stdout: Option<fs::File>,
    stderr: Option<fs::File>,
    limit: usize,
    deadline: Option<Instant>,
    cancel: Option<&'a Cancel>,
    out: ExecOutput,
}

impl<'a> Pump<'a> {
    fn new(child: &mut std::process::Child, spec: &'a ExecSpec) -> Result<Self> {
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(|p| fs::File::from(OwnedFd::from(p)));
        let stderr = child.stderr.take().map(|p| fs::File::from(OwnedFd::from(p)));
        for fd in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | access_mode(fd))).io(|| "make a pipe non-blocking")?;
        }
        let stdin = stdin.filter(|_| !spec.stdin.is_empty());
        let deadline = spec.timeout.map(|t| Instant::now() + t);
        Ok(Pump { stdin, pending: &spec.stdin, stdout, stderr, limit: spec.output_limit, deadline, cancel: spec.cancel.as_ref(), out: ExecOutput::default() })
    }

    /// Transfers data until the process ends, its timeout passes or its caller leaves.
    fn run(&mut self, process: &OwnedFd) -> Result<Until> {
        loop {
            let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return Ok(Until::TimedOut);
            }
            let timeout = left.map_or(PollTimeout::NONE, |l| PollTimeout::try_from(l + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
            let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.cancel.map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)));
            fds.extend(self.stdin.as_ref().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLOUT)));
            fds.extend([&self.stdout, &self.stderr].into_iter().flatten().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e).io(|| "poll the pipes of a command"),
            }
            let ended = fds[0].any() == Some(true);
            let cancelled = self.cancel.is_some() && fds[1].any() == Some(true);
            self.feed();
            self.drain();
            if ended {
                return Ok(Until::Ended);
            }
            if cancelled {
                return Ok(Until::Cancelled);
            }
        }
    }

    fn feed(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        match pipe.write(self.pending) {
            Ok(n) => self.pending = &self.pending[n..],
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => return,
            // The command has closed its input.
            Err(_) => self.pending = &[],
        }
        if self.pending.is_empty() {
            self.stdin = None;
        }
    }

    /// Reads one buffer from each, so that neither starves the other or the deadline.
    fn drain(&mut self) -> bool {
        let mut more = drain_one(&mut self.stdout, &mut self.out.stdout, self.limit, &mut self.out.truncated);
        more |= drain_one(&mut self.stderr, &mut self.out.stderr, self.limit, &mut self.out.truncated);
        more
    }

    /// Reads what is in the pipes when the process has ended. A daemon that keeps them open is not waited for, and what it writes later is not read.
    fn last_words(&mut self) {
        for _ in 0..32 {
            if !self.drain() {
                return;
            }
        }
    }
}

fn drain_one(pipe: &mut Option<fs::File>, into: &mut Vec<u8>, limit: usize, truncated: &mut bool) -> bool {
    let Some(f) = pipe else { return false };
    let mut buffer = [0u8; 65536];
    match f.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => {
            let keep = n.min(limit.saturating_sub(into.len()));
            into.extend_from_slice(&buffer[..keep]);
            *truncated |= keep < n;
            return true;
        }
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
    false
}

fn access_mode(fd: BorrowedFd<'_>) -> OFlag {
    fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), |f| OFlag::from_bits_truncate(f) & OFlag::O_ACCMODE)
}
