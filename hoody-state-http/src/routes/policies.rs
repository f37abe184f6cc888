//! Snapshot policies of containers, projects and the server.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Explicit, Id, Input, Nothing};
use axum::extract::State;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{PolicyAnswer, PolicyPreview, PolicyPreviewRequest, PolicyTarget, SnapshotPolicy};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(of_container, set_of_container, delete_of_container))
        .routes(routes!(of_project, set_of_project, delete_of_project))
        .routes(routes!(of_server, set_of_server, delete_of_server))
        .routes(routes!(preview))
}

/// Shows the snapshot policy that applies to a container: its own, else its project's, else the server's.
#[utoipa::path(get, path = "/containers/{id}/snapshot-policy", tag = "snapshots", operation_id = "container_snapshot_policy", params(("id" = String, Path)),
    responses((status = 200, description = "The policy that applies, or null", body = Envelope<PolicyAnswer>)))]
pub async fn of_container(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<PolicyAnswer> {
    ok("Snapshot policy", app.look(who, id, |host, id| host.snapshot_policy(&PolicyTarget::Container(id.clone()))).await?)
}

/// Sets the snapshot policy of a container, instead of its project's and the server's. One without schedules and events switches them off.
#[utoipa::path(put, path = "/containers/{id}/snapshot-policy", tag = "snapshots", operation_id = "set_container_snapshot_policy", params(("id" = String, Path)),
    request_body = SnapshotPolicy, responses((status = 200, description = "Set", body = Envelope<PolicyAnswer>)))]
pub async fn set_of_container(
    State(app): State<Shared>,
    who: Identity,
    Id(id): Id<ContainerId>,
    Explicit(input): Explicit<SnapshotPolicy>,
) -> Reply<PolicyAnswer> {
    let set = move |host: &hoody_state::Host, id: &ContainerId| host.set_snapshot_policy(&input.caller, &PolicyTarget::Container(id.clone()), &input.body);
    ok("Snapshot policy set", app.alter(who, id, set).await?)
}

/// Deletes the snapshot policy of a container: its project's applies again, or the server's. The answer is what applies now. Snapshots stay.
#[utoipa::path(delete, path = "/containers/{id}/snapshot-policy", tag = "snapshots", operation_id = "delete_container_snapshot_policy", params(("id" = String, Path)),
    responses((status = 200, description = "Deleted", body = Envelope<PolicyAnswer>)))]
pub async fn delete_of_container(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<Nothing>) -> Reply<PolicyAnswer> {
    let delete = move |host: &hoody_state::Host, id: &ContainerId| host.delete_snapshot_policy(&input.caller, &PolicyTarget::Container(id.clone()));
    ok("Snapshot policy deleted", app.alter(who, id, delete).await?)
}

/// Says what a policy would keep and remove of a container's snapshots, and why; and what would exist on each of the next days. Nothing is changed.
#[utoipa::path(post, path = "/containers/{id}/snapshot-policy/preview", tag = "snapshots", operation_id = "preview_snapshot_policy", params(("id" = String, Path)),
    request_body = PolicyPreviewRequest, responses((status = 200, description = "What it would do", body = Envelope<PolicyPreview>)))]
pub async fn preview(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<PolicyPreviewRequest>) -> Reply<PolicyPreview> {
    ok("Preview", app.look(who, id, move |host, id| host.preview_policy(id, &input.body)).await?)
}

/// Shows the snapshot policy for the containers of a project that have none of their own: the project's, else the server's.
#[utoipa::path(get, path = "/projects/{id}/snapshot-policy", tag = "snapshots", operation_id = "project_snapshot_policy", params(("id" = String, Path)),
    responses((status = 200, description = "The policy that applies, or null", body = Envelope<PolicyAnswer>)))]
pub async fn of_project(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>) -> Reply<PolicyAnswer> {
    who.check_project(&id)?;
    ok("Snapshot policy", app.read(move |host| host.snapshot_policy(&PolicyTarget::Project(id))).await?)
}

/// Sets the snapshot policy for the containers of a project that have none of their own.
#[utoipa::path(put, path = "/projects/{id}/snapshot-policy", tag = "snapshots", operation_id = "set_project_snapshot_policy", params(("id" = String, Path)),
    request_body = SnapshotPolicy, responses((status = 200, description = "Set", body = Envelope<PolicyAnswer>)))]
pub async fn set_of_project(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>, Explicit(input): Explicit<SnapshotPolicy>) -> Reply<PolicyAnswer> {
    who.check_project(&id)?;
    ok("Snapshot policy set", app.change(move |host| host.set_snapshot_policy(&input.caller, &PolicyTarget::Project(id), &input.body)).await?)
}

/// Deletes the snapshot policy of a project: the server's applies again. The answer is what applies now. Snapshots stay.
#[utoipa::path(delete, path = "/projects/{id}/snapshot-policy", tag = "snapshots", operation_id = "delete_project_snapshot_policy", params(("id" = String, Path)),
    responses((status = 200, description = "Deleted", body = Envelope<PolicyAnswer>)))]
pub async fn delete_of_project(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>, input: Input<Nothing>) -> Reply<PolicyAnswer> {
    who.check_project(&id)?;
    ok("Snapshot policy deleted", app.change(move |host| host.delete_snapshot_policy(&input.caller, &PolicyTarget::Project(id))).await?)
}

/// Shows the snapshot policy for all containers for which nothing nearer is set.
#[utoipa::path(get, path = "/snapshot-policy", tag = "snapshots", operation_id = "server_snapshot_policy",
    responses((status = 200, description = "The server's policy, or null", body = Envelope<PolicyAnswer>)))]
pub async fn of_server(State(app): State<Shared>, who: Identity) -> Reply<PolicyAnswer> {
    who.check_server()?;
    ok("Snapshot policy", app.read(|host| host.snapshot_policy(&PolicyTarget::Server)).await?)
}

/// Sets the snapshot policy for all containers for which nothing nearer is set.
#[utoipa::path(put, path = "/snapshot-policy", tag = "snapshots", operation_id = "set_server_snapshot_policy", request_body = SnapshotPolicy,
    responses((status = 200, description = "Set", body = Envelope<PolicyAnswer>)))]
pub async fn set_of_server(State(app): State<Shared>, who: Identity, Explicit(input): Explicit<SnapshotPolicy>) -> Reply<PolicyAnswer> {
    who.check_server()?;
    ok("Snapshot policy set", app.change(move |host| host.set_snapshot_policy(&input.caller, &PolicyTarget::Server, &input.body)).await?)
}

/// Deletes the snapshot policy of the server. Snapshots stay.
#[utoipa::path(delete, path = "/snapshot-policy", tag = "snapshots", operation_id = "delete_server_snapshot_policy",
    responses((status = 200, description = "Deleted", body = Envelope<PolicyAnswer>)))]
pub async fn delete_of_server(State(app): State<Shared>, who: Identity, input: Input<Nothing>) -> Reply<PolicyAnswer> {
    who.check_server()?;
    ok("Snapshot policy deleted", app.change(move |host| host.delete_snapshot_policy(&input.caller, &PolicyTarget::Server)).await?)
}
