//! An OCI runtime (`runc`, `crun`, `youki`) as a process.
//!
//! **A start** is one process of the runtime (`run --detach`) and waits for nothing else: its cgroup exists, its id is new, and the remains of the last run were
//! removed after that run. The runtime is inside the container's cgroup before it is executed, in a session of its own: if this process is killed at any instant,
//! the runtime may finish or not, and [`Runtime::kill`] reaches it either way.
//!
//! **Exits.** One thread sleeps in epoll on a pidfd per init. With [`OciConfig::subreaper`] (the default) this process becomes a child subreaper
//! (`PR_SET_CHILD_SUBREAPER`): inits, orphaned when the runtime ends, become its children, and it reaps them by pidfd with their exit code.
//! It never reaps a child that it did not start, and finds other orphans of its containers by their cgroup. Without it, and
//! for adopted runs, the code comes from the kernel by `PIDFD_GET_INFO` (Linux 6.15) once pid 1 has reaped, or is `None`.
//!
//! **The console** is a file that init writes directly. See `console.rs`.

mod adopt;
mod built;
mod config;
mod console;
mod exec;
mod exits;
mod find;
mod program;
mod record;
mod seccomp;
mod spec;
mod start;
mod stop;

pub use config::{CONTAINER_TASKS, OciConfig};

use super::{ExecOutput, ExecSpec, ExitListener, Limits, OomListener, RunSpec, Running, Runtime, RuntimeStats};
use crate::cgroup::CgroupTree;
use crate::error::{Code, Error, IoContext, Result};
use crate::freeze::FreezeState;
use crate::id::ContainerId;
use crate::model::TaskStats;
use crate::model::mount::Mount;
use crate::sys::hub;
use crate::sys::inside::{self, Inside};
use crate::sys::process;
use crate::units::Bytes;
use console::{Consoles, Notify};
use exits::Watcher;
use record::Dirs;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Runs containers by an OCI runtime. See the [module](self).
pub struct OciRuntime {
    config: OciConfig,
    cgroups: CgroupTree,
    dirs: Dirs,
    boot_id: String,
    consoles: Arc<Consoles>,
    watcher: Watcher,
    #[cfg(test)]
    step: std::sync::OnceLock<Box<dyn Fn(&'static str) + Send + Sync>>,
}

impl OciRuntime {
    /// Creates `run_dir` and starts the thread that waits for exits. Changes no container: adopt those that run.
    ///
    /// # Errors
    /// `io`.
    pub fn new(config: OciConfig) -> Result<Self> {
        let dirs = Dirs::new(&config.run_dir);
        for dir in [config.run_dir.clone(), dirs.state(), config.run_dir.join("containers"), dirs.hub()] {
            fs::create_dir_all(&dir).io(|| format!("make {}", dir.display()))?;
        }
        fs::write(dirs.userns(), "").io(|| format!("make {}", dirs.userns().display()))?;
        // The specs contain the environments of containers.
        for dir in [dirs.state(), config.run_dir.join("containers")] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).io(|| format!("protect {}", dir.display()))?;
        }
        // A container's root passes through it to what is mounted from the hub.
        fs::set_permissions(&config.run_dir, fs::Permissions::from_mode(0o711)).io(|| format!("protect {}", config.run_dir.display()))?;
        if config.subreaper {
            nix::sys::prctl::set_child_subreaper(true).io(|| "become a child subreaper")?;
        }
        // A runtime that only reads watches no console, and uses no inotify instance.
        let notify = if config.looks_only { Notify::Never } else { Notify::IfPossible };
        let consoles = Arc::new(Consoles::new(config.console_path.clone(), config.console_limit, config.id_base, notify));
        let cgroups = config.cgroups.clone();
        if !config.looks_only {
            // An earlier process may have started containers with another limit or none.
            cgroups.limit_all_tasks();
        }
        let watcher = Watcher::new(cgroups.clone(), dirs.clone(), Arc::clone(&consoles))?;
        Ok(OciRuntime {
            config,
            cgroups,
            dirs,
            boot_id: process::boot_id()?,
            consoles,
            watcher,
            #[cfg(test)]
            step: std::sync::OnceLock::new(),
        })
    }

    /// The containers' cgroups.
    #[must_use]
    pub fn cgroups(&self) -> &CgroupTree {
        &self.cgroups
    }

    /// A place where a test may crash.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::missing_const_for_fn))]
    fn step(&self, _name: &'static str) {
        #[cfg(test)]
        if let Some(f) = self.step.get() {
            f(_name);
        }
    }

    /// The mount namespace of the running container, if it runs.
    fn inside(&self, container: &ContainerId) -> Result<Option<Inside>> {
        loop {
            let Some(running) = self.running_now(container)? else { return Ok(None) };
            let inside = Inside::of(running.pid);
            // The pid may belong to another process by now.
            if self.running_now(container)?.is_some_and(|r| r.pid == running.pid) {
                return inside.map(Some).io(|| format!("open the mount namespace of container {container}"));
            }
        }
    }

    fn is_frozen(&self, container: &ContainerId) -> bool {
        self.config.freezer.state(container).is_ok_and(|s| s == FreezeState::Frozen)
    }
}

