//! Containers and their lifecycle.

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, created, ok};
use crate::error_map;
use crate::extract::{Id, Input, Measuring, Named, Nothing, PageQuery, Query, invalid};
use axum::extract::State;
use hoody_state::host::Host;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{
    Container, ContainerDetail, ContainerStats, ContainerUpdate, DeleteOptions, LifecycleAnswer, NewContainer, Pagination, StatusLog, UsageReport, Verb,
};
use hoody_state::{Code, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list))
        .routes(routes!(list_of_project, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(lifecycle))
        .routes(routes!(status_logs))
        .routes(routes!(stats))
        .routes(routes!(usage))
}

/// A page of containers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ContainerPage {
    containers: Vec<Container>,
    pagination: Pagination,
}

/// Lists containers.
#[utoipa::path(get, path = "/containers", tag = "containers", operation_id = "list_containers", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ContainerPage>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Query(q): Query<PageQuery>) -> Reply<ContainerPage> {
    let page = q.check(50)?;
    let paged = app.read(move |host| host.containers(&page, None, who.only())).await?;
    ok("Containers", ContainerPage { containers: paged.rows, pagination: paged.pagination })
}

/// Lists the containers of a project.
#[utoipa::path(get, path = "/projects/{id}/containers", tag = "containers", operation_id = "list_project_containers", params(("id" = String, Path), PageQuery),
    responses((status = 200, description = "A page", body = Envelope<ContainerPage>)))]
pub async fn list_of_project(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>, Query(q): Query<PageQuery>) -> Reply<ContainerPage> {
    let page = q.check(50)?;
    who.check_project(&id)?;
    let paged = app
        .read(move |host| {
            host.project(&id)?;
            host.containers(&page, Some(&id), who.only())
        })
        .await?;
    ok("Containers", ContainerPage { containers: paged.rows, pagination: paged.pagination })
}

/// Creates a container and starts it.
#[utoipa::path(post, path = "/projects/{id}/containers", tag = "containers", operation_id = "create_container", request_body = NewContainer,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 201, description = "Created; poll until the status is `running`", body = Envelope<Container>)))]
pub async fn create(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>, input: Input<NewContainer>) -> Reply<Container> {
    who.check_project(&id)?;
    who.check_network(input.body.network.unwrap_or_default())?;
    created("Container created", app.change(move |host| host.create_container(&input.caller, &id, input.body)).await?)
}

/// Shows a container, including its disk usage.
#[utoipa::path(get, path = "/containers/{id}", tag = "containers", operation_id = "get_container", params(("id" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<ContainerAnswer>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<ContainerAnswer> {
    let detail = app.look(who.clone(), id.clone(), move |host, id| host.container_detail(id)).await;
    match detail {
        Err(e) if e.error().code() == Code::ContainerNotFound => {
            // A copy that was requested here and is on another server: clients poll for it here.
            let elsewhere = app
                .remote(move |host| match host.project_elsewhere(&id)? {
                    Some(p) if who.reaches(&p) => host.container_elsewhere(&id),
                    _ => Ok(None),
                })
                .await?;
            ok("Container on another server", ContainerAnswer::Elsewhere(Box::new(elsewhere.ok_or(e)?)))
        }
        detail => ok("Container", ContainerAnswer::Here(Box::new(detail?))),
    }
}

/// A container of this server, or a copy that was requested here and is on another server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum ContainerAnswer {
    /// A container of this server, with its disk usage.
    Here(Box<ContainerDetail>),
    /// A copy on another server, as that server describes it.
    Elsewhere(Box<Container>),
}

/// Changes a container. Fields that are absent keep their values. PATCH does the same.
#[utoipa::path(method(put, patch), path = "/containers/{id}", tag = "containers", operation_id = "update_container", request_body = ContainerUpdate, params(("id" = String, Path)),
    responses((status = 200, description = "Changed", body = Envelope<Container>)))]
pub async fn update(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<ContainerUpdate>) -> Reply<Container> {
    let container = app.alter(who, id, move |host, id| host.update_container(&input.caller, id, input.body)).await?;
    ok("Container updated", container)
}

/// Options of the deletion of a container.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// `false`: it is deleted for good, whatever its policy says (`on.before_delete`).
    trash: Option<bool>,
}

