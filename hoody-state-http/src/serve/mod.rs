//! Connections: accepting and ending them.
//!
//! `table.rs` limits their number, `pace.rs` sets their deadlines. TCP and the UNIX socket are accepted independently, so that nothing on the network can
//! keep root from the socket.

mod containers;
mod pace;
mod table;

use crate::Api;
use crate::app::Shared;
use crate::auth::Peer;
use crate::envelope::ApiError;
use crate::limits::Limits;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pace::{AnswerBody, Paced, RequestBody};
pub use pace::{Busy, Pace, Stalled};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
pub use table::{Address, Place, Table};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// How long open requests may continue when the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// How much of a refused body is read and dropped, and for how long, so that the client gets the answer instead of a reset.
const LINGER: (usize, Duration) = (4 << 20, Duration::from_secs(1));
/// The same for an authenticated client: much of an upload may be in transit on a slow connection.
const LINGER_KNOWN: (usize, Duration) = (256 << 20, Duration::from_secs(3));
/// The largest head of a request, and the largest piece of a body, in bytes.
const BUFFER: usize = 64 << 10;
/// How many refused connections get an answer at the same time. Others are closed without one.
const REFUSALS: usize = 64;

/// The connection of a request. It is added to each request by [`serve`].
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where it comes from.
    pub address: Address,
    pace: Arc<Pace>,
}

impl Connection {
    /// The client is authenticated: its connection may be idle for longer, and is not closed to make room for others.
    pub fn authenticated(&self) {
        self.pace.authenticated();
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.pace.limits()
    }
}

/// Serves `api` on the listeners until `stop` is ready. Then no more connections are accepted, open requests get 10 s, and streams end.
pub async fn serve(api: &Api, tcp: Option<TcpListener>, tls: Option<TlsAcceptor>, unix: Option<UnixListener>, stop: impl Future<Output = ()>) {
    let stopping = watch::Sender::new(false);
    let server = Server { app: api.app().clone(), router: api.router(), refusals: Arc::new(Semaphore::new(REFUSALS)), stopping: stopping.subscribe() };
    let of_containers = containers::Serving::begin(api.app(), stopping.subscribe());
    let (mut of_tcp, mut of_unix) = (JoinSet::new(), JoinSet::new());
    tokio::select! {
        () = stop => {}
        () = async { tokio::join!(server.accept_tcp(tcp, tls, &mut of_tcp), server.accept_unix(unix, &mut of_unix)); } => {}
    }
    drop(of_containers);
    stopping.send_replace(true);
    api.close();
    let all = async {
        while of_tcp.join_next().await.is_some() {}
        while of_unix.join_next().await.is_some() {}
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("requests were still open after {} s: their connections are closed; the calls that they started run to their end", GRACE.as_secs());
    }
}

