//! Health, readiness and metrics.

use super::Routes;
use crate::app::Shared;
use crate::envelope::{ApiError, Envelope, Reply, ok};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hoody_state::{Code, Error};
use serde::Serialize;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// The state of the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Health {
    status: &'static str,
    version: &'static str,
}

const fn healthy() -> Health {
    Health { status: "ok", version: env!("CARGO_PKG_VERSION") }
}

/// Tells whether the server is up.
#[utoipa::path(get, path = "/healthz", tag = "server", operation_id = "healthz", responses((status = 200, description = "The server is up", body = Envelope<Health>)))]
pub async fn healthz() -> Reply<Health> {
    ok("The server is up", healthy())
}

/// Tells whether the catalog and the pool can be used.
#[utoipa::path(get, path = "/readyz", tag = "server", operation_id = "readyz", responses((status = 200, description = "They can, and the pool is writable", body = Envelope<Health>)))]
pub async fn readyz(State(app): State<Shared>) -> Reply<Health> {
    // This route needs no token, so the details go to the log only.
    let not_ready = |e: Error| {
        tracing::warn!(error = %e, "not ready");
        if e.code() == Code::PoolReadOnly {
            return e;
        }
        Error::new(Code::NotReady, "the catalog or the pool does not answer; the server's log says why").with_source(e)
    };
    app.read(move |host| host.ready().map_err(not_ready)).await?;
    ok("The server is ready", healthy())
}

/// Metrics in the text format of Prometheus, if the server was started with `--metrics`.
#[utoipa::path(get, path = "/metrics", tag = "server", operation_id = "metrics", responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
pub async fn metrics(State(app): State<Shared>) -> Result<Response, ApiError> {
    if !app.options.metrics {
        return Err(Error::new(Code::RouteNotFound, "the metrics are off: start the server with --metrics").into());
    }
    let shared = app.clone();
    let page = app.read(move |host| shared.metrics.render(host, &shared.loads())).await?;
    Ok(([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page).into_response())
}
