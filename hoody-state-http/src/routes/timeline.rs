//! The commit graph of containers and projects.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Id, Measuring, Query, invalid};
use axum::extract::State;
use hoody_state::Result;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{Timeline, TimelineRequest};
use serde::Deserialize;
use std::time::Duration;
use utoipa_axum::routes;

/// Nodes of a page, unless the request says otherwise.
const USUAL: i64 = 100;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(of_container)).routes(routes!(of_project))
}

/// Which part of a timeline.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// The `next_cursor` of the page before; absent: from now on.
    pub cursor: Option<String>,
    /// How many nodes a page has beside "now", 1–10,000. Default: 100.
    pub limit: Option<i64>,
    /// Whether snapshots that were copied along with a container are in it. Default: in the timeline of a container they are, in that of a project they are not.
    pub copies: Option<bool>,
}

impl TimelineQuery {
    fn request(self, copies: bool, wait: Duration) -> Result<TimelineRequest> {
        let limit = self.limit.unwrap_or(USUAL);
        let limit = u32::try_from(limit).map_err(|_| invalid("limit", format!("{limit} is out of range: it must be 1 to 10,000")))?;
        Ok(TimelineRequest { cursor: self.cursor, limit, copies: self.copies.unwrap_or(copies), wait })
    }
}

/// Shows where the states of a container come from, newest first: snapshots, restores, copies, syncs, moves, and "now".
#[utoipa::path(get, path = "/containers/{id}/timeline", tag = "timeline", operation_id = "container_timeline", params(("id" = String, Path), TimelineQuery,
    ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for what has still to be measured")),
    responses((status = 200, description = "A page of the timeline", body = Envelope<Timeline>)))]
pub async fn of_container(
    State(app): State<Shared>,
    who: Identity,
    Id(id): Id<ContainerId>,
    Query(query): Query<TimelineQuery>,
    Measuring(wait): Measuring,
) -> Reply<Timeline> {
    let request = query.request(true, wait)?;
    let only = who.only().map(<[ProjectId]>::to_vec);
    ok("Timeline", app.look(who, id, move |host, id| host.container_timeline(id, &request, only.as_deref())).await?)
}

/// Shows where the states of all containers of a project come from, newest first.
#[utoipa::path(get, path = "/projects/{id}/timeline", tag = "timeline", operation_id = "project_timeline", params(("id" = String, Path), TimelineQuery,
    ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for what has still to be measured")),
    responses((status = 200, description = "A page of the timeline", body = Envelope<Timeline>)))]
pub async fn of_project(
    State(app): State<Shared>,
    who: Identity,
    Id(id): Id<ProjectId>,
    Query(query): Query<TimelineQuery>,
    Measuring(wait): Measuring,
) -> Reply<Timeline> {
    who.check_project(&id)?;
    let request = query.request(false, wait)?;
    let only = who.only().map(<[ProjectId]>::to_vec);
    ok("Timeline", app.read(move |host| host.project_timeline(&id, &request, only.as_deref())).await?)
}
