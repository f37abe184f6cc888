//! Starts a run.

use super::exits::Helper;
use super::record::{Before, Init, Record, oci_id};
use super::spec::{self, Host};
use super::{OciRuntime, find};
use crate::cgroup::LayoutKind;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::model::mount::{Mount, MountSource};
use crate::runtime::{Network, RunSpec, Running};
use crate::sys::hub;
use crate::sys::mount::{in_private_namespace, open_plain, put_tree};
use crate::sys::{process, userns};
use jiff::Timestamp;
use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};
use oci_spec::runtime::Spec;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const NOFILE: u64 = 1_048_576;
/// The soft limit of open files. Some programs close every descriptor up to it when they start.
const NOFILE_SOFT: u64 = 65_536;

impl OciRuntime {
    /// See [`Runtime::start`](crate::runtime::Runtime::start). The exit of an init that ends at once may be reported before this returns.
    pub(super) fn start_run(&self, spec: &RunSpec) -> Result<Running> {
        let c = &spec.container;
        let runtime = find::runtime(self.config.runtime.as_deref())?;
        let config = self.spec_of(spec)?;
        let starting = self.watcher.starting(c)?;
        if self.cgroups.populated(c)? {
            return Err(Error::new(Code::AlreadyRunning, format!("container {c} has processes already: stop it first")));
        }
        self.cgroups.create(c)?;
        self.cgroups.set_limits(c, &spec.limits, self.config.pids_limit)?;
        // An empty group may still be frozen, and what starts in it would hang.
        if self.is_frozen(c) {
            self.cgroups.kill(c, self.config.kill_timeout)?;
        }
        self.step("prepared");
        let began = self.launch(spec, &runtime, &config);
        drop(starting);
        match began {
            Ok(r) => Ok(r),
            Err(e) => {
                let e = self.cgroups.out_of_tasks(c).unwrap_or(e);
                // Nothing of the run may be left. What cannot be undone now is undone by the next kill.
                if let Err(also) = self.kill_run(c) {
                    tracing::error!(container = %c, error = %also, "could not undo a start that failed");
                }
                Err(e)
            }
        }
    }

    fn spec_of(&self, spec: &RunSpec) -> Result<Spec> {
        let resolv = fs::canonicalize("/etc/resolv.conf").ok().filter(|p| spec.network == Network::Host && p.is_file());
        let flags = resolv.as_deref().map(mount_flags).unwrap_or_default();
        let host = Host {
            id_base: self.config.id_base,
            id_count: self.config.id_count,
            cgroups_path: format!("{}/run", self.cgroups.path(&spec.container)),
            nofile: Some(open_files()).filter(|_| process::may_limit_resources()),
            resolv_conf: resolv.as_deref().map(|p| (p, flags)),
            hub: &self.dirs.hub(),
            userns: &self.dirs.userns(),
            bundle: &self.dirs.bundle(&spec.container, &spec.run),
        };
        spec::config(spec, &host)
    }

    /// Starts the runtime on the bundle and watches its init.
    fn launch(&self, spec: &RunSpec, runtime: &Path, config: &Spec) -> Result<Running> {
        let c = &spec.container;
        let bundle = self.dirs.bundle(c, &spec.run);
        fs::create_dir_all(&bundle).io(|| format!("make {}", bundle.display()))?;
        let file = bundle.join("config.json");
        fs::write(&file, spec::json(config)?).io(|| format!("write {}", file.display()))?;
        self.step("bundle");
        let console = self.consoles.open(c)?;
        let before = Before {
            console: console.metadata().io(|| format!("read the length of the console of container {c}"))?.len(),
            killed_for_memory: self.cgroups.killed_for_memory(c),
        };
        let mut record = Record { run: spec.run.clone(), boot_id: self.boot_id.clone(), started_at: Timestamp::now(), init: None, before };
        self.dirs.save(c, &record)?;
        self.step("intent");
        let shares = spec.shares.as_deref().filter(|s| !s.is_empty());
        let pipes = shares.map(|_| Pipes::make(&bundle)).transpose()?;

        let errors = console.try_clone().io(|| "duplicate the console")?;
        let log = bundle.join("runtime.log");
        let mut command = self.command(runtime, &log);
        command.args(["run", "--detach", "--no-new-keyring", "--bundle"]).arg(&bundle).arg("--pid-file").arg(bundle.join("init.pid"));
        command.arg(oci_id(c, &spec.run)).stdin(Stdio::null()).stdout(console).stderr(errors);
        process::enter_before_exec(&mut command, self.start_groups(c)?);
        if !process::may_limit_resources() {
            process::limit_open_files(&mut command, open_files());
        }
        let mut helper = self.spawn_with(spec, &mut command)?.map_err(|e| cannot_run(runtime, e))?;
        // Our copies of the console are closed, so that the container is the only writer.
        drop(command);
        self.step("spawned");
        if let (Some(shares), Some(pipes)) = (shares, &pipes) {
            self.give_shares(&helper, pipes, shares)?;
        }
        let status = wait(&mut helper, Some(self.config.start_timeout))?;
        drop(helper);
        self.step("runtime done");
        match status {
            Some(s) if s.success() => {}
            status => return Err(self.start_failed(spec, &log, status)),
        }
        let Some(pid) = self.dirs.pid_file(c, &spec.run) else {
            return Err(Error::new(Code::StartFailed, format!("container {c}: {} wrote no pid file", runtime.display())));
        };
        let pidfd = process::pidfd_open(pid).ok();
        // While the pidfd is open, the pid cannot belong to another process, so its start time can be read.
        record.init = pidfd.as_ref().and_then(|_| process::proc_stat(pid)).map(|s| Init { pid, start_time: s.start_time });
        self.dirs.save(c, &record)?;
        self.step("recorded");
        match pidfd {
            Some(fd) => self.watcher.watch(c, &record, pid, fd)?,
            None => self.watcher.already_ended(c, &record),
        }
        self.step("watched");
        Ok(Running { run: record.run, pid, started_at: record.started_at })
    }

