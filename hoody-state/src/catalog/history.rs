//! Where the states of containers come from: a graph whose nodes are written by the operations that make them, in the transaction that ends each.
//!
//! **Rules.**
//! 1. A node is written after its parents and is never dated before them. So the graph has no cycles, and (time, number) is an order in which parents come first.
//! 2. A container's *line* are the nodes its live state went through. The newest of them is what the live state grows from now.
//! 3. A deleted snapshot stays as a placeholder for as long as another node or a live state comes from it. Of a deleted container only what other containers
//!    come from stays; what lies between is bridged: a child is handed to the nearest ancestors that are left.
//! 4. A container keeps at most [`KEPT`] nodes that are not snapshots which exist: the oldest are bridged.

use super::snapshots::SnapshotRow;
use super::{Tx, containers, ms, operations, to_json};
use crate::error::Result;
use crate::id::{ContainerId, ServerId};
use crate::model::{NodeKind, NodeSource};
use crate::name::{ImageName, SnapshotName};
use crate::units::Generation;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Nodes that a container keeps beside the snapshots that exist.
const KEPT: u64 = 10_000;
/// After how many nodes it is looked for containers that have more.
const PRUNE_EVERY: i64 = 1000;

/// The number of a node: ascending, never used again.
pub(crate) type Seq = i64;

/// What a node says beside its columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// The other container of a copy, a sync or a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<NodeSource>,
    /// The snapshot that was restored, if the node is a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<SnapshotName>,
}

/// Where a node comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent<'a> {
    /// What the live state of a container grows from now.
    Present(&'a ContainerId),
    /// A snapshot that exists.
    Snapshot(&'a ContainerId, &'a SnapshotName),
    /// What a snapshot that exists is a copy of, if that is known here; else itself.
    Original(&'a ContainerId, &'a SnapshotName),
    /// The image of this name.
    Image(&'a str),
}

/// A node of a container's line that is to be recorded. See [`Tx::record`].
pub(crate) struct Entry<'a> {
    kind: NodeKind,
    container: &'a ContainerId,
    parents: Vec<Parent<'a>>,
    overwrote: Option<&'a SnapshotName>,
    image: Option<&'a str>,
    author: Option<&'a str>,
    detail: Detail,
}

impl<'a> Entry<'a> {
    /// A node without parents.
    pub(crate) fn new(kind: NodeKind, container: &'a ContainerId) -> Self {
        Entry { kind, container, parents: Vec::new(), overwrote: None, image: None, author: None, detail: Detail::default() }
    }

    /// Adds a parent. One that is not in the history (any more) is left out.
    #[must_use]
    pub(crate) fn from(mut self, parent: Parent<'a>) -> Self {
        self.parents.push(parent);
        self
    }

    /// The container's snapshot that has what was live before.
    #[must_use]
    pub(crate) fn overwrote(mut self, undo: Option<&'a SnapshotName>) -> Self {
        self.overwrote = undo;
        self
    }

    /// The snapshot that was put in the place of the live state, by its name of now.
    #[must_use]
    pub(crate) fn restored(mut self, snapshot: &SnapshotName) -> Self {
        self.detail.restored = Some(snapshot.clone());
        self
    }

    /// The other container.
    #[must_use]
    pub(crate) fn source(mut self, source: NodeSource) -> Self {
        self.detail.source = Some(source);
        self
    }

    /// The image that the container begins from.
    #[must_use]
    pub(crate) fn image(mut self, name: &'a str) -> Self {
        self.image = Some(name);
        self
    }

    /// Who did it, where that is not the author of the operation.
    #[must_use]
    pub(crate) fn author(mut self, author: &'a str) -> Self {
        self.author = Some(author);
        self
    }
}

/// A row that is to be written.
#[derive(Default)]
struct Row<'a> {
    container: Option<&'a ContainerId>,
    at_ms: i64,
    author: Option<String>,
    snapshot: Option<&'a SnapshotName>,
    image: Option<&'a str>,
    on_line: bool,
    copied: bool,
    overwrote: Option<Seq>,
    copy_of: Option<Seq>,
    content: Option<Generation>,
    detail: Detail,
    parents: Vec<Seq>,
}

/// What a container's live state grows from now.
pub(crate) fn present(c: &Connection, id: &ContainerId) -> Result<Option<Seq>> {
    let sql = "SELECT seq FROM history WHERE container_id = ?1 AND on_line = 1 ORDER BY seq DESC LIMIT 1";
    Ok(c.prepare_cached(sql)?.query_row([id.as_str()], |r| r.get(0)).optional()?)
}

