//! Files of a container: in a snapshot, or as they are now (`live`).
//!
//! | file | what |
//! | --- | --- |
//! | `at` | the container, the state and the path in a URL, whose path may be any bytes |
//! | `conditions` | ranges, `ETag`s and times of requests. Pure |
//! | `content` | the bytes of a file as an answer |
//! | `archive` | a directory as a tar |
//! | `versions` | a file over all snapshots |
//! | `write` | writing and deleting files |

mod archive;
mod at;
mod conditions;
mod content;
mod versions;
mod write;

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, ok};
use crate::extract::{Query, invalid};
use at::At;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use hoody_state::host::PathContent;
use hoody_state::model::{DirectoryListing, DirectoryPage, FileEntry};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

/// How many entries of a directory an answer has, unless the request says otherwise.
const ENTRIES: usize = 1000;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(get_root)).routes(routes!(get, write::put, write::delete)).routes(routes!(versions::list))
}

/// What of a path is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// Of a directory: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Of a directory: how many entries, 1–10,000. Default: 1,000.
    limit: Option<i64>,
    /// Only what the path is, as an entry of a directory. Nothing is opened, and a symbolic link in the last place is shown itself.
    #[serde(default)]
    stat: bool,
    /// `tar` or `tar.zst`: what the path is, with everything in it, as an archive.
    archive: Option<String>,
}

impl FileQuery {
    fn page(&self) -> Result<DirectoryPage, hoody_state::Error> {
        let limit = self.limit.map_or(Ok(ENTRIES), |n| usize::try_from(n).map_err(|_| invalid("limit", format!("{n} is out of range: at least 1"))))?;
        Ok(DirectoryPage { cursor: self.cursor.clone(), limit })
    }
}

/// A directory, or with `stat` an entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum PathAnswer {
    /// A page of a directory.
    Directory(DirectoryListing),
    /// With `stat`.
    Entry(FileEntry),
}

/// Shows the root directory of a container: `live`, or in a snapshot given by name or alias.
#[utoipa::path(get, path = "/containers/{id}/snapshots/{name}/files", tag = "files", operation_id = "list_root", params(("id" = String, Path), ("name" = String, Path), FileQuery),
    responses((status = 200, description = "A page of the directory", body = Envelope<PathAnswer>)))]
pub async fn get_root(state: State<Shared>, who: Identity, at: At, query: Query<FileQuery>, method: Method, headers: HeaderMap) -> Result<Response, ApiError> {
    read(state, who, at, query, method, headers).await
}

/// Reads a file, or lists a directory: in a snapshot given by name or alias, or `live`. The path is percent-encoded and may be any bytes. Links are followed inside the container.
#[utoipa::path(get, path = "/containers/{id}/snapshots/{name}/files/{*path}", tag = "files", operation_id = "get_file",
    params(("id" = String, Path), ("name" = String, Path, description = "A snapshot, by name or alias; `live`: the present state"), ("path" = String, Path, description = "The path in the container, percent-encoded"), FileQuery,
        ("Range" = Option<String>, Header, description = "One range of bytes; several are answered with the whole file"), ("If-Range" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses(
        (status = 200, description = "The bytes of a file. Of a directory its entries, as JSON. With `archive` a tar", content((Vec<u8> = "application/octet-stream"), (Envelope<PathAnswer> = "application/json"))),
        (status = 206, description = "The range"), (status = 304, description = "The file is still the one that `If-None-Match` names"),
        (status = 416, description = "`range_not_satisfiable`")))]
pub async fn get(state: State<Shared>, who: Identity, at: At, query: Query<FileQuery>, method: Method, headers: HeaderMap) -> Result<Response, ApiError> {
    read(state, who, at, query, method, headers).await
}

async fn read(
    State(app): State<Shared>,
    who: Identity,
    at: At,
    Query(query): Query<FileQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let At { container, state, path } = at;
    if query.stat {
        let entry = app.look(who, container, move |host, id| host.stat_path(id, &state, &path)).await?;
        return Ok(ok("Entry", PathAnswer::Entry(entry)).into_response());
    }
    if let Some(format) = &query.archive {
        let format = archive::Format::of(format)?;
        return archive::answer(&app, who, container, state, path, format, &method).await;
    }
    let page = query.page()?;
    match app.look(who, container, move |host, id| host.open_path(id, &state, &path, &page)).await? {
        PathContent::Directory(listing) => Ok(ok("Directory", PathAnswer::Directory(listing)).into_response()),
        PathContent::File(file) => content::answer(&app, file, &method, &headers).await,
    }
}
