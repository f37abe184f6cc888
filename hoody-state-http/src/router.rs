//! The router: all routes together.

use crate::app::Shared;
use crate::envelope::ApiError;
use crate::{auth, metrics, openapi, routes};
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::Uri;
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hoody_state::{Code, Error};
use tower::{Layer, ServiceExt};
use utoipa_axum::router::OpenApiRouter;

/// Every documented route and the document itself.
pub(crate) fn documented(app: &Shared) -> (Router<Shared>, utoipa::openapi::OpenApi) {
    let guarded = OpenApiRouter::new()
        .merge(routes::projects::routes())
        .merge(routes::containers::routes())
        .merge(routes::copies::routes())
        .merge(routes::promote::routes())
        .merge(routes::peers::routes())
        .merge(routes::policies::routes())
        .merge(routes::environment::routes())
        .merge(routes::inside::routes())
        .merge(routes::snapshots::routes())
        .merge(routes::restore_files::routes())
        .merge(routes::diff::routes())
        .merge(routes::files::routes())
        .merge(routes::timeline::routes())
        .merge(routes::trash::routes())
        .merge(routes::shares::routes())
        .merge(routes::images::routes())
        .merge(routes::dedupe::routes())
        .merge(routes::operations::routes())
        .merge(routes::events::routes())
        .merge(routes::published::routes())
        .route_layer(from_fn_with_state(app.clone(), auth::authenticate));
    let replication = routes::peers::replication().route_layer(from_fn_with_state(app.clone(), auth::authenticate_peer));
    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .nest("/api/v1", guarded)
        .nest("/api/v1", routes::published::open_routes())
        .nest("/api/v1", replication)
        .merge(routes::health::routes())
        .split_for_parts();
    (router, openapi::finish(document))
}

/// The router, for paths with and without a trailing slash.
pub(crate) fn router(app: Shared) -> Router {
    let (router, document) = documented(&app);
    let document = openapi::Document::new(&document);
    let sockets_of = app.clone();
    let inner = router
        .route("/openapi.json", get(openapi::Document::answer))
        .route("/api/v1/openapi.json", get(openapi::Document::answer))
        .layer(axum::Extension(document))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_route)
        .layer(from_fn_with_state(app.clone(), metrics::count))
        .with_state(app);
    let sockets = routes::events::socket_io::Sockets::new(&sockets_of);
    // The slash is removed before routing: a layer of the inner router would run after it.
    let trimmed = map_request(trim_slash).layer(inner);
    Router::new().fallback(move |request: Request<Body>| {
        let (trimmed, sockets) = (trimmed.clone(), sockets.clone());
        async move {
            // Socket.IO sends its token in a packet, so it is served before the headers are checked for one.
            if sockets.is_for(&request) { Ok(sockets.answer(request).await) } else { trimmed.oneshot(request).await }
        }
    })
}

async fn trim_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    if path.len() > 1 && path.ends_with('/') {
        let path = path.strip_suffix('/').unwrap_or(path);
        let target = request.uri().query().map_or_else(|| path.to_owned(), |q| format!("{path}?{q}"));
        if let Ok(uri) = target.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

async fn no_route(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    Error::new(Code::RouteNotFound, format!("there is no route {path}: /openapi.json lists them")).into()
}

async fn wrong_method(request: Request) -> Response {
    // `/containers/{id}/{operation}` matches every word; only six of them are operations.
    let verb = request.uri().path().rsplit('/').next().unwrap_or_default();
    let any_word = request.extensions().get::<MatchedPath>().is_some_and(|p| p.as_str().ends_with("/{operation}"));
    if any_word && routes::containers::verb(verb).is_none() {
        return no_route(request).await.into_response();
    }
    let message = format!("{} has no method {}", request.uri().path(), request.method());
    ApiError::from(Error::new(Code::MethodNotAllowed, message)).into_response()
}
