//! Connections: accepting them, telling the router where each comes from, ending them.

use crate::Api;
use crate::auth::Peer;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a client may take to send its headers, and how long an idle connection is kept.
const HEADERS: Duration = Duration::from_secs(75);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in flight may go on once the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// How much of a refused body is read and dropped, so that the client sees the answer rather than a reset, and how long.
const LINGER_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Serves `api` on the listeners until `stop` comes; then no more connections, requests in flight get 10 s, and streams end.
pub async fn serve(api: &Api, tcp: Option<TcpListener>, tls: Option<TlsAcceptor>, unix: Option<UnixListener>, stop: impl Future<Output = ()>) {
    let stopping = watch::Sender::new(false);
    let mut server =
        Server { router: api.router(), permits: Arc::new(Semaphore::new(CONNECTIONS)), connections: JoinSet::new(), stopping: stopping.subscribe() };
    tokio::pin!(stop);
    loop {
        // Ended connections are swept up as new ones come.
        while server.connections.try_join_next().is_some() {}
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = server.permits.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        tokio::select! {
            () = &mut stop => break,
            accepted = accept_tcp(tcp.as_ref()) => match accepted {
                Ok(stream) => match &tls {
                    Some(tls) => server.spawn_tls(tls.clone(), stream, permit),
                    None => server.spawn(stream, Peer::Tcp, permit),
                },
                Err(e) => pause(&e).await,
            },
            accepted = accept_unix(unix.as_ref()) => match accepted {
                Ok((stream, peer)) => server.spawn(stream, peer, permit),
                Err(e) => pause(&e).await,
            },
        }
    }
    drop((tcp, unix));
    stopping.send_replace(true);
    api.close();
    let all = async { while server.connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("requests were still in flight after {} s: their connections are cut, what they began goes on to its end", GRACE.as_secs());
    }
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    let Some(listener) = listener else { return std::future::pending().await };
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn accept_unix(listener: Option<&UnixListener>) -> io::Result<(tokio::net::UnixStream, Peer)> {
    let Some(listener) = listener else { return std::future::pending().await };
    let (stream, _) = listener.accept().await?;
    let uid = stream.peer_cred()?.uid();
    Ok((stream, Peer::Unix { uid }))
}

/// A connection that failed before it was accepted is nothing; running out of descriptors passes when others end.
async fn pause(e: &io::Error) {
    tracing::debug!(error = %e, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

struct Server {
    router: Router,
    permits: Arc<Semaphore>,
    connections: JoinSet<()>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    fn spawn_tls(&mut self, tls: TlsAcceptor, stream: tokio::net::TcpStream, permit: OwnedSemaphorePermit) {
        let (router, stopping) = (self.router.clone(), self.stopping.clone());
        self.connections.spawn(async move {
            let _permit = permit;
            // Beside the others: who does not finish it holds up nobody.
            match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, Peer::Tcp, router, stopping).await,
                Ok(Err(e)) => tracing::debug!(error = %e, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake was not finished"),
            }
        });
    }

    fn spawn<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&mut self, stream: S, peer: Peer, permit: OwnedSemaphorePermit) {
        let (router, stopping) = (self.router.clone(), self.stopping.clone());
        self.connections.spawn(async move {
            let _permit = permit;
            connection(stream, peer, router, stopping).await;
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, router: Router, mut stopping: watch::Receiver<bool>) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEADERS).serve_connection(TokioIo::new(stream), service);
    let mut told = false;
    let result = loop {
        tokio::select! {
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
            _ = stopping.wait_for(|s| *s), if !told => {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "a connection ended early");
        return;
    }
    linger(connection.into_parts().io.into_inner()).await;
}

/// Closing a socket with unread bytes resets it, and the client may lose the answer it is about to read.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut dropped = 0;
        let mut buf = vec![0; 16 << 10];
        while dropped < LINGER_BYTES {
            match stream.read(&mut buf).await {
                Ok(0) | Err(_) => break,
                Ok(n) => dropped += n,
            }
        }
    };
    // Whether it ended by itself is all the same.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
