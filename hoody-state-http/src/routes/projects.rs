//! Projects.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, created, ok};
use crate::extract::{Id, Input, Nothing, PageQuery, Query};
use axum::extract::State;
use hoody_state::id::ProjectId;
use hoody_state::model::{DeleteOptions, Pagination, Project, ProjectDeleted, ProjectInput};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// A page of projects.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProjectPage {
    projects: Vec<Project>,
    pagination: Pagination,
}

/// Lists projects.
#[utoipa::path(get, path = "/projects", tag = "projects", operation_id = "list_projects", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ProjectPage>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Query(q): Query<PageQuery>) -> Reply<ProjectPage> {
    let page = q.check(10)?;
    let paged = app.read(move |host| host.projects(&page, who.only())).await?;
    ok("Projects", ProjectPage { projects: paged.rows, pagination: paged.pagination })
}

/// Creates a project.
#[utoipa::path(post, path = "/projects", tag = "projects", operation_id = "create_project", request_body = ProjectInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 201, description = "Created", body = Envelope<Project>)))]
pub async fn create(State(app): State<Shared>, who: Identity, input: Input<ProjectInput>) -> Reply<Project> {
    who.check_server()?;
    let project = app.change(move |host| host.create_project(&input.caller, input.body)).await?;
    created("Project created", project)
}

/// Shows a project.
#[utoipa::path(get, path = "/projects/{id}", tag = "projects", operation_id = "get_project", params(("id" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<Project>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>) -> Reply<Project> {
    who.check_project(&id)?;
    ok("Project", app.read(move |host| host.project(&id)).await?)
}

/// Changes a project. PATCH does the same.
#[utoipa::path(method(put, patch), path = "/projects/{id}", tag = "projects", operation_id = "update_project", request_body = ProjectInput, params(("id" = String, Path)),
    responses((status = 200, description = "Changed", body = Envelope<Project>)))]
pub async fn update(State(app): State<Shared>, who: Identity, Id(id): Id<ProjectId>, input: Input<ProjectInput>) -> Reply<Project> {
    who.check_project(&id)?;
    ok("Project updated", app.change(move |host| host.update_project(&input.caller, &id, input.body)).await?)
}

/// Options of a deletion.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Whether to list the deleted containers.
    #[serde(default)]
    include_deleted_items: bool,
    /// `false`: its containers are deleted for good, whatever their policies say (`on.before_delete`).
    trash: Option<bool>,
}

/// Deletes a project and its containers.
#[utoipa::path(delete, path = "/projects/{id}", tag = "projects", operation_id = "delete_project", params(("id" = String, Path), DeleteQuery),
    responses((status = 200, description = "Deleted", body = Envelope<ProjectDeleted>)))]
pub async fn delete(
    State(app): State<Shared>,
    who: Identity,
    Id(id): Id<ProjectId>,
    Query(q): Query<DeleteQuery>,
    input: Input<Nothing>,
) -> Reply<ProjectDeleted> {
    who.check_project(&id)?;
    let options = DeleteOptions { permanently: q.trash == Some(false) };
    ok("Project deleted", app.change(move |host| host.delete_project_with(&input.caller, &id, q.include_deleted_items, options)).await?)
}
