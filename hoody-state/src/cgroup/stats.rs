//! Processor time, memory and processes that a container uses.

use super::tree::CgroupTree;
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::run::RuntimeStats;
use crate::units::Bytes;
use std::path::Path;

impl CgroupTree {
    /// What the container uses now; zeros if it has no group. Cost: a few small reads, however large the container is.
    ///
    /// # Errors
    /// `io`.
    pub fn stats(&self, container: &ContainerId) -> Result<RuntimeStats> {
        if !self.exists(container) {
            return Ok(RuntimeStats::default());
        }
        let v2 = self.v2_dir(container);
        let v2_memory = v2.as_ref().filter(|_| self.layout().v2_has("memory")).and_then(|d| number(&d.join("memory.current")));
        let v1_memory = || self.v1_dir("memory", container).and_then(|d| number(&d.join("memory.usage_in_bytes")));
        // v1 includes the time of descendants; v2 has `cpu.stat` even without the controller.
        let v1_cpu = self.v1_dir("cpuacct", container).and_then(|d| number(&d.join("cpuacct.usage")));
        let v2_cpu = || v2.as_ref().and_then(|d| usage_ns(&std::fs::read_to_string(d.join("cpu.stat")).ok()?));
        Ok(RuntimeStats {
            processes: self.procs(container)?.len() as u64,
            tasks: self.tasks(container),
            cpu_ns: v1_cpu.or_else(v2_cpu),
            memory: v2_memory.or_else(v1_memory).map(Bytes),
        })
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn usage_ns(cpu_stat: &str) -> Option<u64> {
    cpu_stat.lines().find_map(|l| l.strip_prefix("usage_usec ")).and_then(|n| n.parse::<u64>().ok()).map(|us| us.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn processor_time_is_found_by_its_key() {
        assert_eq!(super::usage_ns("usage_usec 12\nuser_usec 3\n"), Some(12_000));
        assert_eq!(super::usage_ns("nothing"), None);
    }
}
