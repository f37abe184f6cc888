//! A file over all snapshots.

use super::at::Everywhere;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Query, invalid};
use axum::extract::State;
use hoody_state::model::FileVersions;
use serde::Deserialize;

/// How many versions an answer has, unless the request says otherwise.
const VERSIONS: usize = 100;

/// Which versions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VersionsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many, 1–1,000. Default: 100.
    limit: Option<i64>,
}

/// Lists the distinct versions of a file over all snapshots and the present state, newest first, with the snapshots that have each. The path is percent-encoded.
#[utoipa::path(get, path = "/containers/{id}/versions/{*path}", tag = "files", operation_id = "list_file_versions",
    params(("id" = String, Path), ("path" = String, Path, description = "The path in the container, percent-encoded"), VersionsQuery),
    responses((status = 200, description = "A page", body = Envelope<FileVersions>)))]
pub async fn list(State(app): State<Shared>, who: Identity, at: Everywhere, Query(query): Query<VersionsQuery>) -> Reply<FileVersions> {
    let limit = query.limit.map_or(Ok(VERSIONS), |n| usize::try_from(n).map_err(|_| invalid("limit", format!("{n} is out of range: at least 1"))))?;
    let Everywhere { container, path } = at;
    ok("Versions", app.look(who, container, move |host, id| host.file_versions(id, &path, query.cursor.as_deref(), limit)).await?)
}
