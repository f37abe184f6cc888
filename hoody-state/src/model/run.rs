//! What a run of a container may use, and what it uses.

use super::TaskStats;
use crate::units::Bytes;

/// Which network a container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Loopback alone, in a namespace of its own.
    #[default]
    None,
    /// The host's.
    Host,
}

/// What a container may use. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Of memory.
    pub memory: Option<Bytes>,
    /// Of processors: 0.5 is half of one.
    pub cpus: Option<f64>,
}

/// What a container uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuntimeStats {
    /// How many processes.
    pub processes: u64,
    /// Processes and threads, and how many there may be. `None` where the host does not count them.
    pub tasks: Option<TaskStats>,
    /// Processor time used in all, in nanoseconds, over all runs of the cgroup. `None` where the host does not count it.
    pub cpu_ns: Option<u64>,
    /// Memory charged. `None` where the host does not count it.
    pub memory: Option<Bytes>,
}
