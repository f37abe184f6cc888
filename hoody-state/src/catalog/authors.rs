//! Who made what, by the history.

use crate::error::Result;
use crate::id::ContainerId;
use crate::model::NodeKind;
use crate::name::SnapshotName;
use rusqlite::{Connection, OptionalExtension};

/// Who made a snapshot that exists, as the history names it.
pub(crate) fn author_of_snapshot(c: &Connection, id: &ContainerId, name: &SnapshotName) -> Result<Option<String>> {
    let sql = "SELECT author FROM history WHERE container_id = ?1 AND snapshot = ?2 AND deleted_ms IS NULL AND copied = 0";
    Ok(c.prepare_cached(sql)?.query_row([id.as_str(), name.as_str()], |r| r.get::<_, Option<String>>(0)).optional()?.flatten())
}

/// How many snapshots of a container that exist an author has made.
pub(crate) fn snapshots_by(c: &Connection, id: &ContainerId, author: &str) -> Result<u64> {
    let sql = "SELECT count(*) FROM history WHERE container_id = ?1 AND author = ?2 AND snapshot IS NOT NULL AND deleted_ms IS NULL AND copied = 0";
    Ok(c.prepare_cached(sql)?.query_row([id.as_str(), author], |r| r.get(0))?)
}

/// Who made a container that is a copy.
pub(crate) fn author_of_copy(c: &Connection, id: &ContainerId) -> Result<Option<String>> {
    let sql = "SELECT author FROM history WHERE container_id = ?1 AND on_line = 1 AND kind IN (?2, ?3) ORDER BY seq LIMIT 1";
    let kinds = [NodeKind::Fork.as_str(), NodeKind::Copy.as_str()];
    Ok(c.prepare_cached(sql)?.query_row([id.as_str(), kinds[0], kinds[1]], |r| r.get::<_, Option<String>>(0)).optional()?.flatten())
}
