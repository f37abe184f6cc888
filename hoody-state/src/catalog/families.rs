//! Containers that were copied from each other on this server, and may so share data.

use crate::error::Result;
use crate::id::ContainerId;
use rusqlite::Connection;
use std::collections::HashMap;

/// Which container each comes from.
pub(crate) struct Families {
    sources: HashMap<String, Option<String>>,
}

/// A point in the life of a family: as long as it is the same, no operation has been begun on a container of the family or on an image that may copy one of its
/// snapshots. What the [others](HARMLESS) change shows in the volumes themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(i64);

/// Operations that copy no snapshot. They make a volume from the live one or delete one, or change the live one, and what only a given snapshot holds stays the same or
/// shows in the generation of a volume. With one snapshot every minute, the figures of all others stay valid.
const HARMLESS: &str =
    "('snapshot.create', 'snapshot.delete', 'file.write', 'file.delete', 'container.start', 'container.stop', 'container.force-stop', 'container.restart')";

impl Families {
    /// Cost: a look at each container of the server.
    pub(crate) fn read(c: &Connection) -> Result<Self> {
        let mut s = c.prepare_cached("SELECT id, json_extract(spec, '$.source') FROM containers")?;
        let sources = s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        Ok(Families { sources })
    }

    /// The first ancestor of a container, which may be gone.
    fn root<'a>(&'a self, id: &'a str) -> &'a str {
        let mut at = id;
        // A container is never older than its source, but what the catalog says must not keep anybody here for ever.
        for _ in 0..=self.sources.len() {
            match self.sources.get(at) {
                Some(Some(source)) => at = source,
                _ => break,
            }
        }
        at
    }

    fn members<'a>(&'a self, id: &'a ContainerId) -> impl Iterator<Item = &'a str> {
        let root = self.root(id.as_str());
        self.sources.keys().map(String::as_str).filter(move |m| self.root(m) == root)
    }

    /// The epoch of a container's family; `None`: an operation is under way on one of them or on an image. Cost: two look-ups a member.
    pub(crate) fn epoch(&self, c: &Connection, id: &ContainerId) -> Result<Option<Epoch>> {
        let busy_images: bool =
            c.prepare_cached("SELECT EXISTS(SELECT 1 FROM operations WHERE status = 'running' AND resource_type = 'image')")?.query_row([], |r| r.get(0))?;
        let mut newest: i64 = c.prepare_cached("SELECT coalesce(max(rowid), 0) FROM operations WHERE resource_type = 'image'")?.query_row([], |r| r.get(0))?;
        let last = format!("SELECT coalesce(max(rowid), 0) FROM operations WHERE resource_type = 'container' AND resource_id = ?1 AND kind NOT IN {HARMLESS}");
        let running = format!("SELECT EXISTS(SELECT 1 FROM operations WHERE resource_id = ?1 AND status = 'running' AND kind NOT IN {HARMLESS})");
        let (mut last, mut running) = (c.prepare_cached(&last)?, c.prepare_cached(&running)?);
        if busy_images {
            return Ok(None);
        }
        for member in self.members(id) {
            if running.query_row([member], |r| r.get(0))? {
                return Ok(None);
            }
            newest = newest.max(last.query_row([member], |r| r.get(0))?);
        }
        Ok(Some(Epoch(newest)))
    }
}
