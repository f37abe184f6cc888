//! Copies, forks, syncs and moves of containers.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, created, ok};
use crate::extract::{Id, Input};
use axum::extract::State;
use hoody_state::id::ContainerId;
use hoody_state::model::{Container, CopyRequest, ForkRequest, Forked, MoveRequest, Moved, SyncAnswer, SyncRequest};
use hoody_state::{Code, Error, Result};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(copy)).routes(routes!(fork)).routes(routes!(sync)).routes(routes!(relocate))
}

/// Whether the caller may put a container into the project that a body names.
fn may_reach(who: &Identity, project: Option<&str>) -> Result<()> {
    project.map_or(Ok(()), |p| who.check_project(&p.parse()?))
}

/// The published code for a source container that does not exist.
fn of_source(e: Error) -> Error {
    if e.code() == Code::ContainerNotFound { Error::new(Code::SourceContainerNotFound, e.message().to_owned()) } else { e }
}

/// Copies a container with all its snapshots, on this server or to another. The copy starts by itself: poll until the status is `running`.
#[utoipa::path(post, path = "/containers/{id}/copy", tag = "copies", operation_id = "copy_container", request_body = CopyRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 201, description = "Started; poll until the status is `running`", body = Envelope<Container>)))]
pub async fn copy(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<CopyRequest>) -> Reply<Container> {
    may_reach(&who, input.body.target_project_id.as_deref())?;
    if input.body.target_server_id.as_deref().is_some_and(|s| s != app.host.server().id.as_str()) {
        // A token's projects are those of this server.
        who.check_server()?;
    }
    let copied = app
        .remote(move |host| {
            who.check_container(host, &id).map_err(of_source)?;
            who.check_network_of(host, &id).map_err(of_source)?;
            host.copy_container(&input.caller, &id, input.body)
        })
        .await?;
    created("Container copy started", copied)
}

/// Creates several copies of a container in its project. Each has its own result.
#[utoipa::path(post, path = "/containers/{id}/fork", tag = "copies", operation_id = "fork_container", request_body = ForkRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 201, description = "One result for each copy", body = Envelope<Forked>)))]
pub async fn fork(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<ForkRequest>) -> Reply<Forked> {
    let forked = app
        .remote(move |host| {
            who.check_container(host, &id).map_err(of_source)?;
            who.check_network_of(host, &id).map_err(of_source)?;
            host.fork_container(&input.caller, &id, &input.body)
        })
        .await?;
    created("Container forked", forked)
}

/// Brings a copy up to date with its source. Changes of the copy are kept as a snapshot; with `force: false` they make the request fail.
#[utoipa::path(post, path = "/containers/{id}/sync", tag = "copies", operation_id = "sync_container", request_body = Option<SyncRequest>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Done, or started: poll the container or the operation", body = Envelope<SyncAnswer>)))]
pub async fn sync(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<SyncRequest>) -> Reply<SyncAnswer> {
    let synced = app
        .remote(move |host| {
            who.check_container(host, &id)?;
            // The copy gets the present state of its source, so the token must reach the source.
            match (who.only(), host.source_of_copy(&id)?) {
                (Some(_), Some((source, true))) => who.check_container(host, &source).map_err(of_source)?,
                (Some(_), Some((_, false))) => who.check_server()?,
                _ => {}
            }
            host.sync_container(&input.caller, &id, &input.body)
        })
        .await?;
    ok("Container sync started", synced)
}

/// Moves a container to another server. It is copied while it runs, then stopped, synced once more, and started there.
#[utoipa::path(post, path = "/containers/{id}/move", tag = "copies", operation_id = "move_container", request_body = MoveRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Done, or started: poll the operation", body = Envelope<Moved>)))]
pub async fn relocate(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<MoveRequest>) -> Reply<Moved> {
    may_reach(&who, input.body.target_project_id.as_deref())?;
    who.check_server()?;
    let moved = app
        .remote(move |host| {
            who.check_container(host, &id)?;
            host.move_container(&input.caller, &id, &input.body)
        })
        .await?;
    ok("Container move started", moved)
}
