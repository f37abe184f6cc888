//! Other servers: managing peers, and answering their requests.

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::{Identity, OtherServer};
use crate::envelope::{ApiError, Envelope, Reply, created, ok};
use crate::extract::{Input, Name, Nothing};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hoody_state::model::{NewPeer, Peer};
use hoody_state::transfer::{Answer, Request, StreamRequest};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use utoipa_axum::routes;

/// The routes for people and programs.
pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list, add)).routes(routes!(remove))
}

/// The routes for other servers, which use replication tokens.
pub(crate) fn replication() -> Routes {
    Routes::new().routes(routes!(call)).routes(routes!(stream))
}

/// Lists the peers: the other servers that this one knows.
#[utoipa::path(get, path = "/peers", tag = "copies", operation_id = "list_peers", responses((status = 200, description = "All", body = Envelope<Vec<Peer>>)))]
pub async fn list(State(app): State<Shared>, who: Identity) -> Reply<Vec<Peer>> {
    who.check_server()?;
    ok("Peers", app.read(|host| host.peers()).await?)
}

/// Adds a peer. This server asks it for its id and name. The token is never shown again.
#[utoipa::path(post, path = "/peers", tag = "copies", operation_id = "add_peer", request_body = NewPeer, responses((status = 201, description = "Added", body = Envelope<Peer>)))]
pub async fn add(State(app): State<Shared>, who: Identity, input: Input<NewPeer>) -> Reply<Peer> {
    who.check_server()?;
    created("Peer added", app.remote(move |host| host.add_peer(&input.caller, input.body)).await?)
}

/// Removes a peer, given by its id, the id of its server or its name. Copied containers stay.
#[utoipa::path(delete, path = "/peers/{name}", tag = "copies", operation_id = "remove_peer", params(("name" = String, Path)), responses((status = 200, description = "Removed", body = Envelope<Null>)))]
pub async fn remove(State(app): State<Shared>, who: Identity, Name(which): Name, _: Input<Nothing>) -> Reply<Null> {
    who.check_server()?;
    app.change(move |host| host.remove_peer(&which)).await?;
    ok("Peer removed", Null(()))
}

/// A request of another server. The bodies are those of `hoody_state::transfer`; both servers must have the same version.
#[utoipa::path(post, path = "/replication/call", tag = "replication", operation_id = "replication_call", request_body = Object, responses((status = 200, description = "The answer", body = Envelope<Object>)))]
pub async fn call(State(app): State<Shared>, who: OtherServer, input: Input<Request>) -> Reply<Answer> {
    let token = who.token()?;
    ok("Answer", app.answer_peer(move |host| host.answer_peer(&token, input.body)).await?)
}

/// Sends a snapshot to another server, compressed with zstd.
#[utoipa::path(post, path = "/replication/stream", tag = "replication", operation_id = "replication_stream", request_body = Object,
    responses((status = 200, description = "The snapshot", content_type = "application/octet-stream", body = Vec<u8>)))]
pub async fn stream(State(app): State<Shared>, who: OtherServer, input: Input<StreamRequest>) -> Result<Response, ApiError> {
    let token = who.token()?;
    let offered = app.read(move |host| host.offer_stream(&token, &input.body)).await?;
    let (send, receive) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(8);
    app.stream(move || {
        let mut out = ToBody { send: send.clone(), gathered: Vec::with_capacity(PIECE) };
        if let Err(e) = offered.write(&mut out) {
            tracing::info!(error = %e.message(), "a snapshot was not sent to its end");
            // The body is aborted, so that the receiver does not take it for complete.
            let _ = send.try_send(Err(io::Error::other("it broke off")));
        }
    })?;
    let body = Body::from_stream(futures_util::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|piece| (piece, receive)) }));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// The size of a piece of the body, in bytes.
const PIECE: usize = 128 << 10;

/// How long a receiver may read nothing. Even at the lowest sensible rate a piece takes less.
const STALLED: Duration = Duration::from_secs(180);

/// Passes the output of a blocking writer to a body, in pieces.
struct ToBody {
    send: tokio::sync::mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for ToBody {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        let mut piece = Ok(Bytes::from(piece));
        let began = Instant::now();
        loop {
            piece = match self.send.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                // A receiver that reads nothing for so long is gone, even if the connection is open.
                Err(TrySendError::Full(_)) if began.elapsed() > STALLED => return Err(io::ErrorKind::TimedOut.into()),
                Err(TrySendError::Full(piece)) => piece,
            };
            std::thread::sleep(Duration::from_millis(if began.elapsed() < Duration::from_millis(50) { 1 } else { 10 }));
        }
    }
}