impl Runtime for OciRuntime {
    fn name(&self) -> String {
        let path = find::runtime(self.config.runtime.as_deref()).ok();
        path.as_ref().and_then(|p| p.file_name()).map_or_else(|| "none".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    fn probe(&self) -> Result<()> {
        find::probe(self.config.runtime.as_deref())
    }

    fn set_exit_listener(&self, listener: ExitListener) {
        self.watcher.set_listener(listener);
    }

    fn set_oom_listener(&self, listener: OomListener) {
        self.watcher.set_oom_listener(listener);
    }

    fn prepare(&self, container: &ContainerId, limits: &Limits) -> Result<()> {
        self.cgroups.create(container)?;
        self.cgroups.set_limits(container, limits, self.config.pids_limit)
    }

    fn start(&self, spec: &RunSpec) -> Result<Running> {
        self.start_run(spec)
    }

    fn adopt(&self, container: &ContainerId) -> Result<Option<Running>> {
        self.adopt_run(container)
    }

    fn running(&self, container: &ContainerId) -> Result<Option<Running>> {
        self.running_now(container)
    }

    fn stop(&self, container: &ContainerId, timeout: std::time::Duration) -> Result<()> {
        self.stop_run(container, timeout)
    }

    fn kill(&self, container: &ContainerId) -> Result<()> {
        self.kill_run(container)
    }

    fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        self.exec_in(container, spec)
    }

    fn remount(&self, container: &ContainerId, mount: &Mount) -> Result<()> {
        let Some(inside) = self.inside(container)? else { return Ok(()) };
        let at = Path::new(&mount.target);
        let failed = |e: std::io::Error| {
            let message = format!("{} of container {container} could not be mounted again: {e}; restart it", at.display());
            Error::new(crate::error::Code::RemountFailed, message).with_source(e)
        };
        let Some(dir) = mount.source.open().map_err(failed)? else { return Ok(()) };
        let tree = hub::mount_of(dir.as_fd(), mount.read_only).map_err(failed)?;
        let old = inside.mounts().map_err(failed)?.into_iter().rfind(|m| m.at == at);
        inside.enter(|| inside::exchange(old.as_ref(), at, tree.as_fd())).map_err(failed)
    }

    fn stats(&self, container: &ContainerId) -> Result<RuntimeStats> {
        self.cgroups.stats(container)
    }

    fn all_tasks(&self) -> Option<TaskStats> {
        self.cgroups.all_tasks()
    }

    fn console(&self, container: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        self.consoles.tail(container, last)
    }

    fn remove(&self, container: &ContainerId) -> Result<()> {
        self.kill_run(container)?;
        self.cgroups.remove(container)?;
        self.consoles.remove(container)?;
        self.dirs.remove(container)
    }

    fn list(&self) -> Result<Vec<ContainerId>> {
        let mut all: BTreeSet<ContainerId> = self.cgroups.list()?.into_iter().collect();
        all.extend(self.dirs.list()?);
        Ok(all.into_iter().collect())
    }
}

fn not_running(container: &ContainerId) -> Error {
    Error::new(Code::NotRunning, format!("container {container} is not running: start it first"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod calls;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod mounts;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tasks;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod user_limits;
