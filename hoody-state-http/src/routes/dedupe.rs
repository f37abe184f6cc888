//! Merging equal data of the pool.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::extract::Input;
use axum::extract::State;
use hoody_state::model::{DedupeAnswer, DedupePool, LastDedupe};
use hoody_state::{Host, Result};
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(dedupe, last))
}

/// Whether a caller reaches all that a request names. What names nothing is about the whole server.
fn check(who: &Identity, host: &Host, request: &DedupePool) -> Result<()> {
    if let Some(project) = &request.project_id {
        who.check_project(&project.parse()?)?;
    }
    for id in request.containers.iter().flatten() {
        who.check_container(host, &id.parse()?)?;
    }
    let named = request.project_id.is_some() || request.containers.as_ref().is_some_and(|c| !c.is_empty());
    if named { Ok(()) } else { who.check_server() }
}

/// Merges equal data of the live states of containers, and of images, so that they take their space once: files and parts of files that were written or imported twice. No
/// content changes, whoever writes meanwhile. What snapshots hold stays as it is. One run at a time: while another is under way, the answer is 409.
#[utoipa::path(post, path = "/pool/dedupe", tag = "server", operation_id = "dedupe_pool", request_body = Option<DedupePool>,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end")),
    responses((status = 200, description = "What was gained, or still under way: poll the operation", body = Envelope<DedupeAnswer>)))]
pub async fn dedupe(State(app): State<Shared>, who: Identity, input: Input<DedupePool>) -> Reply<DedupeAnswer> {
    let done = app
        .change(move |host| {
            check(&who, host, &input.body)?;
            host.dedupe_pool(&input.caller, &input.body)
        })
        .await?;
    ok(done.message.clone(), done)
}

/// Shows what came of the last run. A token of a project sees a run of its project alone.
#[utoipa::path(get, path = "/pool/dedupe", tag = "server", operation_id = "last_dedupe", responses((status = 200, description = "The last run that ended", body = Envelope<LastDedupe>)))]
pub async fn last(State(app): State<Shared>, who: Identity) -> Reply<LastDedupe> {
    ok("Last run", app.read(move |host| host.last_dedupe(who.only())).await?)
}