/// Deletes a container and its snapshots. If its policy says so (`on.before_delete`), it can be recovered from the trash for a while.
#[utoipa::path(delete, path = "/containers/{id}", tag = "containers", operation_id = "delete_container", params(("id" = String, Path), DeleteQuery), responses((status = 200, description = "Deleted, or being deleted", body = Envelope<Null>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Query(q): Query<DeleteQuery>, input: Input<Nothing>) -> Reply<Null> {
    let options = DeleteOptions { permanently: q.trash == Some(false) };
    app.alter(who, id, move |host, id| host.delete_container_with(&input.caller, id, options)).await?;
    ok("Container deleted", Null(()))
}

/// Options of a lifecycle operation.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct LifecycleInput {
    /// How long init may take to end before it is killed, in seconds: 1–600.
    timeout: Option<i64>,
}

/// The operation that the last segment of a path names.
#[must_use]
pub fn verb(word: &str) -> Option<Verb> {
    [Verb::Start, Verb::Stop, Verb::ForceStop, Verb::Restart, Verb::Pause, Verb::Resume].into_iter().find(|v| v.as_str() == word)
}

/// Starts, stops, kills, restarts, pauses or resumes a container.
#[utoipa::path(post, path = "/containers/{id}/{operation}", tag = "containers", operation_id = "container_lifecycle", request_body = Option<LifecycleInput>,
    params(("id" = String, Path), ("operation" = Verb, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 200, description = "Done, or still running: poll the status", body = Envelope<LifecycleAnswer>)))]
pub async fn lifecycle(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<LifecycleInput>) -> Reply<LifecycleAnswer> {
    let Named(id, word) = path;
    let verb = verb(&word)
        .ok_or_else(|| Error::new(Code::RouteNotFound, format!("there is no operation {word:?}: start, stop, force-stop, restart, pause, resume")))?;
    let timeout = input.body.timeout.map(seconds).transpose()?;
    let answer = app.alter(who, id, move |host, id| Ok(host.lifecycle(&input.caller, id, verb, timeout).map_err(|e| with_state(host, e, id, verb)))).await??;
    ok(answer.message.clone(), answer)
}

fn seconds(s: i64) -> Result<Duration, Error> {
    let in_range = u64::try_from(s).ok().filter(|s| (1..=600).contains(s));
    in_range.map(Duration::from_secs).ok_or_else(|| invalid("timeout", format!("{s} s is out of range: 1 to 600")))
}

/// An error with 500, 502, 503 or 504 repeats the request and shows the status of the container, as the published API does.
fn with_state(host: &Host, error: Error, id: &ContainerId, verb: Verb) -> ApiError {
    let host_failed = matches!(error_map::status(error.code()), 500 | 502 | 503 | 504);
    match host.container(id) {
        Ok(c) if host_failed => {
            let data = json!({"error": true, "operation": verb, "container_id": id, "project_id": c.project_id, "message": error_map::outer_message(&error), "status": c.status});
            ApiError::from(error).with_data(data)
        }
        _ => error.into(),
    }
}

/// A page of a status log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct StatusLogPage {
    logs: Vec<StatusLog>,
    pagination: Pagination,
}

/// Lists the changes of a container's status, newest first.
#[utoipa::path(get, path = "/containers/{id}/status-logs", tag = "containers", operation_id = "container_status_logs", params(("id" = String, Path), PageQuery),
    responses((status = 200, description = "A page", body = Envelope<StatusLogPage>)))]
pub async fn status_logs(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Query(q): Query<PageQuery>) -> Reply<StatusLogPage> {
    let page = q.check(10)?;
    let paged = app.look(who, id, move |host, id| host.status_logs(id, &page)).await?;
    ok("Status log", StatusLogPage { logs: paged.rows, pagination: paged.pagination })
}

/// Shows the CPU time, memory and disk space that a container uses.
#[utoipa::path(get, path = "/containers/{id}/stats", tag = "containers", operation_id = "container_stats", params(("id" = String, Path)), responses((status = 200, description = "The usage", body = Envelope<ContainerStats>)))]
pub async fn stats(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<ContainerStats> {
    let stats = app.look(who, id, move |host, id| host.stats(id)).await?;
    ok("Container stats", stats)
}

/// Shows the disk space that a container and its snapshots use.
#[utoipa::path(get, path = "/containers/{id}/usage", tag = "containers", operation_id = "container_usage", params(("id" = String, Path),
    ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for what has still to be measured")), responses((status = 200, description = "The usage in bytes", body = Envelope<UsageReport>)))]
pub async fn usage(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Measuring(wait): Measuring) -> Reply<UsageReport> {
    let usage = app.look(who, id, move |host, id| host.usage_with_frees(id, wait)).await?;
    ok("Container usage", usage)
}
