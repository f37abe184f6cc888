//! Other servers: making them known, and answering them.

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

/// What people and programs ask.
pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list, add)).routes(routes!(remove))
}

/// What other servers ask, with tokens of their own kind.
pub(crate) fn replication() -> Routes {
    Routes::new().routes(routes!(call)).routes(routes!(stream))
}

/// The servers that this one knows.
#[utoipa::path(get, path = "/peers", tag = "copies", operation_id = "list_peers", responses((status = 200, description = "All", body = Envelope<Vec<Peer>>)))]
pub async fn list(State(app): State<Shared>, who: Identity) -> Reply<Vec<Peer>> {
    who.check_server()?;
    ok("Peers", app.read(|host| host.peers()).await?)
}

/// Makes another server known: it is asked who it is. The token is never shown again.
#[utoipa::path(post, path = "/peers", tag = "copies", operation_id = "add_peer", request_body = NewPeer, responses((status = 201, description = "Known", body = Envelope<Peer>)))]
pub async fn add(State(app): State<Shared>, who: Identity, input: Input<NewPeer>) -> Reply<Peer> {
    who.check_server()?;
    created("Peer added", app.remote(move |host| host.add_peer(&input.caller, input.body)).await?)
}

/// Forgets a peer, by its id, its server's id or its name. What was copied stays.
#[utoipa::path(delete, path = "/peers/{name}", tag = "copies", operation_id = "remove_peer", params(("name" = String, Path)), responses((status = 200, description = "Forgotten", body = Envelope<Null>)))]
pub async fn remove(State(app): State<Shared>, who: Identity, Name(which): Name, _: Input<Nothing>) -> Reply<Null> {
    who.check_server()?;
    app.change(move |host| host.remove_peer(&which)).await?;
    ok("Peer removed", Null(()))
}

/// A question of another server. The bodies are those of `hoody_state::transfer`, of one version on both sides.
#[utoipa::path(post, path = "/replication/call", tag = "replication", operation_id = "replication_call", request_body = Object, responses((status = 200, description = "The answer", body = Envelope<Object>)))]
pub async fn call(State(app): State<Shared>, who: OtherServer, input: Input<Request>) -> Reply<Answer> {
    let token = who.token()?;
    ok("Answer", app.answer_peer(move |host| host.answer_peer(&token, input.body)).await?)
}

/// A snapshot's bytes for another server: zstd over the pool's own form.
#[utoipa::path(post, path = "/replication/stream", tag = "replication", operation_id = "replication_stream", request_body = Object,
    responses((status = 200, description = "Bytes", content_type = "application/octet-stream", body = Vec<u8>)))]
pub async fn stream(State(app): State<Shared>, who: OtherServer, input: Input<StreamRequest>) -> Result<Response, ApiError> {
    let token = who.token()?;
    let offered = app.read(move |host| host.offer_stream(&token, &input.body)).await?;
    let (send, receive) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(8);
    app.stream(move || {
        let mut out = ToBody { send: send.clone(), gathered: Vec::with_capacity(PIECE) };
        if let Err(e) = offered.write(&mut out) {
            tracing::info!(error = %e.message(), "a snapshot was not sent to its end");
            // The body breaks off, so that nobody takes it for whole.
            let _ = send.try_send(Err(io::Error::other("it broke off")));
        }
    })?;
    let body = Body::from_stream(futures_util::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|piece| (piece, receive)) }));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// Bytes that go to the network at once.
const PIECE: usize = 128 << 10;

/// How long a receiver may take nothing: at the slowest rate that makes sense, a piece takes less.
const STALLED: Duration = Duration::from_secs(180);

/// What a blocking writer writes, as pieces of a body.
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
                // Who takes nothing for so long has gone, whatever its network says.
                Err(TrySendError::Full(_)) if began.elapsed() > STALLED => return Err(io::ErrorKind::TimedOut.into()),
                Err(TrySendError::Full(piece)) => piece,
            };
            std::thread::sleep(Duration::from_millis(if began.elapsed() < Duration::from_millis(50) { 1 } else { 10 }));
        }
    }
}
