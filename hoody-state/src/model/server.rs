use crate::id::ServerId;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// This server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Its id, kept in the pool.
    pub id: ServerId,
    /// Its name.
    pub name: String,
}

/// The pool's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolInfo {
    /// Of the file system.
    pub total: Bytes,
    /// In use.
    pub used: Bytes,
    /// Still to be written.
    pub free: Bytes,
    /// Kept back: changes are refused with 507 when less is free.
    pub reserve: Bytes,
    /// `ok`, `low`, or `read_only`.
    pub health: String,
    /// Processes and threads of all containers together. Null where the host does not count them.
    pub tasks: Option<TaskStats>,
    /// Whether nothing can be written: the kernel makes a file system read-only that it could not write to.
    #[serde(default)]
    pub read_only: bool,
    /// Why, as far as it can be told, and what to do.
    #[serde(default)]
    pub read_only_reason: Option<String>,
    /// The image that the pool is on; null: it is on a device.
    #[serde(default)]
    pub image: Option<PoolImage>,
    /// Whether what containers write is counted, so that they can have disk limits: `simple` or `unsupported`.
    #[serde(default)]
    pub quotas: String,
    /// Why not.
    #[serde(default)]
    pub quotas_reason: Option<String>,
    /// Volumes that are deleted and whose space is coming back.
    pub reclaiming: Vec<Reclaiming>,
}

/// Processes and threads, which the kernel calls tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskStats {
    /// How many there are.
    pub usage: u64,
    /// How many there may be. Null: no limit.
    pub limit: Option<u64>,
}

/// The image that a pool is on, and what the file system beneath it keeps for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolImage {
    /// Its length: what the pool may grow to.
    pub size: Bytes,
    /// What is offered to the pool's file system now.
    pub offered: Bytes,
    /// What the image takes from the file system beneath. Below `offered` only while that has plenty left.
    pub reserved: Bytes,
    /// What is kept free ahead of use (`serve --pool-reserve`); null: the whole image. 0: nothing is reserved.
    pub reserve_ahead: Option<Bytes>,
    /// What the file system beneath has left.
    pub beneath_free: Bytes,
}

/// Something whose space is coming back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reclaiming {
    /// What it was.
    pub what: String,
    /// Volumes still to go.
    pub volumes: u64,
}

/// A finding of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The stable word.
    pub code: String,
    /// One line for people: what, where, what `--repair` does.
    pub message: String,
    /// Whether `--repair` mended it.
    pub repaired: bool,
}
