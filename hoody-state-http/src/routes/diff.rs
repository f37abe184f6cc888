//! What differs between a snapshot and another tree.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::ApiError;
use crate::extract::{Query, Twice, invalid};
use crate::slots;
use crate::spool::Spool;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hoody_state::id::ContainerId;
use hoody_state::model::{DiffLine, DiffRequest};
use hoody_state::tree::TreePath;
use hoody_state::{Code, Error};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(diff))
}

/// What of a diff is wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The container that `b` is of. Default: the same.
    container: Option<String>,
    /// Only what is at or beneath this path, or was moved from there. Any bytes, percent-encoded.
    #[allow(dead_code, reason = "it is read from the query as it was sent, since it need not be UTF-8")]
    path: Option<String>,
    /// `true`: counts by the first directory instead of records.
    #[serde(default)]
    stat: bool,
    /// `true`: also changes of directories' times, and of times of access.
    #[serde(default)]
    times: bool,
    /// `true`: read both trees completely if what changed cannot be told otherwise.
    #[serde(default)]
    walk: bool,
    /// `true`: also how many rows the tables of databases beneath `/hoody/databases` have, if the database is among the records. Rows are counted, not compared.
    #[serde(default)]
    databases: bool,
    /// At most so many records, from 1.
    limit: Option<i64>,
    /// `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// Says when nobody waits any more.
struct Leaves(Arc<AtomicBool>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Shows what differs between the snapshot `a` and `b`, a snapshot or `live`: one line of JSON for each name, by path, and a summary at the end. What it costs follows what changed.
#[utoipa::path(get, path = "/containers/{id}/snapshots/{a}/diff/{b}", tag = "snapshots", operation_id = "diff_snapshots",
    params(("id" = String, Path), ("a" = String, Path, description = "The old tree: a snapshot, by name or alias"),
        ("b" = String, Path, description = "The new tree: a snapshot, by name or alias; `live`: the present state"), DiffQuery),
    responses((status = 200, description = "One `DiffRecord` a line (with `stat`: one `DiffStat`), with `databases` one `DiffDatabase` for each database, then a `DiffSummary`", content((DiffLine = "application/x-ndjson")))))]
pub async fn diff(
    State(app): State<Shared>,
    who: Identity,
    path: Twice<ContainerId>,
    Query(q): Query<DiffQuery>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let Twice(id, old, new) = path;
    let request = request(q, new, raw.as_deref().unwrap_or_default())?;
    let leaves = Leaves(Arc::default());
    let left = Arc::clone(&leaves.0);
    let whose = who.clone();
    let call = move |host: &hoody_state::Host, id: &ContainerId| {
        if let Some(other) = &request.to_container {
            whose.check_container(host, other)?;
        }
        let mut answer = Spool::default();
        let summary = host.diff(id, &old, &request, &|| left.load(Ordering::Relaxed), &mut |line| answer.line(&line))?;
        answer.line(&DiffLine::Summary(summary))?;
        Ok(answer)
    };
    let answer = app.look(who, id, call).await?;
    let slot = app.counted.downloads.take(&slots::current(), app.options.limits.patience, Code::ServerBusy).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], answer.body(slot)?).into_response())
}

fn request(q: DiffQuery, to: String, raw: &str) -> Result<DiffRequest, Error> {
    let path = raw.split('&').find_map(|pair| pair.strip_prefix("path=")).unwrap_or_default().replace('+', " ");
    let path = TreePath::new(&percent_decode_str(&path).collect::<Vec<u8>>())?;
    let limit = q.limit.map(|n| u64::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| invalid("limit", format!("{n} is out of range: at least 1"))));
    Ok(DiffRequest {
        to,
        to_container: q.container.map(|id| id.parse()).transpose()?,
        path: path.as_bytes().to_vec(),
        stat: q.stat,
        times: q.times,
        walk: q.walk,
        databases: q.databases,
        limit: limit.transpose()?,
        cursor: q.cursor,
    })
}
