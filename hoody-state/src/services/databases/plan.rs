//! What a restore does with the project's databases: a decision, without I/O.

use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, Result};
use crate::id::ProjectId;
use crate::model::{DatabaseScope, DatabasesChoice, Status};
use crate::name::SnapshotName;
use crate::units::VolumeId;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What a restore does with the project's databases. Part of the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub(crate) enum DatabasesPlan {
    /// They stay; private ones are in the container's own volume.
    #[default]
    Keep,
    /// Nobody else uses them: the volume, whose id is `was`, is exchanged.
    Exchange { project: ProjectId, was: VolumeId },
    /// Others use them: they are written as any other client would.
    Revert { project: ProjectId },
}

/// What there is to decide about: the snapshot holds databases of the project, and the project has databases now.
pub(super) struct Situation<'a> {
    pub container: &'a ContainerRow,
    pub snapshot: &'a SnapshotName,
    /// The project's databases as they are now.
    pub present: VolumeId,
    pub choice: Option<DatabasesChoice>,
}

/// Whether another container uses the project's databases too.
pub(super) fn shares_them(me: &ContainerRow, other: &ContainerRow) -> bool {
    other.id != me.id
        && other.project == me.project
        && other.spec.databases == DatabaseScope::Project
        && !matches!(other.status, Status::Deleting | Status::Deleted)
}

/// What is said of databases that these other containers use too, with their names as data; nothing if there are none.
pub(super) fn shared(others: &[ContainerRow]) -> Option<(String, serde_json::Value)> {
    if others.is_empty() {
        return None;
    }
    let names: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
    let message = format!(
        "the databases of this container are used by {} too: say databases: \"revert\" to take them back for all, or \"keep\" to leave them as they are; nothing was changed",
        names.join(", ")
    );
    Some((message, json!({ "containers": others.iter().map(|o| json!({ "id": o.id, "name": o.name })).collect::<Vec<_>>() })))
}

/// `others` are the other containers that use the databases; `both_empty` tells whether there is no database, neither in the snapshot nor now.
/// Error: `databases_shared`, naming the other containers.
pub(super) fn decide(s: &Situation<'_>, others: &[ContainerRow], both_empty: impl FnOnce() -> bool) -> Result<DatabasesPlan> {
    let project = s.container.project.clone();
    match s.choice {
        Some(DatabasesChoice::Keep) => return Ok(DatabasesPlan::Keep),
        _ if others.is_empty() => return Ok(DatabasesPlan::Exchange { project, was: s.present }),
        Some(DatabasesChoice::Revert) => return Ok(DatabasesPlan::Revert { project }),
        None if both_empty() => return Ok(DatabasesPlan::Keep),
        None => {}
    }
    let (_, data) = shared(others).unwrap_or_default();
    let names: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
    let message = format!(
        "the databases of snapshot {} are used by {} too: say databases: \"revert\" to take them back for all, or \"keep\" to leave them as they are; nothing was changed",
        s.snapshot,
        names.join(", ")
    );
    Err(Error::new(Code::DatabasesShared, message).with_data(data))
}
