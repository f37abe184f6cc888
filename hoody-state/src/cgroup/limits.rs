//! Limits of a container's group.

use super::tree::CgroupTree;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::model::run::Limits;
use crate::units::Bytes;
use std::path::Path;

/// With less memory than this, no OCI runtime starts.
const MIN_MEMORY: Bytes = Bytes::mib(8);
const PERIOD_US: u64 = 100_000;

/// One checked limit, in the units of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// The limit in bytes, in microseconds of each 100 ms, or in tasks.
    Of(u64),
}

impl Limit {
    /// `memory`, at least 8 MiB.
    ///
    /// # Errors
    /// `invalid_limit`.
    pub fn memory(memory: Option<Bytes>) -> Result<Self> {
        match memory {
            None => Ok(Limit::Unlimited),
            Some(b) if b >= MIN_MEMORY && b.0 <= i64::MAX as u64 => Ok(Limit::Of(b.0)),
            Some(b) => Err(Error::new(Code::InvalidLimit, format!("{b} is not a valid memory limit: it must be at least {MIN_MEMORY}"))),
        }
    }

    /// `cpus`, 0.01 to 100,000.
    ///
    /// # Errors
    /// `invalid_limit`.
    pub fn cpus(cpus: Option<f64>) -> Result<Self> {
        match cpus {
            None => Ok(Limit::Unlimited),
            Some(n) if (0.01..=100_000.0).contains(&n) => Ok(Limit::Of((n * PERIOD_US as f64).round() as u64)),
            Some(n) => Err(Error::new(Code::InvalidLimit, format!("{n} is not a valid number of processors: it must be 0.01 or more; 0.5 is half of one"))),
        }
    }

    fn or(self, unlimited: &str) -> String {
        match self {
            Limit::Unlimited => unlimited.to_owned(),
            Limit::Of(n) => n.to_string(),
        }
    }
}

/// The host keeps a sixteenth of its memory however many containers fill theirs and their RAM disks, and at least this much.
const LEFT_TO_HOST: Bytes = Bytes::mib(256);

/// The machine's memory; 0 if it is unknown.
pub(crate) fn host_memory() -> Bytes {
    let kib = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()));
    Bytes(kib.unwrap_or(0) << 10)
}

impl CgroupTree {
    /// Limits the memory of all containers together, so that the host keeps some: killing processes frees nothing that is in RAM disks. A limit that an operator has set stays.
    pub(super) fn leave_some(parent: &Path) {
        let host = host_memory().0;
        let Some(most) = host.checked_sub((host / 16).max(LEFT_TO_HOST.0)).filter(|m| *m > 0) else { return };
        for (file, unlimited) in [("memory.max", None), ("memory.limit_in_bytes", Some(i64::MAX as u64 >> 1))] {
            let file = parent.join(file);
            let Ok(now) = std::fs::read_to_string(&file) else { continue };
            let now = now.trim();
            if (now == "max" || unlimited.is_some_and(|u| now.parse::<u64>().is_ok_and(|n| n >= u)))
                && let Err(e) = std::fs::write(&file, most.to_string())
            {
                tracing::warn!(file = %file.display(), error = %e, "containers may take all of the host's memory");
            }
        }
    }

    /// Puts limits on the container's group, whether it runs or not. The group must exist. Cost: three small writes.
    ///
    /// # Errors
    /// `invalid_limit`; `limit_below_usage` (`Kind::Conflict`) when more memory is charged than the new limit and cannot be reclaimed; `no_controller`
    /// (`Kind::Unavailable`) when this machine cannot enforce a limit that was asked for.
    pub fn set_limits(&self, container: &ContainerId, limits: &Limits, pids: Option<u64>) -> Result<()> {
        let memory = Limit::memory(limits.memory)?;
        let cpus = Limit::cpus(limits.cpus)?;
        let pids = pids.map_or(Limit::Unlimited, Limit::Of);
        let v2 = self.v2_dir(container);
        let v2_of = |c: &str| v2.as_deref().filter(|_| self.layout().v2_has(c));
        match (v2_of("memory"), self.v1_dir("memory", container)) {
            (Some(d), _) => set(&d.join("memory.max"), &memory.or("max"))?,
            (None, Some(d)) => set(&d.join("memory.limit_in_bytes"), &memory.or("-1"))?,
            (None, None) => missing("memory", memory)?,
        }
        match (v2_of("cpu"), self.v1_dir("cpu", container)) {
            (Some(d), _) => set(&d.join("cpu.max"), &format!("{} {PERIOD_US}", cpus.or("max")))?,
            (None, Some(d)) => {
                set(&d.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                set(&d.join("cpu.cfs_quota_us"), &cpus.or("-1"))?;
            }
            (None, None) => missing("cpu", cpus)?,
        }
        match self.tasks_dir(container) {
            Some(d) => set(&d.join("pids.max"), &pids.or("max")),
            // Our own default, which the caller did not ask for.
            None => Ok(()),
        }
    }
}

fn missing(controller: &str, limit: Limit) -> Result<()> {
    if limit == Limit::Unlimited {
        return Ok(());
    }
    Err(Error::new(
        Code::NoController,
        format!("this machine cannot limit {controller}: its cgroup controller is not mounted; boot without cgroup_disable={controller}, or set no limit"),
    ))
}

fn set(file: &Path, value: &str) -> Result<()> {
    match std::fs::write(file, value) {
        Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => {
            Err(Error::new(Code::LimitBelowUsage, format!("cannot set {} to {value}: more than that is in use; free some memory first", file.display())))
        }
        r => r.io(|| format!("write {value} to {}", file.display())),
    }
}
