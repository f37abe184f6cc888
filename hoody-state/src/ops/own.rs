//! What a container may change of itself by its socket: the snapshots that it took that way, and nothing that somebody else made.

use crate::catalog::authors;
use crate::catalog::snapshots::SnapshotRow;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::op::Caller;
use rusqlite::Connection;

/// Refuses a change of a snapshot by a container that did not make it. To be asked in the transaction of the change, so that the row is still that snapshot.
/// Error: `snapshot_not_own`.
pub(super) fn require_own(c: &Connection, caller: &Caller, id: &ContainerId, row: &SnapshotRow) -> Result<()> {
    let name = &row.snapshot.name;
    if !caller.inside || authors::author_of_snapshot(c, id, name)?.as_deref() == Some(caller.author()) {
        return Ok(());
    }
    let message = format!("snapshot {name} was not made by the container itself: from inside, a container changes only snapshots that it took by its socket");
    Err(Error::new(Code::SnapshotNotOwn, message))
}
