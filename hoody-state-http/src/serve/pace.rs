//! The deadlines of a connection. A client that is not authenticated has seconds. An authenticated client can be idle for longer between requests, and a body
//! can take any time while bytes arrive.

use crate::limits::Limits;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the answer to an unauthenticated client may take: longer than a poll of Socket.IO.
const UNKNOWN_ANSWER: Duration = Duration::from_secs(60);
/// How long an authenticated client may read nothing of an answer: another server may be busy writing what it has received.
const KNOWN_READER: Duration = Duration::from_secs(180);

/// The state of a connection.
#[derive(Debug)]
pub struct Pace {
    limits: Limits,
    state: Mutex<State>,
    closed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Whether the client is authenticated.
    known: bool,
    /// Since when the client has read nothing of the answer.
    blocked: Option<Instant>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two requests, or before the first.
    Idle,
    /// A part of the head of a request has arrived.
    Head,
    /// A request is being answered.
    Busy,
}

impl Pace {
    /// The state of a new connection.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let state = State { phase: Phase::Idle, since: Instant::now(), known: false, blocked: None, closed: false };
        Arc::new(Pace { limits: limits.clone(), state: Mutex::new(state), closed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The client is authenticated.
    pub fn authenticated(&self) {
        self.lock().known = true;
    }

    pub(super) fn is_known(&self) -> bool {
        self.lock().known
    }

    /// Since when the connection has been idle without being authenticated; `None` if it is authenticated or busy.
    #[must_use]
    pub fn unknown_and_idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.known && state.phase != Phase::Busy).then_some(state.since)
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closed.notify_one();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until it is closed.
    pub async fn until_closed(&self) {
        while !self.is_closed() {
            self.closed.notified().await;
        }
    }

    /// Notes that the head of a request is complete.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Busy {
        let mut state = self.lock();
        (state.phase, state.since) = (Phase::Busy, Instant::now());
        drop(state);
        Busy(Arc::clone(self))
    }

    /// When the connection must be closed, unless something changes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.lock();
        let phase = match (state.phase, state.known) {
            (Phase::Idle, true) => Some(state.since + self.limits.idle_timeout),
            (Phase::Idle, false) | (Phase::Head, _) => Some(state.since + self.limits.header_timeout),
            (Phase::Busy, true) => None,
            (Phase::Busy, false) => Some(state.since + UNKNOWN_ANSWER),
        };
        let patience = if state.known { KNOWN_READER } else { self.limits.header_timeout };
        let reader = state.blocked.map(|since| since + patience);
        match (phase, reader) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn read(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            // An unauthenticated client has one deadline for the whole head.
            if state.known {
                state.since = Instant::now();
            }
        }
    }

    fn written<T>(&self, outcome: &Poll<T>) {
        let mut state = self.lock();
        state.blocked = match (outcome, state.blocked) {
            (Poll::Ready(_), _) => None,
            (Poll::Pending, since) => Some(since.unwrap_or_else(Instant::now)),
        };
    }
}

/// Held while a request is answered.
#[derive(Debug)]
pub struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.phase, state.since) = (Phase::Idle, Instant::now());
    }
}

/// A stream that records its progress.
pub struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> Self {
        Paced { stream, pace }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pace.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace.written(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.pace.written(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace.written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of an answer. The connection is busy until it is sent.
pub(super) struct AnswerBody {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for AnswerBody {
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

/// The error for a body that arrives too slowly.
#[derive(Debug)]
pub struct Stalled;

impl Stalled {
    /// Whether this error is the cause of another error.
    #[must_use]
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<Stalled>())
    }
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body arrived too slowly")
    }
}

impl std::error::Error for Stalled {}

/// The body of a request, which must make progress. Only time in which the server waits for the client counts.
pub(super) struct RequestBody {
    body: Incoming,
    window: Duration,
    least: u64,
    /// How many bytes arrived in this window.
    got: u64,
    waited: Duration,
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: &Limits) -> Self {
        RequestBody { body, window: limits.progress_timeout, least: limits.progress_bytes, got: 0, waited: Duration::ZERO, waiting: None, timer: None }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(f)) = &frame {
                self.got += f.data_ref().map_or(0, |d| d.len() as u64);
            }
            return Poll::Ready(frame.map(|f| f.map_err(axum::Error::new)));
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        loop {
            let end = self.waiting.unwrap_or(since) + self.window.saturating_sub(self.waited);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            ready!(timer.as_mut().poll(cx));
            if self.got < self.least {
                return Poll::Ready(Some(Err(axum::Error::new(Stalled))));
            }
            // Enough has arrived: the next window begins.
            (self.got, self.waited, self.waiting) = (0, Duration::ZERO, Some(Instant::now()));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