    /// Starts the runtime in a mount namespace of its own, in which it finds the container's user namespace, and an empty hub for shares. The namespace ends with
    /// it: the host's own table of mounts stays short, and nothing has to be undone if this process is killed.
    fn spawn_with(&self, spec: &RunSpec, command: &mut Command) -> Result<std::io::Result<Helper<'_>>> {
        let c = &spec.container;
        let userns = userns::make(self.owner_of(c), self.config.id_base, self.config.id_count).io(|| format!("make a user namespace for container {c}"))?;
        let (hub_at, userns_at) = (self.dirs.hub(), self.dirs.userns());
        let trees = self.trees_of(spec).io(|| format!("open what is to be mounted in container {c}"))?;
        let started = in_private_namespace(|| -> std::io::Result<_> {
            let from = format!("/proc/self/fd/{}", userns.as_raw_fd());
            nix::mount::mount(Some(from.as_str()), &userns_at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            if spec.shares.is_some() {
                hub::make(&hub_at)?;
            }
            for (at, tree) in &trees {
                fs::create_dir_all(at)?;
                // The run directory may be reached by a link of the host.
                put_tree(tree.as_fd(), open_plain(&fs::canonicalize(at)?)?.as_fd())?;
            }
            Ok(self.watcher.spawn(command))
        });
        let what = || format!("make the mounts from which container {c} starts");
        started.io(what)?.io(what)
    }

    /// Mounts of what has no name of its own, and the names by which the runtime finds them. Taken in our own namespace, in which they were opened.
    fn trees_of(&self, spec: &RunSpec) -> std::io::Result<Vec<(PathBuf, OwnedFd)>> {
        let bundle = self.dirs.bundle(&spec.container, &spec.run);
        let mut trees = Vec::new();
        for (i, mount) in spec.mounts.iter().enumerate() {
            if let MountSource::Tree(tree) = &mount.source
                && let Some(dir) = tree.descriptor()
            {
                trees.push((spec::tree_at(&bundle, i), hub::mount_of(dir, mount.read_only)?));
            }
        }
        Ok(trees)
    }

    /// The owner of the container's user namespace on the host: one of the containers' own ids, another for each container.
    ///
    /// All containers have the same ids on the host, and the runtime would make their namespaces as root. What the kernel counts by user and namespace (inotify
    /// instances and watches, message queues, timers and pending signals, namespaces) it counts for the owner too, against the host's limit. With one owner
    /// for all, a container could use up what the others and the host's root may have.
    fn owner_of(&self, c: &ContainerId) -> u32 {
        let number = c.as_str().as_bytes().iter().fold(0u64, |n, b| n.wrapping_mul(31).wrapping_add(u64::from(*b)));
        // Never the containers' root.
        let offset = 1 + number % u64::from(self.config.id_count.max(2) - 1);
        self.config.id_base + u32::try_from(offset).unwrap_or(1)
    }

