//! Reads pages of the history. See `history` for what is written, and by which rules.

use super::history::{Detail, Seq};
use super::{containers, json, projects, time};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::{EdgeKind, NodeKind, TimelineEdge, TimelineNode};
use crate::units::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{HashMap, HashSet};

/// Whose timeline.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose<'a> {
    Container(&'a ContainerId),
    Project(&'a ProjectId),
}

impl Whose<'_> {
    fn column(self) -> &'static str {
        match self {
            Whose::Container(_) => "container_id",
            Whose::Project(_) => "project_id",
        }
    }

    fn id(&self) -> &str {
        match self {
            Whose::Container(id) => id.as_str(),
            Whose::Project(id) => id.as_str(),
        }
    }
}

/// A place between two nodes of a timeline: those before it are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    at_ms: i64,
    seq: Seq,
}

impl Place {
    /// Before all nodes there are, and all that come.
    pub(crate) const NEWEST: Place = Place { at_ms: i64::MAX, seq: Seq::MAX };

    /// The place that a cursor says.
    ///
    /// # Errors
    /// `invalid_page`.
    pub(crate) fn of_cursor(cursor: &str) -> Result<Self> {
        let parsed = cursor.split_once('.').and_then(|(at, seq)| Some(Place { at_ms: at.parse().ok()?, seq: seq.parse().ok()? }));
        parsed.ok_or_else(|| {
            let shown: String = cursor.chars().take(64).collect();
            Error::new(Code::InvalidPage, format!("cursor {shown:?} is none: give the next_cursor of the page before as it was"))
        })
    }

    fn cursor(self) -> String {
        format!("{}.{}", self.at_ms, self.seq)
    }
}

/// A node as it was read, and what decides where it is shown.
struct Found {
    place: Place,
    project: Option<ProjectId>,
    copied: bool,
    node: TimelineNode,
}

/// A page of a timeline, without "now".
pub(crate) struct Page {
    pub nodes: Vec<TimelineNode>,
    pub outside: Vec<TimelineNode>,
    pub edges: Vec<TimelineEdge>,
    pub next_cursor: Option<String>,
}

/// The parents come as one text: a statement of its own for each node would take longer than all the rest.
const COLUMNS: &str = "h.seq, h.at_ms, h.kind, h.container_id, h.project_id, h.author, h.operation_id, h.snapshot, h.image, h.overwrote, h.copy_of, h.detail,
  h.container_name, h.deleted_ms, h.copied, s.alias, s.description, s.size, s.pinned, s.expires_ms,
  (SELECT group_concat(parent) FROM (SELECT e.parent FROM history_edges e WHERE e.child = h.seq ORDER BY e.nth))";

const TABLES: &str = "history h LEFT JOIN snapshots s ON s.container_id = h.container_id AND s.name = h.snapshot AND h.deleted_ms IS NULL";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<Found>> {
    let (seq, at_ms, kind): (Seq, i64, String) = (r.get(0)?, r.get(1)?, r.get(2)?);
    let (container, project, author, operation): (Option<String>, Option<String>, Option<String>, Option<String>) =
        (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?);
    let (snapshot, image, overwrote, copy_of): (Option<String>, Option<String>, Option<Seq>, Option<Seq>) = (r.get(7)?, r.get(8)?, r.get(9)?, r.get(10)?);
    let (detail, container_name, deleted, copied): (String, Option<String>, Option<i64>, bool) = (r.get(11)?, r.get(12)?, r.get(13)?, r.get(14)?);
    let (alias, description, size): (Option<String>, Option<String>, Option<u64>) = (r.get(15)?, r.get(16)?, r.get(17)?);
    let (pinned, expires, parents): (Option<String>, Option<i64>, Option<String>) = (r.get(18)?, r.get(19)?, r.get(20)?);
    Ok((|| {
        let detail: Detail = if detail == "{}" { Detail::default() } else { json(&detail, "history")? };
        let project = project.map(|p| p.parse::<ProjectId>()).transpose()?;
        let node = TimelineNode {
            id: seq.to_string(),
            kind: Some(NodeKind::of(&kind)?),
            parents: parents.map_or_else(Vec::new, |p| p.split(',').map(str::to_owned).collect()),
            container_id: container.map(|c| c.parse()).transpose()?,
            container_name,
            project_id: project.clone(),
            created_at: time(at_ms),
            author,
            operation_id: operation.map(|o| o.parse()).transpose()?,
            snapshot: snapshot.map_or(Ok(detail.restored), |s| s.parse().map(Some))?,
            alias: alias.map(|a| a.parse()).transpose()?,
            description,
            image,
            size: size.map(Bytes),
            frees_bytes: None,
            unsaved_bytes: None,
            pinned,
            tier: None,
            expires_at: expires.map(time),
            overwrote: overwrote.map(|s| s.to_string()),
            copy_of: copy_of.map(|s| s.to_string()),
            source: detail.source,
            deleted_at: deleted.map(time),
            hidden: false,
        };
        Ok(Found { place: Place { at_ms, seq }, project, copied, node })
    })())
}

