//! The commit graph of containers and projects.

use super::Host;
use crate::catalog::containers::ContainerRow;
use crate::catalog::timeline::{self, Page, Place, Shown, Whose};
use crate::catalog::{history, projects};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::{NodeKind, Status, Timeline, TimelineNode, TimelineRequest};
use crate::name::SnapshotName;
use crate::services::sizes::Wanted;
use crate::units::Bytes;
use std::collections::HashMap;
use std::time::Duration;

/// The most nodes of a page.
const MOST: u32 = 10_000;

impl Host {
    /// A page of a container's timeline, as a caller may see it who reaches the projects `only` (`None`: all). Newest first; the first page begins with "now".
    /// Cost: what is on the page, and up to `wait` for sizes that have still to be measured.
    ///
    /// # Errors
    /// `container_not_found`, `invalid_page`.
    pub fn container_timeline(&self, id: &ContainerId, request: &TimelineRequest, only: Option<&[ProjectId]>) -> Result<Timeline> {
        self.timeline(Whose::Container(id), request, only)
    }

    /// The same for all containers of a project, and those that are gone but which others come from.
    ///
    /// # Errors
    /// `project_not_found`, `invalid_page`.
    pub fn project_timeline(&self, id: &ProjectId, request: &TimelineRequest, only: Option<&[ProjectId]>) -> Result<Timeline> {
        self.timeline(Whose::Project(id), request, only)
    }

    fn timeline(&self, whose: Whose<'_>, request: &TimelineRequest, only: Option<&[ProjectId]>) -> Result<Timeline> {
        let limit = Some(request.limit).filter(|n| (1..=MOST).contains(n));
        let limit = limit.ok_or_else(|| Error::new(Code::InvalidPage, format!("limit {} is out of range: it must be 1 to {MOST}", request.limit)))?;
        let from = request.cursor.as_deref().map_or(Ok(Place::NEWEST), Place::of_cursor)?;
        let (page, present) = self.0.read(|c| {
            let rows = match whose {
                Whose::Project(id) if request.cursor.is_some() => projects::get(c, self.0.catalog.user(), id).map(|_| Vec::new())?,
                _ => timeline::containers_of(c, self.0.catalog.user(), whose)?,
            };
            let page = timeline::page(c, whose, from, limit as usize, request.copies, &mut Shown::to(only))?;
            if request.cursor.is_some() {
                return Ok((page, Vec::new()));
            }
            let present = rows.into_iter().filter(has_live_state).map(|r| Ok((history::present(c, &r.id)?, r)));
            Ok((page, present.collect::<Result<Vec<_>>>()?))
        })?;
        let Page { mut nodes, outside, mut edges, next_cursor } = page;
        let now = self.0.now();
        let present: Vec<TimelineNode> = present
            .into_iter()
            .map(|(from, r)| TimelineNode {
                id: format!("now-{}", r.id),
                kind: Some(NodeKind::Now),
                parents: from.iter().map(ToString::to_string).collect(),
                container_id: Some(r.id),
                container_name: Some(r.name.to_string()),
                project_id: Some(r.project),
                // The clock may have been set back since.
                created_at: now.max(nodes.first().map_or(now, |n| n.created_at)),
                ..TimelineNode::blank()
            })
            .collect();
        edges.splice(0..0, present.iter().flat_map(timeline::edges_to).collect::<Vec<_>>());
        nodes.splice(0..0, present);
        self.fill_sizes(&mut nodes, request.wait)?;
        Ok(Timeline { nodes, edges, outside, next_cursor })
    }

    /// What is certain of the sizes of these nodes.
    fn fill_sizes(&self, nodes: &mut [TimelineNode], wait: Duration) -> Result<()> {
        let wanted: Vec<Wanted> = nodes.iter().filter_map(wanted).collect();
        let known = self.sizes(&wanted, wait)?;
        for node in nodes {
            match wanted_of(&known, node) {
                Some(bytes) if node.kind == Some(NodeKind::Now) => node.unsaved_bytes = Some(bytes),
                bytes => node.frees_bytes = bytes,
            }
        }
        Ok(())
    }

    /// What the deletion of each of these snapshots would free, as far as it is known after waiting up to `wait`.
    pub(super) fn frees(&self, id: &ContainerId, names: &[SnapshotName], wait: Duration) -> Result<HashMap<SnapshotName, Bytes>> {
        let wanted: Vec<Wanted> = names.iter().map(|n| Wanted::Frees(id.clone(), n.clone())).collect();
        let known = self.sizes(&wanted, wait)?.into_iter();
        Ok(known.filter_map(|(w, bytes)| if let Wanted::Frees(_, name) = w { Some((name, bytes)) } else { None }).collect())
    }

    /// The same, and what the deletion of all of them together would free. What all free comes first: it is one figure, and the others may be many.
    pub(super) fn frees_each_and_all(&self, id: &ContainerId, names: &[SnapshotName], wait: Duration) -> Result<(HashMap<SnapshotName, Bytes>, Option<Bytes>)> {
        let all = Wanted::together(id, names);
        let mut wanted = vec![all.clone()];
        wanted.extend(names.iter().map(|n| Wanted::Frees(id.clone(), n.clone())));
        let mut known = self.sizes(&wanted, wait)?;
        let all = known.remove(&all);
        let of = |(w, bytes)| if let Wanted::Frees(_, name) = w { Some((name, bytes)) } else { None };
        Ok((known.into_iter().filter_map(of).collect(), all))
    }

    /// What the deletion of several snapshots of a container would free together, if it is known after waiting up to `wait`. That is at least the sum of what each of
    /// them would free alone. A snapshot that does not exist makes it unknown.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn frees_together(&self, id: &ContainerId, names: &[SnapshotName], wait: Duration) -> Result<Option<Bytes>> {
        self.0.sizes.frees_together(id, names, wait, |job| self.0.engine.background(job))
    }

    fn sizes(&self, wanted: &[Wanted], wait: Duration) -> Result<HashMap<Wanted, Bytes>> {
        self.0.sizes.look(wanted, wait, |job| self.0.engine.background(job))
    }
}

fn has_live_state(r: &ContainerRow) -> bool {
    !r.state.partial && !matches!(r.status, Status::Creating | Status::Deleting | Status::Deleted)
}

fn wanted(node: &TimelineNode) -> Option<Wanted> {
    let id = node.container_id.clone()?;
    match (node.kind?, &node.snapshot, node.deleted_at) {
        (NodeKind::Now, ..) => Some(Wanted::Unsaved(id)),
        (NodeKind::Snapshot, Some(name), None) => Some(Wanted::Frees(id, name.clone())),
        _ => None,
    }
}

fn wanted_of(known: &HashMap<Wanted, Bytes>, node: &TimelineNode) -> Option<Bytes> {
    known.get(&wanted(node)?).copied()
}