    /// Waits until the runtime has made the container's mounts, adds its shares, and lets the runtime continue to start init.
    fn give_shares<'a>(&self, helper: &Helper<'_>, pipes: &Pipes, shares: &'a [Mount]) -> Result<()> {
        let what = || "hand the shares over";
        let runtime = process::pidfd_open(helper.child.id().cast_signed()).io(what)?;
        let deadline = Instant::now() + self.config.start_timeout;
        let mut state = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(pipes.state.as_fd(), PollFlags::POLLIN), PollFd::new(runtime.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(nix::errno::Errno::EINTR) => continue,
                r => drop(r.io(what)?),
            }
            // It has failed or takes too long, which the caller that waits for it reports.
            if left.is_zero() || fds[1].revents().is_some_and(|r| r.contains(PollFlags::POLLIN)) {
                return Ok(());
            }
            let mut part = [0; 4096];
            match (&pipes.state).read(&mut part) {
                Ok(n) => state.extend_from_slice(&part[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e).io(what),
            }
            if let Ok(state) = serde_json::from_slice::<serde_json::Value>(&state) {
                let pid = state["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 0);
                let pid = pid.ok_or_else(|| Error::internal("the runtime's state has no pid"))?;
                let mount = |m: &'a Mount| -> std::io::Result<Option<(&'a str, OwnedFd)>> {
                    let Some(dir) = m.source.open()? else { return Ok(None) };
                    Ok(Some((m.name(), hub::mount_of(dir.as_fd(), m.read_only)?)))
                };
                let mounts = shares.iter().filter_map(|m| mount(m).transpose()).collect::<std::io::Result<Vec<_>>>().io(what)?;
                hub::fill(pid, &mounts).io(what)?;
                return (&pipes.go).write_all(b"go\n").io(what);
            }
        }
    }

    /// A command that runs the runtime, with the arguments of every call. Its environment is empty: our NOTIFY_SOCKET would make runc wait for the container.
    pub(super) fn command(&self, runtime: &Path, log: &Path) -> Command {
        let mut command = Command::new(runtime);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| find::DEFAULT_PATH.into())).current_dir("/");
        command.arg("--root").arg(self.dirs.state()).arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }

    /// The groups in which the runtime itself starts. On v2 alone it moves init to `run` by itself; beside v1 it may not know v2, so that it starts where
    /// init shall be. Without v2 the freezer's group is what `kill` reads.
    fn start_groups(&self, c: &ContainerId) -> Result<Vec<OwnedFd>> {
        let child = if self.cgroups.layout().kind() == LayoutKind::Unified { "start" } else { "run" };
        if let Some(f) = self.cgroups.open_child(c, child)? {
            return Ok(vec![f.into()]);
        }
        Ok(self.cgroups.open_v1_child("freezer", c, "start")?.map(OwnedFd::from).into_iter().collect())
    }

    fn start_failed(&self, spec: &RunSpec, log: &Path, status: Option<ExitStatus>) -> Error {
        let c = &spec.container;
        let Some(status) = status else {
            return Error::new(
                Code::StartFailed,
                format!(
                    "container {c} did not start within {:?} and its runtime was killed; check its root file system and the load of the machine",
                    self.config.start_timeout
                ),
            );
        };
        let said = read_log(log);
        let said = if said.is_empty() { status.to_string() } else { said };
        Error::new(Code::StartFailed, format!("container {c} could not run {:?}: {said}", spec.command[0]))
    }
}

/// The two pipes by which the runtime is made to wait. Both ends of both are open here, so that opening them never blocks.
struct Pipes {
    state: fs::File,
    go: fs::File,
}

impl Pipes {
    fn make(bundle: &Path) -> Result<Self> {
        let make = |name: &str| -> Result<fs::File> {
            let path = bundle.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).io(|| format!("make {}", path.display()))?;
            fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).io(|| format!("open {}", path.display()))
        };
        Ok(Pipes { state: make(spec::STATE_PIPE)?, go: make(spec::GO_PIPE)? })
    }
}

/// How many files a process of a container may have open: soft and hard. The kernel may refuse a limit above our own, even to root.
fn open_files() -> (u64, u64) {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard).min(NOFILE);
    (hard.min(NOFILE_SOFT), hard)
}

/// Waits for a process of the runtime by its pidfd; `None` after the timeout.
pub(super) fn wait(helper: &mut Helper<'_>, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let fd = process::pidfd_open(helper.child.id() as i32).io(|| "open a pidfd of the runtime")?;
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |l| PollTimeout::try_from(l + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_some_and(|l| l.is_zero()) => return Ok(None),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return helper.child.wait().map(Some).io(|| "wait for the runtime"),
            Err(e) => return Err(e).io(|| "poll the runtime"),
        }
    }
}

/// The errors in the runtime's log, the last first.
pub(super) fn read_log(log: &Path) -> String {
    let text = fs::read(log).map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let lines = text.lines().rev().filter_map(|line| {
        let Ok(v) = serde_json::from_str::<serde_json::Value>(line) else { return Some(line.to_owned()) };
        let level = v["level"].as_str().unwrap_or("error").to_ascii_lowercase();
        let message = v["msg"].as_str().or_else(|| v["fields"]["message"].as_str())?;
        matches!(level.as_str(), "error" | "fatal" | "panic").then(|| message.to_owned())
    });
    // The runtime cannot remove the group that it is in itself; we do.
    let lines = lines.filter(|l| !l.starts_with("Failed to remove"));
    lines.take(3).collect::<Vec<_>>().join("; ").chars().take(2000).collect()
}

pub(super) fn cannot_run(runtime: &Path, e: std::io::Error) -> Error {
    let message = format!("cannot run {}: {e}; is it a program for this machine?", runtime.display());
    Error::new(Code::RuntimeUnusable, message).with_source(e)
}

/// The mount flags that a bind of the file must keep, because a user namespace may not remove them.
fn mount_flags(path: &Path) -> Vec<&'static str> {
    let Ok(s) = statvfs(path) else { return Vec::new() };
    [(FsFlags::ST_NOSUID, "nosuid"), (FsFlags::ST_NODEV, "nodev"), (FsFlags::ST_NOEXEC, "noexec"), (FsFlags::ST_NOATIME, "noatime")]
        .into_iter()
        .filter(|(f, _)| s.flags().contains(*f))
        .map(|(_, o)| o)
        .collect()
}
