use crate::clock::rfc3339;
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::name::{Alias, SnapshotName};
use crate::units::{Age, Bytes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a snapshot promises of the data in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// No database in it holds half a transaction.
    DatabasesQuiesced,
    /// As after a power cut at one instant.
    Crash,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody asked for it.
    #[default]
    Manual,
    /// A schedule of a policy.
    Schedule,
    /// The container was stopped.
    Stop,
    /// The kernel killed a process of the container for lack of memory.
    Oom,
    /// The state before a restore, sync, promotion, reset or restore of single files: an undo snapshot.
    Restore,
    /// Asked for with a command, and taken before it.
    Exec,
    /// A command failed.
    ExecFailure,
    /// The container was about to be deleted.
    BeforeDelete,
    /// Taken for a copy, a sync or a move; or it came with a copy from another container.
    Copy,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Trigger; 9] = [
        Trigger::Manual,
        Trigger::Schedule,
        Trigger::Stop,
        Trigger::Oom,
        Trigger::Restore,
        Trigger::Exec,
        Trigger::ExecFailure,
        Trigger::BeforeDelete,
        Trigger::Copy,
    ];

    /// Its word on the wire and in the catalog.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::Manual => "manual",
            Trigger::Schedule => "schedule",
            Trigger::Stop => "stop",
            Trigger::Oom => "oom",
            Trigger::Restore => "restore",
            Trigger::Exec => "exec",
            Trigger::ExecFailure => "exec_failure",
            Trigger::BeforeDelete => "before_delete",
            Trigger::Copy => "copy",
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Trigger {
    type Err = Error;

    /// Error: `validation_error`.
    fn from_str(s: &str) -> Result<Self> {
        Trigger::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| {
            let known = Trigger::ALL.map(Trigger::as_str).join(", ");
            let shown: String = s.chars().take(50).collect();
            Error::new(Code::ValidationError, format!("no snapshot has the trigger {shown:?}: it is one of {known}"))
        })
    }
}

/// A snapshot, as the wire shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// Canonical, never changes.
    pub name: SnapshotName,
    /// May be changed.
    pub alias: Option<Alias>,
    /// The alias that it had until a newer snapshot replaced it (`keep_replaced`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_alias: Option<Alias>,
    /// When it was taken.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last restored.
    #[serde(with = "rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_used_at: Option<Timestamp>,
    /// When it will be deleted.
    #[serde(with = "rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// Never: only the disk is kept.
    pub stateful: bool,
    /// Bytes of file data it added since the one before (its `parent`).
    pub size: Bytes,
    /// The snapshot the state grew from; null: the image.
    pub parent: Option<SnapshotName>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Why it must be kept; null: it need not be.
    pub pinned: Option<String>,
    /// What it promises.
    pub consistency: Consistency,
    /// Why it was taken. An older server leaves it out: `manual`.
    #[serde(default, deserialize_with = "trigger")]
    pub trigger: Trigger,
    /// The name of the schedule that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time by that schedule, which is before `created_at` by the spread of the schedule, or by as long as the server was down.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub scheduled_for: Option<Timestamp>,
    /// How many earlier runs of that schedule were missed, and are made up for by this one. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Bytes of file data on the disk that come back when it is deleted; only in the answer for one snapshot. Absent: not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frees_bytes: Option<Bytes>,
    /// The databases in it; only in the answer for one snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<SnapshotDatabase>>,
}

/// A database in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotDatabase {
    /// Where it is in the container.
    pub path: String,
    /// With its log.
    pub size: Bytes,
}

/// All snapshots of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotList {
    /// Of which container.
    pub container_id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// How many.
    pub snapshot_count: u64,
    /// How many it may have.
    pub max_snapshots: Option<u64>,
    /// Newest first.
    pub snapshots: Vec<Snapshot>,
}

/// One snapshot of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotAnswer {
    /// Of which container.
    pub container_id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// It.
    pub snapshot: Snapshot,
}

/// A deleted snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotDeleted {
    /// Of which container.
    pub container_id: ContainerId,
    /// Its project.
    pub project_id: ProjectId,
    /// Which.
    pub snapshot_name: SnapshotName,
}

/// What to do when the alias of a new snapshot is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnAliasConflict {
    /// 409.
    #[default]
    Error,
    /// The new snapshot exists first, then the old one is deleted, unless it is pinned. With `keep_replaced` it is kept for a while, without its alias.
    Replace,
}

