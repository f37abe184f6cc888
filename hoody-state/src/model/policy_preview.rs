//! What the API shows of snapshot policies: the one that applies, and what it would do.

use super::{SnapshotPolicy, Tier};
use crate::clock::rfc3339;
use crate::name::SnapshotName;
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose policy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PolicyLevel {
    /// The container's.
    Container,
    /// The project's.
    Project,
    /// The server's.
    Server,
}

/// A run that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NextRun {
    /// The schedule.
    pub schedule: String,
    /// When it starts; of a container's policy with the container's part of the spread.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// The policy that applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyAnswer {
    /// It; null: there is none, and nothing automatic happens.
    pub policy: Option<SnapshotPolicy>,
    /// Whose it is: of a container without one of its own it is the project's or the server's. Null: there is none.
    pub inherited_from: Option<PolicyLevel>,
    /// The next run of each schedule, the soonest first.
    pub next_runs: Vec<NextRun>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// Which policy is tried out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyPreviewRequest {
    /// Default: the one that applies.
    #[serde(default)]
    pub policy: Option<SnapshotPolicy>,
    /// Say also what would exist on each of so many days, 1–400.
    #[serde(default)]
    pub simulate_days: Option<u32>,
}

/// What a policy would do to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyPreview {
    /// What becomes of each snapshot at the next run of its schedule, the newest first.
    pub snapshots: Vec<SnapshotPreview>,
    /// The next run of each schedule, the soonest first.
    pub next_runs: Vec<NextRun>,
    /// What is allowed but probably not meant, and snapshots that nothing will remove.
    pub warnings: Vec<String>,
    /// One for each day, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<SimulatedDay>>,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotPreview {
    /// Which.
    pub snapshot: SnapshotName,
    /// When it was taken.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// The schedule that took it.
    pub schedule: Option<String>,
    /// What becomes of it.
    pub action: Action,
    /// The rules that keep it.
    pub reasons: Vec<Reason>,
    /// What keeps it beside the rules.
    pub protected_by: Option<Protection>,
    /// Bytes of file data that come back when it alone is deleted. Absent: not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frees_bytes: Option<Bytes>,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stays.
    Keep,
    /// The next run of its schedule deletes it.
    Remove,
}

/// A rule that keeps a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The rule of `keep`.
    pub tier: Tier,
    /// The period in the policy's time zone, such as `2026-11-29`, `2026-W48` or `2026-10-25T02+02:00`; for `last` the time of the snapshot.
    pub bucket: String,
    /// Its place among those that the rule keeps, from 1 for the newest.
    pub nth: u32,
    /// It is not the newest of its period: the rule has found fewer than it asks for, and keeps the oldest snapshot too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oldest: bool,
}

/// What keeps a snapshot, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It is dated in the future: it is ignored.
    Future,
    /// Not all of it is there yet.
    Incomplete,
    /// It is pinned.
    Pinned,
    /// Somebody asked for it.
    Manual,
    /// An undo snapshot, which lasts until it expires.
    Undo,
    /// An event took it, or it came with a copy: its expiry is its only limit.
    Event,
    /// A schedule took it that the policy does not have.
    OtherSchedule,
    /// A running sync or copy starts from it.
    Base,
    /// It is the newest complete one of its schedule or of the container.
    Newest,
}

/// What would exist at the end of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulatedDay {
    /// The day in the policy's time zone, such as `2026-11-29`.
    pub date: String,
    /// How many snapshots the schedules took on it.
    pub taken: u64,
    /// How many of their snapshots went on it.
    pub removed: u64,
    /// How many snapshots there are beside those of the schedules.
    pub others: u64,
    /// Those of the schedules, the newest first.
    pub snapshots: Vec<SimulatedSnapshot>,
}

/// A snapshot of a schedule that exists, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulatedSnapshot {
    /// The schedule.
    pub schedule: String,
    /// When it was or would be taken.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub taken_at: Timestamp,
    /// Its name, if it exists already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SnapshotName>,
}