fn one(c: &Connection, seq: Seq) -> Result<Option<Found>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE h.seq = ?1"))?.query_row([seq], row).optional()?.transpose()
}

/// The nodes of a container or project older than `from`, newest first.
fn own(c: &Connection, whose: Whose<'_>, from: Place, most: usize, copies: bool) -> Result<Vec<Found>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE h.{} = ?1 AND (h.at_ms, h.seq) < (?2, ?3){} ORDER BY h.at_ms DESC, h.seq DESC LIMIT ?4",
        whose.column(),
        if copies { "" } else { " AND h.copied = 0" }
    );
    let mut s = c.prepare_cached(&sql)?;
    s.query_map(params![whose.id(), from.at_ms, from.seq, most], row)?.map(|r| r?).collect()
}

/// Which images `h` are in a timeline: those that its containers were made from, and those that were made from its snapshots.
fn listed_image(whose: Whose<'_>) -> String {
    let column = whose.column();
    format!(
        "h.container_id IS NULL AND (
           h.seq IN (SELECT e.parent FROM history b JOIN history_edges e ON e.child = b.seq WHERE b.{column} = ?1 AND b.kind = 'create')
           OR EXISTS(SELECT 1 FROM history_edges e JOIN history p ON p.seq = e.parent WHERE e.child = h.seq AND p.{column} = ?1))"
    )
}

fn images(c: &Connection, whose: Whose<'_>, from: Place) -> Result<Vec<Found>> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE (h.at_ms, h.seq) < (?2, ?3) AND {}", listed_image(whose));
    let mut s = c.prepare_cached(&sql)?;
    s.query_map(params![whose.id(), from.at_ms, from.seq], row)?.map(|r| r?).collect()
}

fn number(id: &str) -> Option<Seq> {
    id.parse().ok()
}

/// What is shown of nodes to a caller who may see these projects; `None`: all.
pub(crate) struct Shown<'a> {
    pub only: Option<&'a [ProjectId]>,
    /// The names of containers, as they were looked up.
    names: HashMap<ContainerId, Option<(String, ProjectId)>>,
}

impl<'a> Shown<'a> {
    pub(crate) fn to(only: Option<&'a [ProjectId]>) -> Self {
        Shown { only, names: HashMap::new() }
    }

    fn reaches(&self, project: &ProjectId) -> bool {
        self.only.is_none_or(|p| p.contains(project))
    }

    fn container(&mut self, c: &Connection, id: &ContainerId) -> Result<Option<(String, ProjectId)>> {
        if let Some(known) = self.names.get(id) {
            return Ok(known.clone());
        }
        let found = containers::find(c, id)?.map(|r| (r.name.to_string(), r.project));
        self.names.insert(id.clone(), found.clone());
        Ok(found)
    }

