use super::{DatabasesChoice, DiffRecord, DiffSummary};
use serde::{Deserialize, Serialize};

/// What a command does to a container is kept, undone or shown. Without any of it the command only runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecRecord {
    /// Whether a snapshot is taken before the command runs, and what it is for. The snapshot is deleted after a day.
    pub snapshot: Option<ExecSnapshot>,
    /// `revert` or `keep`: what an undo does with databases that other containers use too. Without it such a command is refused before it runs.
    pub databases: Option<DatabasesChoice>,
    /// Whether the answer lists what changed in the container's files while the command ran. Without `snapshot` the state before is not kept.
    #[serde(default)]
    pub diff: bool,
}

/// What the snapshot before a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExecSnapshot {
    /// It is taken and kept.
    Before,
    /// It is restored if the command fails: an exit code other than 0, a signal, the time limit, or a client that went away. The container boots from it, and
    /// what the command left is kept as an undo snapshot.
    OnFailureUndo,
}

/// What changed in a container's files while a command ran, whoever changed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecDiff {
    /// The first 1,000 names that differ, by path.
    pub records: Vec<DiffRecord>,
    /// How many of which kind there are among the records. If `next_cursor` is set there are more.
    pub summary: DiffSummary,
}
