//! Snapshots: taking, restoring and managing them.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, ok};
use crate::extract::{Id, Input, Measuring, Named, Nothing, Query, invalid};
use axum::extract::State;
use hoody_state::Error;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewSnapshot, RestoreOptions, Restored, SnapshotAnswer, SnapshotDeleted, SnapshotFilter, SnapshotList, Trigger, present};
use hoody_state::units::Age;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, restore, delete))
        .routes(routes!(rename))
        .routes(routes!(pin, unpin))
        .routes(routes!(expiry))
        .routes(routes!(undo))
}

/// Which snapshots are listed. `label` may be repeated.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the parameters, which are read one by one: one of them may be repeated")]
pub struct FilterQuery {
    /// `KEY=VALUE`, or `KEY` for any value. Of several, all must be there.
    label: Option<Vec<String>>,
    /// Taken at this time or later: a time in RFC 3339, or an age such as `7d`.
    since: Option<String>,
    /// Taken before this time.
    until: Option<String>,
    /// Why it was taken.
    trigger: Option<Trigger>,
    /// What its alias begins with, or the alias that it had until it was replaced.
    alias: Option<String>,
}

fn filter(query: Vec<(String, String)>, now: Timestamp) -> Result<SnapshotFilter, Error> {
    let mut filter = SnapshotFilter::default();
    for (name, value) in query {
        match name.as_str() {
            "label" => filter.labels.push(label(&value)?),
            "since" => filter.since = Some(moment("since", &value, now)?),
            "until" => filter.until = Some(moment("until", &value, now)?),
            "trigger" => filter.trigger = Some(value.parse().map_err(|e: Error| invalid("trigger", e.message()))?),
            "alias" => filter.alias = Some(value),
            _ => {}
        }
    }
    match (filter.since, filter.until) {
        (Some(since), Some(until)) if since >= until => Err(invalid("since", "it is not before `until`: no snapshot can be in between")),
        _ => Ok(filter),
    }
}

fn label(text: &str) -> Result<(String, Option<String>), Error> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
    if key.is_empty() {
        return Err(invalid("label", format!("{text:?} has no key: write KEY=VALUE, or KEY for any value")));
    }
    Ok((key.to_owned(), value))
}

fn moment(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    if let Ok(age) = text.parse::<Age>() {
        return Ok(age.before(now));
    }
    text.parse().map_err(|e| invalid(field, format!("{text:?} is neither a time in RFC 3339 nor an age such as 90s, 6h or 7d: {e}")))
}

/// Lists the snapshots of a container, newest first.
#[utoipa::path(get, path = "/containers/{id}/snapshots", tag = "snapshots", operation_id = "list_snapshots", params(("id" = String, Path), FilterQuery), responses((status = 200, description = "All snapshots, or those that match", body = Envelope<SnapshotList>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Query(query): Query<Vec<(String, String)>>) -> Reply<SnapshotList> {
    let filter = filter(query, Timestamp::now())?;
    ok("Snapshots", app.look(who, id, move |host, id| host.snapshots_matching(id, &filter)).await.map_err(ApiError::on_snapshot)?)
}

/// Takes a snapshot.
#[utoipa::path(post, path = "/containers/{id}/snapshots", tag = "snapshots", operation_id = "create_snapshot", request_body = Option<NewSnapshot>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 200, description = "Taken", body = Envelope<SnapshotAnswer>)))]
pub async fn create(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<NewSnapshot>) -> Reply<SnapshotAnswer> {
    let taken = app.alter(who, id, move |host, id| host.create_snapshot(&input.caller, id, input.body)).await;
    ok("Snapshot created", taken.map_err(ApiError::on_snapshot)?)
}

/// Shows a snapshot, given by name or alias.
#[utoipa::path(get, path = "/containers/{id}/snapshots/{name}", tag = "snapshots", operation_id = "get_snapshot", params(("id" = String, Path), ("name" = String, Path),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for what has still to be measured")),
    responses((status = 200, description = "The resource", body = Envelope<SnapshotAnswer>)))]
pub async fn get(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, Measuring(wait): Measuring) -> Reply<SnapshotAnswer> {
    let Named(id, name) = path;
    ok("Snapshot", app.look(who, id, move |host, id| host.snapshot_detail(id, &name, wait)).await?)
}

