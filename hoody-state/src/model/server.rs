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
    /// `ok` or `low`.
    pub health: String,
    /// Processes and threads of all containers together. Null where the host does not count them.
    pub tasks: Option<TaskStats>,
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