/// A snapshot to be taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewSnapshot {
    /// At most 100 characters.
    pub alias: Option<String>,
    /// Whole days, 1–3650.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>))]
    pub expiry: Option<serde_json::Number>,
    /// At most 16,000 characters.
    pub description: Option<String>,
    /// At most 64.
    pub labels: Option<BTreeMap<String, String>>,
    /// After how long it is deleted, such as `6h` or `7d`: in place of `expiry`.
    #[serde(default)]
    pub expires_in: Option<Age>,
    /// Default `error`.
    #[serde(default)]
    pub on_alias_conflict: OnAliasConflict,
    /// With `on_alias_conflict: replace`: how many of the snapshots that had this alias before are kept, without it; older ones are deleted. At most 1000.
    /// Default 0.
    #[serde(default)]
    pub keep_replaced: Option<u32>,
}

/// Which snapshots a list has: those that have all of what is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Labels that it has, each with this value or with any.
    pub labels: Vec<(String, Option<String>)>,
    /// Taken at this time or later.
    pub since: Option<Timestamp>,
    /// Taken before this time.
    pub until: Option<Timestamp>,
    /// Why it was taken.
    pub trigger: Option<Trigger>,
    /// What its alias, or the alias that it had before it was replaced, begins with.
    pub alias: Option<String>,
}

impl SnapshotFilter {
    /// Whether a snapshot is in the list.
    #[must_use]
    pub fn matches(&self, s: &Snapshot) -> bool {
        let label = |(key, value): &(String, Option<String>)| s.labels.get(key).is_some_and(|v| value.as_ref().is_none_or(|wanted| wanted == v));
        self.labels.iter().all(label)
            && self.since.is_none_or(|t| s.created_at >= t)
            && self.until.is_none_or(|t| s.created_at < t)
            && self.trigger.is_none_or(|t| s.trigger == t)
            && self.alias.as_ref().is_none_or(|a| s.alias.iter().chain(&s.replaced_alias).any(|of| of.as_str().starts_with(a.as_str())))
    }
}

/// How to restore. Without any of it: the present is kept as an undo snapshot that expires by itself, and what ran boots.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreOptions {
    /// Keep the present under this alias, without expiry.
    pub keep_current: Option<String>,
    /// `revert` or `keep`; only of meaning where other containers use the same databases.
    pub databases: Option<DatabasesChoice>,
    /// Boot afterwards; default: if it ran or was paused before.
    pub start: Option<bool>,
}

/// What a restore does with databases that others use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DatabasesChoice {
    /// They go back too.
    Revert,
    /// They stay.
    Keep,
}

/// A restore's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restored {
    /// True: a failure is an error.
    pub success: bool,
    /// For people.
    pub message: String,
    /// What was restored.
    pub snapshot: Option<Snapshot>,
    /// What was kept of the state before.
    pub undo: Option<SnapshotName>,
    /// The operation that restores it, if it had not ended when the answer was given (`Prefer: wait`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// A trigger that only a newer server knows is read as [`Trigger::Copy`]: its snapshots can be copied to this one.
fn trigger<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Trigger, D::Error> {
    let word = std::borrow::Cow::<'_, str>::deserialize(d)?;
    Ok(word.parse().unwrap_or(Trigger::Copy))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn snapshots_of_older_and_newer_servers_are_read() {
        let of = |trigger: Option<&str>| {
            let mut s = serde_json::json!({
                "name": "a", "alias": null, "created_at": "2026-11-23T10:05:00Z", "last_used_at": null, "expires_at": null, "stateful": false,
                "size": 0, "parent": null, "description": null, "labels": {}, "pinned": null, "consistency": "crash"
            });
            if let Some(t) = trigger {
                s["trigger"] = t.into();
            }
            serde_json::from_value::<Snapshot>(s).unwrap()
        };
        assert_eq!((of(None).trigger, of(Some("teleported")).trigger), (Trigger::Manual, Trigger::Copy));
        for t in Trigger::ALL {
            assert_eq!(of(Some(t.as_str())).trigger, t);
            assert_eq!((serde_json::to_value(t).unwrap(), t.as_str().parse::<Trigger>().unwrap()), (t.as_str().into(), t));
        }
        assert_eq!("teleported".parse::<Trigger>().unwrap_err().code(), Code::ValidationError);
    }
}
