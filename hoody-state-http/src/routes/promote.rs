//! Taking a fork's changes over, and taking a fork back.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::{Id, Input};
use axum::extract::State;
use hoody_state::id::ContainerId;
use hoody_state::model::{PromoteRequest, Promoted, ResetAnswer, ResetRequest, ResetTo};
use hoody_state::{Code, Error};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(promote)).routes(routes!(reset))
}

/// The published code for a source container that does not exist, or that a token may not see.
fn of_source(e: Error) -> Error {
    if e.code() == Code::ContainerNotFound { Error::new(Code::SourceContainerNotFound, e.message().to_owned()) } else { e }
}

/// Takes the changes of a fork since its branch point over into the container that it came from, or into `into`: a three-way merge of their files. If both changed
/// the same differently, the answer is 409 `promote_conflicts`, `data.conflicts` lists at most 100 of `data.total`, and nothing is changed, unless `prefer` says whose
/// version is taken. What the target was is kept as an undo snapshot; a target that runs boots fresh; the fork stays as it is. Files that belong to the fork's
/// machine (machine id, host name, SSH host keys, random seed) are left out.
#[utoipa::path(post, path = "/containers/{id}/promote", tag = "copies", operation_id = "promote_container", request_body = Option<PromoteRequest>,
    params(("id" = String, Path, description = "The fork"), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Taken over, or still under way: poll the operation", body = Envelope<Promoted>)))]
pub async fn promote(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<PromoteRequest>) -> Reply<Promoted> {
    let input = input.held_to_the_end();
    let promoted = app
        .remote(move |host| {
            who.check_container(host, &id)?;
            let target = host.target_of_promotion(&id, &input.body)?;
            let checked = who.check_container(host, &target);
            if input.body.into.is_some() {
                checked?
            } else {
                checked.map_err(of_source)?
            };
            host.promote_container(&input.caller, &id, &input.body)
        })
        .await?;
    ok(promoted.message.clone(), promoted)
}

/// Takes a fork back to its branch point, or to what its source is now (`to: source`). What it was is kept as an undo snapshot; a fork that runs boots.
#[utoipa::path(post, path = "/containers/{id}/reset", tag = "copies", operation_id = "reset_container", request_body = Option<ResetRequest>,
    params(("id" = String, Path, description = "The fork"), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Done, or still under way: poll the operation", body = Envelope<ResetAnswer>)))]
pub async fn reset(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<ResetRequest>) -> Reply<ResetAnswer> {
    let input = input.held_to_the_end();
    let done = app
        .remote(move |host| {
            who.check_container(host, &id)?;
            if input.body.to == Some(ResetTo::Source) {
                // The fork gets the present state of its source, so the token must reach the source.
                match (who.only(), host.source_of_copy(&id)?) {
                    (Some(_), Some((source, true))) => who.check_container(host, &source).map_err(of_source)?,
                    (Some(_), Some((_, false))) => who.check_server()?,
                    _ => {}
                }
            }
            host.reset_container(&input.caller, &id, &input.body)
        })
        .await?;
    ok(done.message.clone(), done)
}
