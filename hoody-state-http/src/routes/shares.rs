//! Shares: directories that a container offers to others, which accept or reject them.

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, created, ok};
use crate::extract::{Id, Input, Named, Nothing, Query, invalid};
use axum::extract::State;
use hoody_state::id::{ContainerId, ShareId};
use hoody_state::model::{IncomingShare, NewShare, Share, ShareFilter, ShareMounted, ShareStatus, ShareTarget, ShareUpdate, ShareWord};
use hoody_state::{Code, Error};
use serde::Deserialize;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update))
        .routes(routes!(all))
        .routes(routes!(delete))
        .routes(routes!(incoming))
        .routes(routes!(all_incoming))
        .routes(routes!(mount))
}

/// Which shares to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ShareQuery {
    /// Only shares with a target of this type: `container` or `project`.
    target_type: Option<String>,
    /// Only shares with this label.
    label: Option<String>,
    /// Only shares with this status: `active` or `failed`.
    status: Option<String>,
    /// Only enabled (`true`) or only disabled (`false`) shares.
    enabled: Option<bool>,
    /// Also shares that have expired but are not yet deleted.
    include_expired: Option<bool>,
}

impl ShareQuery {
    fn check(self) -> Result<ShareFilter, Error> {
        let target_type = match self.target_type.as_deref() {
            None => None,
            Some("container") => Some(ShareTarget::Container),
            Some("project") => Some(ShareTarget::Project),
            Some(other) => return Err(invalid("target_type", format!("{other:?} is neither container nor project"))),
        };
        let status = match self.status.as_deref() {
            None => None,
            Some("active") => Some(ShareStatus::Active),
            Some("failed") => Some(ShareStatus::Failed),
            Some(other) => return Err(invalid("status", format!("{other:?} is neither active nor failed"))),
        };
        Ok(ShareFilter { target_type, status, label: self.label, enabled: self.enabled, include_expired: self.include_expired.unwrap_or(false) })
    }
}

/// The message of an answer, with the processes that still have files of the share open.
fn said(what: &str, held_by: &[ContainerId]) -> String {
    if held_by.is_empty() {
        return what.to_owned();
    }
    let ids: Vec<&str> = held_by.iter().map(ContainerId::as_str).collect();
    format!("{what}; a process in {} still has something of it open and keeps that until it closes it (a restart ends it)", ids.join(", "))
}

fn share_id(s: &str) -> Result<ShareId, Error> {
    s.parse()
}

/// Lists the shares of a container.
#[utoipa::path(get, path = "/containers/{id}/storage/shares", tag = "shares", operation_id = "list_shares", params(("id" = String, Path), ShareQuery),
    responses((status = 200, description = "All, oldest first", body = Envelope<Vec<Share>>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Query(q): Query<ShareQuery>) -> Reply<Vec<Share>> {
    let filter = q.check()?;
    ok("Shares", app.look(who, id, move |host, id| host.shares_of(id, &filter)).await?)
}

/// Shares a directory with a container, which must accept it, or with all containers of a project.
#[utoipa::path(post, path = "/containers/{id}/storage/shares", tag = "shares", operation_id = "create_share", request_body = NewShare,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 201, description = "Shared", body = Envelope<Share>)))]
pub async fn create(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<NewShare>) -> Reply<Share> {
    // The containers of a project receive the share without accepting it, so the token must reach the project.
    if let Some(p) = &input.body.target_project_id {
        who.check_project(p)?;
    }
    created("Share created", app.alter(who, id, move |host, id| host.create_share(&input.caller, id, input.body)).await?)
}

/// Shows a share.
#[utoipa::path(get, path = "/containers/{id}/storage/shares/{share_id}", tag = "shares", operation_id = "get_share", params(("id" = String, Path), ("share_id" = String, Path)),
    responses((status = 200, description = "The resource", body = Envelope<Share>)))]
pub async fn get(State(app): State<Shared>, who: Identity, path: Named<ContainerId>) -> Reply<Share> {
    let Named(id, share) = path;
    let share = share_id(&share)?;
    ok("Share", app.look(who, id, move |host, id| host.share(Some(id), &share)).await?)
}

