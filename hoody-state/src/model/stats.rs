//! Figures of a container.

use super::TaskStats;
use super::space::DiskUse;
use crate::clock::rfc3339;
use crate::id::{ContainerId, ProjectId};
use crate::model::RamdiskScope;
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A container's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContainerStats {
    /// Which.
    pub id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// This server's name.
    pub server_name: String,
    /// `Running`, `Stopped`, `Frozen` …
    pub status: String,
    /// 103 running, 102 stopped, 110 frozen, 112 error (the published codes are LXD's).
    pub status_code: u32,
    /// How many.
    pub processes: u64,
    /// Processes and threads, and how many there may be. Null where the host does not count them.
    pub tasks: Option<TaskStats>,
    /// Of this run; when stopped, of the container's making.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// Null where the host does not count it.
    pub cpu: Option<CpuStats>,
    /// Null where the host does not count it.
    pub memory: Option<MemoryStats>,
    /// Of the root.
    pub disk: DiskStats,
    /// The RAM disk's figures.
    pub ramdisk: RamdiskStats,
    /// Always empty: loopback or the host's.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub network: Vec<serde_json::Value>,
    /// How long it took to gather.
    pub processing_time: String,
}

/// Processor time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CpuStats {
    /// Nanoseconds used in all.
    pub usage: u64,
    /// Since the last look, of one processor: 200 is two of them all the time.
    pub usage_percent: f64,
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemoryStats {
    /// In use.
    pub usage: Bytes,
    /// The limit, or the host's memory.
    pub total: Bytes,
    /// Of the total.
    pub usage_percent: f64,
}

/// Disks by name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskStats {
    /// The root.
    pub root: DiskUsage,
}

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskUsage {
    /// Of the pool.
    pub total: Bytes,
    /// Referenced by the live volume.
    pub usage: Bytes,
    /// What counts to the disk limit, and the limit. Null: this pool does not count.
    #[serde(default)]
    pub counted: Option<DiskUse>,
}

/// The RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RamdiskStats {
    /// How far it reaches.
    pub scope: RamdiskScope,
    /// The most it may hold.
    pub shared_pool_maximum: Option<Bytes>,
    /// Never: it takes what it holds.
    pub capacity_reserved: bool,
    /// Null while there is none.
    pub usage: Option<RamdiskUsage>,
}

/// What a RAM disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RamdiskUsage {
    /// This container's.
    pub private: Bytes,
    /// Always null.
    pub secrets: Option<Bytes>,
    /// The project's.
    pub project: Option<Bytes>,
}
