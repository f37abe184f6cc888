//! The part of the API that a container has by its own socket (`/run/hoody.sock`), for itself alone.
//!
//! | route | what |
//! | --- | --- |
//! | `GET /containers`, `GET /containers/{id}` | itself, and the copies that it made by this socket: names and states, nothing else |
//! | `DELETE /containers/{id}` | such a copy |
//! | `GET,POST …/snapshots`, `GET …/snapshots/{name}` | its snapshots |
//! | `PUT …/snapshots/{name}/expiry`, `DELETE …/snapshots/{name}` | of snapshots that it took by this socket, if they are not pinned |
//! | `GET …/snapshots/{a}/diff/{b}`, `POST …/snapshots/{name}/restore-files` | as everywhere |
//! | `POST …/fork` | a few copies of it, without a socket of their own |
//! | `GET /operations/{id}` | its own operations, and those of its copies |
//!
//! `self` in a path is the container's id, and the paths work with and without `/api/v1`. Every other id answers as if it did not exist, and every other route
//! is none. The caller is [`Identity::Container`], so that each handler refuses what is not its own even if it were reached; the library decides which
//! snapshots a container may change (`Caller::inside`).
//!
//! **Limits**: see [`rate`] and [`Limits`]; one change at a time; bodies of 64 KiB.

pub mod rate;
mod routes;

use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::ApiError;
use crate::limits::Limits;
use crate::serve::Connection;
use crate::slots::{CALLER, Holder, Slot};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use hoody_state::id::ContainerId;
use hoody_state::{Code, Error};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rate::Bucket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower::ServiceExt;

/// The container that a socket belongs to, and its state.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    id: ContainerId,
    bucket: Arc<Bucket>,
    /// Held by the one change that may be under way: what it is checked against stays true.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Own {
    pub(crate) fn new(id: ContainerId, limits: &Limits) -> Self {
        let bucket = Bucket::new(limits.container_burst, limits.container_rate, Instant::now());
        Own { id, bucket: Arc::new(bucket), changing: Arc::default() }
    }
}

/// The routes. Each request must have its [`Own`] as an extension.
pub(crate) fn router(app: Shared) -> Router {
    use crate::routes::{diff, operations, snapshots};
    let inner = Router::new()
        .route("/containers", get(routes::list))
        .route("/containers/{id}", get(routes::show))
        .route("/containers/{id}", delete(routes::remove))
        .route("/containers/{id}/snapshots", get(snapshots::list))
        .route("/containers/{id}/snapshots", post(routes::snapshot))
        .route("/containers/{id}/snapshots/{name}", get(snapshots::get).delete(snapshots::delete))
        .route("/containers/{id}/snapshots/{name}/expiry", put(snapshots::expiry))
        .route("/containers/{id}/snapshots/{a}/diff/{b}", get(diff::diff))
        .route("/containers/{id}/snapshots/{name}/restore-files", post(routes::restore_files))
        .route("/containers/{id}/fork", post(routes::fork))
        .route("/operations/{id}", get(operations::get))
        .method_not_allowed_fallback(no_route)
        .fallback(no_route)
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app);
    Router::new().fallback(move |request: Request<Body>| {
        let inner = inner.clone();
        async move { inner.oneshot(plain(request)).await }
    })
}

/// The path as the routes have it: without `/api/v1` and a slash at the end, and with the id for `self`.
fn plain(mut request: Request) -> Request {
    let Some(own) = request.extensions().get::<Own>() else { return request };
    let path = request.uri().path();
    let path = path.strip_prefix("/api/v1").filter(|p| p.starts_with('/')).unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = match path.strip_prefix("/containers/self") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/containers/{}{rest}", own.id),
        _ => path.to_owned(),
    };
    let target = request.uri().query().map_or_else(|| path.clone(), |q| format!("{path}?{q}"));
    if let Ok(uri) = target.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

async fn no_route(request: Request) -> ApiError {
    let shown: String = request.uri().path().chars().take(200).collect();
    let message = format!("{} {shown} is no request for a container's own socket: the documentation lists what is", request.method());
    Error::new(Code::RouteNotFound, message).into()
}

/// Lets a request through as the container's, if it has not asked too often and there is room.
async fn admit(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let Some(own) = request.extensions().get::<Own>().cloned() else {
        return ApiError::from(Error::new(Code::MissingToken, "this is no container's socket")).into_response();
    };
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    if let Err(wait) = own.bucket.take(if changes { rate::CHANGE } else { rate::READ }, Instant::now()) {
        return too_often(wait).into_response();
    }
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.authenticated();
    }
    let who = Identity::Container(own.id.clone());
    let holder = Holder::caller(&who);
    request.extensions_mut().insert(who);
    let slot = match app.counted.containers.take(&holder, app.options.limits.patience, Code::ServerBusy).await {
        Ok(slot) => slot,
        Err(e) => return ApiError::from(e).into_response(),
    };
    let one = if changes { Some(own.changing.lock().await) } else { None };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = CALLER.scope(holder, next.run(request)).await;
    drop(one);
    if changes {
        tracing::info!(container = %own.id, %method, path, status = response.status().as_u16(), "a container changed something by its socket");
    }
    // A slow reader of an answer keeps its place, so that containers do not use up what all callers share.
    response.map(|body| Body::new(Held { body, _slot: slot }))
}

/// A body that keeps a slot until it is sent.
struct Held {
    body: Body,
    _slot: Slot,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_often(wait: std::time::Duration) -> ApiError {
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    let message = format!("this container asks too often through its socket: try again in {seconds} s");
    Error::new(Code::RateLimited, message).with_data(serde_json::json!({ "retry_after": seconds as u64 })).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn self_is_the_container_and_the_prefix_may_be_left_out() {
        let own = Own::new("65f0c0ffee00000000000002".parse().unwrap(), &Limits::default());
        let plain = |target: &str| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = target.parse().unwrap();
            request.extensions_mut().insert(own.clone());
            plain(request).uri().to_string()
        };
        let id = "65f0c0ffee00000000000002";
        for (given, wanted) in [
            ("/containers/self", format!("/containers/{id}")),
            ("/api/v1/containers/self/snapshots?a=b", format!("/containers/{id}/snapshots?a=b")),
            ("/api/v1/containers/", "/containers".to_owned()),
            ("/containers/selfish", "/containers/selfish".to_owned()),
            ("/containers/self/snapshots/self/", format!("/containers/{id}/snapshots/self")),
            ("/api/v1x", "/api/v1x".to_owned()),
        ] {
            assert_eq!(plain(given), wanted, "{given}");
        }
    }
}