    /// The node with the name of its container, and without what the caller may not see.
    fn node(&mut self, c: &Connection, f: Found) -> Result<TimelineNode> {
        let mut node = f.node;
        if f.project.as_ref().is_some_and(|p| !self.reaches(p)) {
            return Ok(TimelineNode { id: node.id, created_at: node.created_at, hidden: true, ..TimelineNode::blank() });
        }
        if let (None, Some(id)) = (&node.container_name, &node.container_id) {
            node.container_name = self.container(c, &id.clone())?.map(|(name, _)| name);
        }
        if let Some(source) = node.source.as_ref().filter(|s| s.server_id.is_none() && self.only.is_some()) {
            let id = source.container_id.clone();
            if self.container(c, &id)?.is_none_or(|(_, p)| !self.reaches(&p)) {
                node.source = None;
            }
        }
        Ok(node)
    }
}

/// A page of at most `most` nodes, from `from` back. Cost: what is on the page, and the images.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn page(c: &Connection, whose: Whose<'_>, from: Place, most: usize, copies: bool, shown: &mut Shown<'_>) -> Result<Page> {
    let mut found = own(c, whose, from, most + 1, copies)?;
    found.extend(images(c, whose, from)?);
    found.sort_unstable_by_key(|f| std::cmp::Reverse(f.place));
    let more = found.len() > most;
    found.truncate(most);
    let next_cursor = found.last().filter(|_| more).map(|f| f.place.cursor());
    let here: HashSet<Seq> = found.iter().map(|f| f.place.seq).collect();
    let (mut nodes, mut edges, mut outside) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for f in found {
        let refers = f.node.parents.iter().chain(&f.node.overwrote).chain(&f.node.copy_of).filter_map(|id| number(id));
        for seq in refers.filter(|s| !here.contains(s)).collect::<Vec<_>>() {
            if seen.insert(seq)
                && let Some(other) = one(c, seq)?
                && is_outside(c, whose, &other, copies)?
            {
                outside.push(shown.node(c, other)?);
            }
        }
        let node = shown.node(c, f)?;
        edges.extend(edges_to(&node));
        nodes.push(node);
    }
    Ok(Page { nodes, outside, edges, next_cursor })
}

/// Whether a node that is not on the page is on no page.
fn is_outside(c: &Connection, whose: Whose<'_>, f: &Found, copies: bool) -> Result<bool> {
    if f.node.container_id.is_none() {
        let sql = format!("SELECT EXISTS(SELECT 1 FROM history h WHERE h.seq = ?2 AND {})", listed_image(whose));
        return Ok(!c.prepare_cached(&sql)?.query_row(params![whose.id(), f.place.seq], |r| r.get::<_, bool>(0))?);
    }
    let own = match whose {
        Whose::Container(id) => f.node.container_id.as_ref() == Some(id),
        Whose::Project(id) => f.project.as_ref() == Some(id),
    };
    Ok(!own || (f.copied && !copies))
}

/// The edges that lead to a node.
pub(crate) fn edges_to(node: &TimelineNode) -> impl Iterator<Item = TimelineEdge> + '_ {
    let edge = |from: &String, kind| TimelineEdge { from: from.clone(), to: node.id.clone(), kind };
    let parents = node.parents.iter().map(move |p| edge(p, EdgeKind::Parent));
    parents.chain(node.overwrote.iter().map(move |p| edge(p, EdgeKind::Overwrote))).chain(node.copy_of.iter().map(move |p| edge(p, EdgeKind::Copy)))
}

/// The containers of a timeline. Error: `container_not_found`, `project_not_found`.
pub(crate) fn containers_of(c: &Connection, user: &crate::id::UserId, whose: Whose<'_>) -> Result<Vec<containers::ContainerRow>> {
    match whose {
        Whose::Container(id) => Ok(vec![containers::get(c, id)?]),
        Whose::Project(id) => {
            projects::get(c, user, id)?;
            containers::all(c, Some(id))
        }
    }
}
