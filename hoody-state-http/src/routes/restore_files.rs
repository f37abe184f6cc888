//! Restoring single files of a snapshot.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, all_or_some};
use crate::error_map::outer_text;
use crate::extract::{Input, Named};
use axum::extract::State;
use hoody_state::id::ContainerId;
use hoody_state::model::{FilesRestored, RestoreFiles};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(restore_files))
}

/// Restores single files and directories of a snapshot into the container, which may be running. Each path has its own result; the state before is kept as an
/// undo snapshot. Names that are not in the snapshot stay, unless `delete_new`. The answer comes when all is done, or after 25 s, or as `Prefer` says; it then
/// names the operation.
#[utoipa::path(post, path = "/containers/{id}/snapshots/{name}/restore-files", tag = "files", operation_id = "restore_files", request_body = RestoreFiles,
    params(("id" = String, Path), ("name" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the change")),
    responses((status = 200, description = "All paths are restored, or still being restored: poll the operation", body = Envelope<FilesRestored>),
        (status = 207, description = "Some paths are restored and others are not: `failed` says why. If none can be restored, the status is that of the first error", body = Envelope<FilesRestored>)))]
pub async fn restore_files(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<RestoreFiles>) -> Reply<FilesRestored> {
    let (Named(id, name), input) = (path, input.held_to_the_end());
    let restored = app.alter(who, id, move |host, id| host.restore_files(&input.caller, id, &name, input.body)).await;
    let mut restored = restored.map_err(ApiError::on_snapshot)?;
    for path in &mut restored.failed {
        path.message = outer_text(&path.code, std::mem::take(&mut path.message));
    }
    let (done, failed) = (restored.restored.len(), restored.failed.len());
    let message = match &restored.operation_id {
        Some(operation) => format!("the files are being restored: GET /operations/{operation} says how it ends"),
        None if failed == 0 => format!("{done} restored"),
        None => format!("{done} restored, {failed} not: data.failed says why"),
    };
    all_or_some(failed == 0, message, restored)
}
