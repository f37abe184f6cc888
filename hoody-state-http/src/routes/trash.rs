//! The trash: deleted containers that can still be recovered.

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Id, Input, Nothing, PageQuery, Query};
use axum::extract::State;
use hoody_state::id::ContainerId;
use hoody_state::model::{RecoverRequest, Recovered, TrashPage, TrashedContainer};
use hoody_state::{Code, Error, Host, Result};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(recover)).routes(routes!(get, delete))
}

/// Hides what was in projects that the caller cannot reach.
fn visible(who: &Identity, host: &Host, id: &ContainerId) -> Result<TrashedContainer> {
    let trashed = host.trashed(id)?;
    if who.reaches(&trashed.project_id) {
        return Ok(trashed);
    }
    Err(Error::new(Code::TrashNotFound, format!("there is no container {id} in the trash: GET /trash lists what is there")))
}

/// Lists deleted containers that can still be recovered, the last deleted first.
#[utoipa::path(get, path = "/trash", tag = "trash", operation_id = "list_trash", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<TrashPage>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Query(q): Query<PageQuery>) -> Reply<TrashPage> {
    let page = q.check(50)?;
    ok("Trash", app.read(move |host| host.trash(&page, who.only())).await?)
}

/// Shows a deleted container that can still be recovered.
#[utoipa::path(get, path = "/trash/{id}", tag = "trash", operation_id = "get_trashed_container", params(("id" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<TrashedContainer>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<TrashedContainer> {
    ok("Container in the trash", app.read(move |host| visible(&who, host, &id)).await?)
}

/// Recovers a deleted container, with its id and all its snapshots. It is stopped.
#[utoipa::path(post, path = "/trash/{id}/recover", tag = "trash", operation_id = "recover_container", request_body = Option<RecoverRequest>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 200, description = "Recovered", body = Envelope<Recovered>)))]
pub async fn recover(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<RecoverRequest>) -> Reply<Recovered> {
    if let Some(project) = &input.body.project_id {
        who.check_project(project)?;
    }
    let recovered = app
        .change(move |host| {
            match visible(&who, host, &id) {
                Ok(trashed) => who.check_network(trashed.network)?,
                // A request that is repeated with its key finds that it has left the trash already.
                Err(e) if input.caller.idempotency.is_none() || who.check_container(host, &id).is_err() => return Err(e),
                Err(_) => {}
            }
            host.recover_trashed(&input.caller, &id, input.body)
        })
        .await?;
    ok("Container recovered", recovered)
}

/// Deletes a container in the trash for good.
#[utoipa::path(delete, path = "/trash/{id}", tag = "trash", operation_id = "delete_trashed_container", params(("id" = String, Path)), responses((status = 200, description = "Deleted, or being deleted", body = Envelope<Null>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<Nothing>) -> Reply<Null> {
    app.change(move |host| {
        visible(&who, host, &id)?;
        host.delete_trashed(&input.caller, &id)
    })
    .await?;
    ok("Container deleted for good", Null(()))
}