/// Changes a share. Fields that are absent keep their values, null clears. Running receivers see the change at once.
#[utoipa::path(patch, path = "/containers/{id}/storage/shares/{share_id}", tag = "shares", operation_id = "update_share", request_body = ShareUpdate, params(("id" = String, Path), ("share_id" = String, Path)),
    responses((status = 200, description = "Changed", body = Envelope<Share>)))]
pub async fn update(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<ShareUpdate>) -> Reply<Share> {
    let Named(id, share) = path;
    let share = share_id(&share)?;
    let share = app.alter(who, id, move |host, id| host.update_share(&input.caller, id, &share, input.body)).await?;
    ok(said("Share updated", &share.held_by), share)
}

/// Lists the shares of all containers.
#[utoipa::path(get, path = "/storage/shares", tag = "shares", operation_id = "list_all_shares", responses((status = 200, description = "All, oldest first", body = Envelope<Vec<Share>>)))]
pub async fn all(State(app): State<Shared>, who: Identity) -> Reply<Vec<Share>> {
    ok("Shares", app.read(move |host| host.all_shares(who.only())).await?)
}

/// Deletes a share. No receiver sees it any more once this has answered. Files that a process has open stay open; the message says so.
#[utoipa::path(delete, path = "/storage/shares/{share_id}", tag = "shares", operation_id = "delete_share", params(("share_id" = String, Path)),
    responses((status = 200, description = "Deleted", body = Envelope<Null>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, Id(id): Id<ShareId>, input: Input<Nothing>) -> Reply<Null> {
    let owner = app
        .read({
            let id = id.clone();
            move |host| Ok(host.share(None, &id)?.source_container_id)
        })
        .await?;
    let gone = app.alter(who, owner, move |host, _| host.delete_share(&input.caller, &id)).await;
    // For a token that does not reach the owner the share does not exist.
    let held_by = gone
        .map_err(|e| if e.error().code() == Code::ContainerNotFound { ApiError::from(Error::new(Code::ShareNotFound, "there is no such share")) } else { e })?;
    ok(said("Share deleted", &held_by), Null(()))
}

/// Lists the shares that a container receives.
#[utoipa::path(get, path = "/containers/{id}/storage/incoming", tag = "shares", operation_id = "list_incoming_shares", params(("id" = String, Path)),
    responses((status = 200, description = "All, oldest first", body = Envelope<Vec<IncomingShare>>)))]
pub async fn incoming(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<Vec<IncomingShare>> {
    ok("Incoming shares", app.look(who, id, |host, id| host.incoming(id)).await?)
}

/// Lists the shares that all containers receive.
#[utoipa::path(get, path = "/storage/incoming", tag = "shares", operation_id = "list_all_incoming_shares", responses((status = 200, description = "All", body = Envelope<Vec<IncomingShare>>)))]
pub async fn all_incoming(State(app): State<Shared>, who: Identity) -> Reply<Vec<IncomingShare>> {
    ok("Incoming shares", app.read(move |host| host.all_incoming(who.only())).await?)
}

/// Accepts or rejects a share. It appears in the container, or disappears, at once.
#[utoipa::path(patch, path = "/containers/{id}/storage/incoming/{share_id}/mount", tag = "shares", operation_id = "set_share_mount", request_body = ShareWord, params(("id" = String, Path), ("share_id" = String, Path)),
    responses((status = 200, description = "Accepted or rejected", body = Envelope<ShareMounted>)))]
pub async fn mount(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<Option<ShareWord>>) -> Reply<ShareMounted> {
    let Named(id, share) = path;
    let share = share_id(&share)?;
    let word = input.body.ok_or_else(|| invalid("mount", "it is missing: true accepts, false rejects"))?;
    let done = app.alter(who, id, move |host, id| host.set_share_mount(&input.caller, id, &share, word)).await?;
    ok(said(if word.mount { "Share accepted" } else { "Share rejected" }, &done.share.held_by), done)
}