/// Restores a snapshot, given by name or alias. PUT and PATCH do the same. The answer comes when it is restored, or after 25 s, or as `Prefer` says; it then names the operation.
#[utoipa::path(method(put, patch), path = "/containers/{id}/snapshots/{name}", tag = "snapshots", operation_id = "restore_snapshot", request_body = Option<RestoreOptions>,
    params(("id" = String, Path), ("name" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Restored, or still being restored: poll the operation", body = Envelope<Restored>)))]
pub async fn restore(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<RestoreOptions>) -> Reply<Restored> {
    let (Named(id, name), input) = (path, input.held_to_the_end());
    let restored = app.alter(who, id, move |host, id| host.restore(&input.caller, id, &name, input.body)).await.map_err(ApiError::on_snapshot)?;
    ok(restored.message.clone(), restored)
}

/// Undoes the last restore.
#[utoipa::path(post, path = "/containers/{id}/undo", tag = "snapshots", operation_id = "undo_restore", request_body = Option<RestoreOptions>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "Undone, or still being undone: poll the operation", body = Envelope<Restored>)))]
pub async fn undo(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<RestoreOptions>) -> Reply<Restored> {
    let input = input.held_to_the_end();
    let restored = app.alter(who, id, move |host, id| host.undo_with(&input.caller, id, input.body)).await.map_err(ApiError::on_snapshot)?;
    ok(restored.message.clone(), restored)
}

/// Deletes a snapshot.
#[utoipa::path(delete, path = "/containers/{id}/snapshots/{name}", tag = "snapshots", operation_id = "delete_snapshot", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Deleted", body = Envelope<SnapshotDeleted>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<Nothing>) -> Reply<SnapshotDeleted> {
    let Named(id, name) = path;
    let deleted = app.alter(who, id, move |host, id| host.delete_snapshot(&input.caller, id, &name)).await;
    ok("Snapshot deleted", deleted.map_err(ApiError::on_snapshot)?)
}

/// The new alias.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct AliasInput {
    /// At most 100 characters; null removes the alias. Required.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    alias: Option<Option<String>>,
}

/// Changes the alias of a snapshot. Its name does not change. PATCH does the same.
#[utoipa::path(method(put, patch), path = "/containers/{id}/snapshots/{name}/alias", tag = "snapshots", operation_id = "rename_snapshot", request_body = AliasInput, params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Changed", body = Envelope<SnapshotAnswer>)))]
pub async fn rename(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<AliasInput>) -> Reply<SnapshotAnswer> {
    let Named(id, name) = path;
    let alias = input.body.alias.ok_or_else(|| invalid("alias", "the field is missing: give a text or null"))?;
    let renamed = app.alter(who, id, move |host, id| host.rename_snapshot(&input.caller, id, &name, alias)).await;
    ok("Snapshot updated", renamed.map_err(ApiError::on_snapshot)?)
}

/// Options of a pin.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct PinInput {
    /// Why it is pinned.
    #[serde(default)]
    reason: Option<String>,
}

/// Pins a snapshot: it does not expire and cannot be deleted.
#[utoipa::path(put, path = "/containers/{id}/snapshots/{name}/pin", tag = "snapshots", operation_id = "pin_snapshot", request_body = Option<PinInput>, params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Pinned", body = Envelope<SnapshotAnswer>)))]
pub async fn pin(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<PinInput>) -> Reply<SnapshotAnswer> {
    let Named(id, name) = path;
    let reason = Some(input.body.reason.unwrap_or_default());
    let pinned = app.alter(who, id, move |host, id| host.pin_snapshot(&input.caller, id, &name, reason)).await;
    ok("Snapshot pinned", pinned.map_err(ApiError::on_snapshot)?)
}

/// Unpins a snapshot.
#[utoipa::path(delete, path = "/containers/{id}/snapshots/{name}/pin", tag = "snapshots", operation_id = "unpin_snapshot", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Unpinned", body = Envelope<SnapshotAnswer>)))]
pub async fn unpin(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<Nothing>) -> Reply<SnapshotAnswer> {
    let Named(id, name) = path;
    let unpinned = app.alter(who, id, move |host, id| host.pin_snapshot(&input.caller, id, &name, None)).await;
    ok("Snapshot unpinned", unpinned.map_err(ApiError::on_snapshot)?)
}

/// The time of expiry.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ExpiryInput {
    /// A time in RFC 3339; null: never. Either this or `expires_in` is required.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
    /// How long from now, such as `6h` or `7d`.
    #[serde(default)]
    expires_in: Option<Age>,
}

/// Sets when a snapshot expires: it is then deleted.
#[utoipa::path(put, path = "/containers/{id}/snapshots/{name}/expiry", tag = "snapshots", operation_id = "set_snapshot_expiry", request_body = ExpiryInput, params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Changed", body = Envelope<SnapshotAnswer>)))]
pub async fn expiry(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<ExpiryInput>) -> Reply<SnapshotAnswer> {
    let Named(id, name) = path;
    let changed = match (input.body.expires_at, input.body.expires_in) {
        (Some(_), Some(_)) => return Err(invalid("expires_in", "give either it or `expires_at`, not both").into()),
        (None, None) => return Err(invalid("expires_at", "the field is missing: give a time or null, or `expires_in`").into()),
        (None, Some(age)) => app.alter(who, id, move |host, id| host.set_snapshot_expiry_in(&input.caller, id, &name, age)).await,
        (Some(at), None) => {
            let at = at.map(|t| time(&t)).transpose()?;
            app.alter(who, id, move |host, id| host.set_snapshot_expiry(&input.caller, id, &name, at)).await
        }
    };
    ok("Snapshot updated", changed.map_err(ApiError::on_snapshot)?)
}

fn time(text: &str) -> Result<Timestamp, Error> {
    text.parse().map_err(|e| invalid("expires_at", format!("{text:?} is not a time in RFC 3339: {e}")))
}