/// A connection can fail before it is accepted. If there are no descriptors, some become free when others end.
async fn pause(e: &io::Error) {
    tracing::debug!(error = %e, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

struct Server {
    app: Shared,
    router: Router,
    refusals: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    async fn accept_tcp(&self, listener: Option<TcpListener>, tls: Option<TlsAcceptor>, connections: &mut JoinSet<()>) {
        let Some(listener) = listener else { return std::future::pending().await };
        loop {
            // Ended connections are removed when new ones arrive.
            while connections.try_join_next().is_some() {}
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    pause(&e).await;
                    continue;
                }
            };
            // It is closed already.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let connection = self.connection(from.ip().into());
            let place = match self.app.connections.admit(connection.address, &connection.pace) {
                Ok(place) => place,
                Err(e) if tls.is_none() => {
                    self.refuse(stream, e, connections);
                    continue;
                }
                // No answer over TLS: it would need a handshake.
                Err(_) => continue,
            };
            let (router, stopping, tls) = (self.router.clone(), self.stopping.clone(), tls.clone());
            connections.spawn(async move {
                let _place = place;
                match tls {
                    Some(tls) => over_tls(stream, tls, connection, router, stopping).await,
                    None => run(stream, Peer::Tcp, connection, router, stopping).await,
                }
            });
        }
    }

    async fn accept_unix(&self, listener: Option<UnixListener>, connections: &mut JoinSet<()>) {
        let Some(listener) = listener else { return std::future::pending().await };
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = match listener.accept().await {
                Ok((stream, _)) => stream.peer_cred().map(|c| (stream, c.uid())),
                Err(e) => Err(e),
            };
            let (stream, uid) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    pause(&e).await;
                    continue;
                }
            };
            let connection = self.connection(Address::Socket);
            match self.app.socket_connections.admit(Address::Socket, &connection.pace) {
                Ok(place) => {
                    let (router, stopping) = (self.router.clone(), self.stopping.clone());
                    connections.spawn(async move {
                        let _place = place;
                        run(stream, Peer::Unix { uid }, connection, router, stopping).await;
                    });
                }
                Err(e) => self.refuse(stream, e, connections),
            }
        }
    }

    fn connection(&self, address: Address) -> Connection {
        Connection { address, pace: Pace::new(&self.app.options.limits) }
    }

    /// Answers a refused connection, before any request is read.
    fn refuse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, mut stream: S, e: hoody_state::Error, connections: &mut JoinSet<()>) {
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        connections.spawn(async move {
            let _permit = permit;
            let (head, body) = ApiError::from(e).into_response().into_parts();
            let Ok(body) = axum::body::to_bytes(body, BUFFER).await else { return };
            let mut answer = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
            for (name, value) in head.headers.iter().filter(|(n, _)| *n != axum::http::header::CONTENT_LENGTH) {
                answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            answer.extend_from_slice(b"\r\n");
            answer.extend_from_slice(&body);
            if tokio::time::timeout(LINGER.1, stream.write_all(&answer)).await.is_ok_and(|w| w.is_ok()) {
                linger(stream, LINGER).await;
            }
        });
    }
}

async fn over_tls(stream: tokio::net::TcpStream, tls: TlsAcceptor, connection: Connection, router: Router, stopping: watch::Receiver<bool>) {
    let handshake = tokio::select! {
        done = tokio::time::timeout(connection.limits().header_timeout, tls.accept(stream)) => done,
        () = connection.pace.until_closed() => return,
    };
    match handshake {
        Ok(Ok(stream)) => run(stream, Peer::Tcp, connection, router, stopping).await,
        Ok(Err(e)) => tracing::debug!(error = %e, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake was not finished"),
    }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    connection: Connection,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let pace = Arc::clone(&connection.pace);
    let service = service_fn(|request: Request<Incoming>| Box::pin(answer(request, peer, connection.clone(), router.clone())));
    let mut http =
        http1::Builder::new().header_read_timeout(None).max_buf_size(BUFFER).serve_connection(TokioIo::new(Paced::new(stream, Arc::clone(&pace))), service);
    let mut timer = Box::pin(tokio::time::sleep_until(Instant::now()));
    let mut ending = false;
    let result = loop {
        let until_deadline = poll_fn(|cx| {
            if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                return Poll::Ready(Some(result));
            }
            // The deadline only changes in this task, in the poll above.
            let Some(deadline) = pace.deadline() else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        tokio::select! {
            result = until_deadline => match result {
                Some(result) => break result,
                None => return tracing::debug!(address = %connection.address, "a connection was closed: the client was too slow"),
            },
            () = pace.until_closed() => return tracing::debug!(address = %connection.address, "an idle connection was closed to make room for another"),
            _ = stopping.wait_for(|s| *s), if !ending => {
                ending = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "a connection ended early");
        return;
    }
    linger(http.into_parts().io.into_inner().into_inner(), if pace.is_known() { LINGER_KNOWN } else { LINGER }).await;
}

async fn answer(request: Request<Incoming>, peer: Peer, connection: Connection, router: Router) -> Result<Response<AnswerBody>, Infallible> {
    let busy = connection.pace.request();
    let mut request = request.map(|body| Body::new(RequestBody::new(body, connection.limits())));
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(connection);
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| AnswerBody { body, _busy: busy }))
}

/// Reads and drops the rest of a request. Closing a socket with unread bytes resets it, and the client may lose the answer.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, (most, time): (usize, Duration)) {
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut dropped = 0;
        let mut buf = vec![0; 16 << 10];
        while dropped < most {
            match stream.read(&mut buf).await {
                Ok(0) | Err(_) => break,
                Ok(n) => dropped += n,
            }
        }
    };
    // It does not matter how it ended.
    let _ = tokio::time::timeout(time, drain).await;
}