/// The node of a snapshot that exists.
pub(crate) fn of_snapshot(c: &Connection, id: &ContainerId, name: &SnapshotName) -> Result<Option<Seq>> {
    let sql = "SELECT seq FROM history WHERE container_id = ?1 AND snapshot = ?2 AND deleted_ms IS NULL";
    Ok(c.prepare_cached(sql)?.query_row([id.as_str(), name.as_str()], |r| r.get(0)).optional()?)
}

/// The generation of a snapshot's content: no block of its tree is younger. That of a copy is the original's. `None`: not known.
pub(crate) fn content_generation(c: &Connection, id: &ContainerId, name: &SnapshotName) -> Result<Option<Generation>> {
    let sql = "SELECT content_generation FROM history WHERE container_id = ?1 AND snapshot = ?2 AND deleted_ms IS NULL";
    Ok(c.prepare_cached(sql)?.query_row([id.as_str(), name.as_str()], |r| r.get::<_, Option<u64>>(0)).optional()?.flatten().map(Generation))
}

/// How many copies of a snapshot [`copies`] names: they are tried one after the other.
const COPIES_NAMED: u32 = 3;

/// Snapshots that are copies of this one, or of which it is a copy: some, if there are many.
pub(crate) fn copies(c: &Connection, id: &ContainerId, name: &SnapshotName) -> Result<Vec<(ContainerId, SnapshotName)>> {
    let Some(seq) = of_snapshot(c, id, name)? else { return Ok(Vec::new()) };
    let mut s = c.prepare_cached(
        "SELECT container_id, snapshot FROM history WHERE (copy_of = ?1 OR seq = (SELECT copy_of FROM history WHERE seq = ?1)) AND deleted_ms IS NULL LIMIT ?2",
    )?;
    let rows = s.query_map(params![seq, COPIES_NAMED], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
    rows.map(|r| r.map_err(Into::into).and_then(|(id, name)| Ok((id.parse()?, name.parse()?)))).collect()
}

fn of_image(c: &Connection, name: &str) -> Result<Option<Seq>> {
    let sql = "SELECT seq FROM history WHERE container_id IS NULL AND image = ?1 AND deleted_ms IS NULL ORDER BY seq DESC LIMIT 1";
    Ok(c.prepare_cached(sql)?.query_row([name], |r| r.get(0)).optional()?)
}

fn parents_of(c: &Connection, seq: Seq) -> Result<Vec<Seq>> {
    let mut s = c.prepare_cached("SELECT parent FROM history_edges WHERE child = ?1 ORDER BY nth")?;
    Ok(s.query_map([seq], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Whether another node, or a live state, comes from this one.
fn is_needed(c: &Connection, seq: Seq) -> Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM history_edges WHERE parent = ?1) OR EXISTS(SELECT 1 FROM history WHERE overwrote = ?1)
               OR EXISTS(SELECT 1 FROM history h JOIN containers c ON c.id = h.container_id WHERE h.seq = ?1 AND h.on_line = 1
                         AND NOT EXISTS(SELECT 1 FROM history n WHERE n.container_id = h.container_id AND n.on_line = 1 AND n.seq > h.seq))";
    Ok(c.prepare_cached(sql)?.query_row([seq], |r| r.get(0))?)
}

fn find(c: &Connection, parent: Parent<'_>) -> Result<Option<Seq>> {
    match parent {
        Parent::Present(id) => present(c, id),
        Parent::Snapshot(id, name) => of_snapshot(c, id, name),
        Parent::Original(id, name) => {
            let Some(seq) = of_snapshot(c, id, name)? else { return Ok(None) };
            let original: Option<Seq> = c.prepare_cached("SELECT copy_of FROM history WHERE seq = ?1")?.query_row([seq], |r| r.get(0))?;
            Ok(original.or(Some(seq)))
        }
        Parent::Image(name) => of_image(c, name),
    }
}

/// Another container of this server, or of another one, as a node names it.
pub(crate) fn source(server: Option<&ServerId>, server_name: Option<&str>, container: &ContainerId, snapshot: Option<&SnapshotName>) -> NodeSource {
    NodeSource {
        server_id: server.cloned(),
        server_name: server_name.map(str::to_owned),
        container_id: container.clone(),
        is_target: false,
        snapshot: snapshot.cloned(),
    }
}

impl Tx<'_> {
    /// Records what an operation made of a container's live state, which grows from this node from now on. Call it within `op.finish` (or `r.finished`): the
    /// node gets the operation and its author by itself. Snapshots need no call: [`Tx::put_snapshot`] records them, so put those of the overwritten state first.
    pub(crate) fn record(&mut self, entry: &Entry<'_>) -> Result<Seq> {
        let mut parents = Vec::new();
        for p in &entry.parents {
            parents.extend(find(self.conn, *p)?.filter(|s| !parents.contains(s)));
        }
        let overwrote = entry.overwrote.map(|undo| of_snapshot(self.conn, entry.container, undo)).transpose()?.flatten();
        let row = Row {
            container: Some(entry.container),
            at_ms: ms(self.now),
            author: entry.author.map(str::to_owned),
            image: entry.image,
            on_line: true,
            overwrote,
            detail: entry.detail.clone(),
            parents,
            ..Row::default()
        };
        self.insert_node(entry.kind, row)
    }

    /// The same for the first node of a container. Does nothing if it has one: the step that calls this may be repeated.
    pub(crate) fn record_origin(&mut self, entry: &Entry<'_>) -> Result<()> {
        if present(self.conn, entry.container)?.is_none() {
            self.record(entry)?;
        }
        Ok(())
    }

    /// Records an image: one that was imported, or one of a snapshot.
    pub(crate) fn record_image(&mut self, name: &ImageName, from: Option<(&ContainerId, &SnapshotName)>) -> Result<()> {
        let parents = from.map(|(id, snapshot)| of_snapshot(self.conn, id, snapshot)).transpose()?.flatten();
        let kind = if from.is_some() { NodeKind::ImageFromSnapshot } else { NodeKind::ImageImport };
        let row = Row { at_ms: ms(self.now), image: Some(name.as_str()), parents: parents.into_iter().collect(), ..Row::default() };
        self.insert_node(kind, row).map(drop)
    }

    /// The image of this name is deleted.
    pub(crate) fn forget_image(&mut self, name: &ImageName) -> Result<()> {
        let Some(seq) = of_image(self.conn, name.as_str())? else { return Ok(()) };
        self.forget_node(seq)
    }

    /// A snapshot is put into the list. It grows from what the live state grows from if its `parent` is the container's head, else from that snapshot.
    pub(super) fn record_snapshot(&mut self, id: &ContainerId, r: &SnapshotRow) -> Result<()> {
        if of_snapshot(self.conn, id, &r.snapshot.name)?.is_some() {
            return Ok(());
        }
        let head = containers::find(self.conn, id)?.and_then(|c| c.state.head);
        let parent = match &r.snapshot.parent {
            p if *p == head => present(self.conn, id)?,
            Some(p) => of_snapshot(self.conn, id, p)?,
            None => None,
        };
        let row = Row {
            container: Some(id),
            at_ms: ms(r.snapshot.created_at),
            snapshot: Some(&r.snapshot.name),
            on_line: r.snapshot.parent == head,
            content: Some(r.generation),
            parents: parent.into_iter().collect(),
            ..Row::default()
        };
        self.insert_node(NodeKind::Snapshot, row).map(drop)
    }

    /// A snapshot is about to be put into the list of a copy: it was cloned or received with the copy, or brought by a sync. `original`: what it is a copy
    /// of, if that is on this server; else `source` names it.
    pub(crate) fn record_copied_snapshot(
        &mut self,
        id: &ContainerId,
        r: &SnapshotRow,
        original: Option<(&ContainerId, &SnapshotName)>,
        source: Option<NodeSource>,
    ) -> Result<()> {
        if of_snapshot(self.conn, id, &r.snapshot.name)?.is_some() {
            return Ok(());
        }
        let parent = r.snapshot.parent.as_ref().map(|p| of_snapshot(self.conn, id, p)).transpose()?.flatten();
        let copy_of = original.map(|(c, s)| of_snapshot(self.conn, c, s)).transpose()?.flatten();
        // A received volume was written here, after the one that it is an increment on.
        let content = match original {
            Some((c, s)) => content_generation(self.conn, c, s)?,
            None => Some(r.generation),
        };
        // The original may have arrived on this server after it was taken: a copy is never older than what it refers to.
        let mut at_ms = ms(r.snapshot.created_at);
        for seq in copy_of.into_iter().chain(parent) {
            at_ms = at_ms.max(self.conn.prepare_cached("SELECT at_ms FROM history WHERE seq = ?1")?.query_row([seq], |r| r.get(0))?);
        }
        let row = Row {
            container: Some(id),
            at_ms,
            snapshot: Some(&r.snapshot.name),
            copied: true,
            copy_of,
            content,
            detail: Detail { source, restored: None },
            parents: parent.into_iter().collect(),
            ..Row::default()
        };
        self.insert_node(NodeKind::Snapshot, row).map(drop)
    }

    fn insert_node(&mut self, kind: NodeKind, row: Row<'_>) -> Result<Seq> {
        let mut at = row.at_ms;
        for p in &row.parents {
            at = at.max(self.conn.prepare_cached("SELECT at_ms FROM history WHERE seq = ?1")?.query_row([p], |r| r.get(0))?);
        }
        let author = match (row.author, &self.operation) {
            (None, Some(op)) => operations::author(self.conn, op)?,
            (author, _) => author,
        };
        let project = match row.container {
            Some(id) => containers::find(self.conn, id)?.map(|c| c.project),
            None => None,
        };
        self.conn
            .prepare_cached(
                "INSERT INTO history(kind, container_id, project_id, at_ms, author, operation_id, snapshot, image, on_line, copied, overwrote, copy_of,
                 content_generation, detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                kind.as_str(),
                row.container.map(ContainerId::as_str),
                project.as_ref().map(crate::id::ProjectId::as_str),
                at,
                author,
                self.operation.as_ref().map(crate::id::OperationId::as_str),
                row.snapshot.map(SnapshotName::as_str),
                row.image,
                row.on_line,
                row.copied,
                row.overwrote,
                row.copy_of,
                row.content.map(|g| g.0),
                to_json(&row.detail)?
            ])?;
        let seq = self.conn.last_insert_rowid();
        for (nth, p) in row.parents.iter().enumerate() {
            self.conn.prepare_cached("INSERT INTO history_edges(child, nth, parent) VALUES(?1, ?2, ?3)")?.execute(params![seq, nth, p])?;
        }
        if seq % PRUNE_EVERY == 0 {
            self.prune_history(KEPT)?;
        }
        Ok(seq)
    }

    /// A snapshot leaves the list: its node goes, or becomes a placeholder.
    pub(super) fn forget_snapshot(&mut self, id: &ContainerId, name: &SnapshotName) -> Result<()> {
        let Some(seq) = of_snapshot(self.conn, id, name)? else { return Ok(()) };
        self.forget_node(seq)
    }

    fn forget_node(&mut self, seq: Seq) -> Result<()> {
        self.conn.prepare_cached("UPDATE history SET deleted_ms = ?2 WHERE seq = ?1")?.execute(params![seq, ms(self.now)])?;
        self.drop_unneeded(vec![seq])
    }

    /// Drops deleted nodes that nothing comes from, and then those that only they came from.
    fn drop_unneeded(&mut self, mut candidates: Vec<Seq>) -> Result<()> {
        while let Some(seq) = candidates.pop() {
            let deleted: Option<bool> =
                self.conn.prepare_cached("SELECT deleted_ms IS NOT NULL FROM history WHERE seq = ?1")?.query_row([seq], |r| r.get(0)).optional()?;
            if deleted != Some(true) || is_needed(self.conn, seq)? {
                continue;
            }
            candidates.extend(parents_of(self.conn, seq)?);
            candidates.extend(self.overwritten_by(seq)?);
            self.drop_node(seq)?;
        }
        Ok(())
    }

    fn overwritten_by(&self, seq: Seq) -> Result<Option<Seq>> {
        Ok(self.conn.prepare_cached("SELECT overwrote FROM history WHERE seq = ?1")?.query_row([seq], |r| r.get(0)).optional()?.flatten())
    }

    fn drop_node(&mut self, seq: Seq) -> Result<()> {
        for sql in [
            "DELETE FROM history_edges WHERE child = ?1",
            "UPDATE history SET overwrote = NULL WHERE overwrote = ?1",
            "UPDATE history SET copy_of = (SELECT o.copy_of FROM history o WHERE o.seq = ?1) WHERE copy_of = ?1",
            "DELETE FROM history WHERE seq = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([seq])?;
        }
        Ok(())
    }

    /// Takes a node out of the graph: those that come from it come from what it came from.
    fn bridge(&mut self, seq: Seq) -> Result<()> {
        let own = parents_of(self.conn, seq)?;
        let mut s = self.conn.prepare_cached("SELECT DISTINCT child FROM history_edges WHERE parent = ?1")?;
        let children: Vec<Seq> = s.query_map([seq], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
        drop(s);
        for child in children {
            let mut parents: Vec<Seq> = Vec::new();
            for p in parents_of(self.conn, child)? {
                let instead = if p == seq { own.clone() } else { vec![p] };
                instead.into_iter().for_each(|p| {
                    if !parents.contains(&p) {
                        parents.push(p)
                    }
                });
            }
            self.set_parents(child, &parents)?;
        }
        self.drop_node(seq)
    }

    fn set_parents(&mut self, child: Seq, parents: &[Seq]) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM history_edges WHERE child = ?1")?.execute([child])?;
        for (nth, p) in parents.iter().enumerate() {
            self.conn.prepare_cached("INSERT INTO history_edges(child, nth, parent) VALUES(?1, ?2, ?3)")?.execute(params![child, nth, p])?;
        }
        Ok(())
    }

    /// A container leaves the catalog: what others come from stays as placeholders, which keep its last name. Cost: a pass over its nodes.
    pub(super) fn forget_container(&mut self, id: &ContainerId) -> Result<()> {
        let name: Option<String> = containers::find(self.conn, id)?.map(|c| c.name.to_string());
        self.conn.execute(
            "UPDATE history SET deleted_ms = coalesce(deleted_ms, ?2), container_name = ?3, overwrote = NULL WHERE container_id = ?1",
            params![id.as_str(), ms(self.now), name],
        )?;
        let own: HashMap<Seq, Vec<Seq>> = {
            let mut s = self.conn.prepare("SELECT seq FROM history WHERE container_id = ?1")?;
            let all = s.query_map([id.as_str()], |r| r.get(0))?.collect::<rusqlite::Result<Vec<Seq>>>()?;
            all.into_iter().map(|seq| Ok((seq, parents_of(self.conn, seq)?))).collect::<Result<_>>()?
        };
        let kept: HashSet<Seq> = {
            let mut s = self.conn.prepare(
                "SELECT DISTINCT e.parent FROM history_edges e JOIN history p ON p.seq = e.parent JOIN history c ON c.seq = e.child
                 WHERE p.container_id = ?1 AND c.container_id IS NOT ?1",
            )?;
            s.query_map([id.as_str()], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        for seq in &kept {
            let left = nearest(own.get(seq).map_or(&[], Vec::as_slice), &own, &kept);
            self.set_parents(*seq, &left)?;
        }
        let elsewhere: BTreeSet<Seq> = own.values().flatten().filter(|p| !own.contains_key(p)).copied().collect();
        for seq in own.keys().filter(|s| !kept.contains(s)) {
            self.drop_node(*seq)?;
        }
        // What only this container came from.
        self.drop_unneeded(elsewhere.into_iter().collect())
    }

    /// Bridges the oldest nodes of containers that have more than `most` beside the snapshots that exist.
    pub(crate) fn prune_history(&mut self, most: u64) -> Result<()> {
        let over: Vec<(String, u64)> = {
            let mut s = self.conn.prepare(
                "SELECT container_id, count(*) AS n FROM history WHERE container_id IS NOT NULL AND (snapshot IS NULL OR deleted_ms IS NOT NULL)
                 GROUP BY container_id HAVING n > ?1",
            )?;
            s.query_map([most], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?
        };
        for (id, n) in over {
            let oldest: Vec<Seq> = {
                let mut s = self
                    .conn
                    .prepare("SELECT seq FROM history WHERE container_id = ?1 AND (snapshot IS NULL OR deleted_ms IS NOT NULL) ORDER BY at_ms, seq LIMIT ?2")?;
                s.query_map(params![id, n - most], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
            };
            for seq in oldest {
                self.bridge(seq)?;
            }
        }
        Ok(())
    }
}

/// The nearest ancestors, from `parents` on, that are not nodes of `own` or are among those of it that are `kept`. In order, each once.
fn nearest(parents: &[Seq], own: &HashMap<Seq, Vec<Seq>>, kept: &HashSet<Seq>) -> Vec<Seq> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut next: Vec<Seq> = parents.iter().rev().copied().collect();
    while let Some(p) = next.pop() {
        if !seen.insert(p) {
            continue;
        }
        match own.get(&p) {
            Some(above) if !kept.contains(&p) => next.extend(above.iter().rev()),
            _ => found.push(p),
        }
    }
    found
}
