//! How long a connection may take over what. A client that has shown no token gets seconds; one that has shown one may take its time between requests, and as
//! long as it likes over a body while bytes flow.

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

/// How long the answer to somebody unknown may take in all: longer than a poll of Socket.IO.
const UNKNOWN_ANSWER: Duration = Duration::from_secs(60);
/// How long a known reader may take nothing of an answer: another server may be busy with what it has.
const KNOWN_READER: Duration = Duration::from_secs(180);

/// What is known of one connection.
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
    /// Whether a token was shown that is known here, or it is root's.
    known: bool,
    /// Since when the client takes nothing of what is written.
    blocked: Option<Instant>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two requests, or before the first.
    Idle,
    /// Some of a request's head has come.
    Head,
    /// A request is being answered.
    Busy,
}

impl Pace {
    /// Of a connection that has just come.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let state = State { phase: Phase::Idle, since: Instant::now(), known: false, blocked: None, closed: false };
        Arc::new(Pace { limits: limits.clone(), state: Mutex::new(state), closed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whoever asks is known.
    pub fn authenticated(&self) {
        self.lock().known = true;
    }

    pub(super) fn is_known(&self) -> bool {
        self.lock().known
    }

    /// Since when it could be closed without harm; `None` if it is known or busy.
    #[must_use]
    pub fn unknown_and_idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.known && state.phase != Phase::Busy).then_some(state.since)
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closed.notify_one();
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until it is ended.
    pub async fn until_closed(&self) {
        while !self.is_closed() {
            self.closed.notified().await;
        }
    }

    /// The head of a request is complete.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Busy {
        let mut state = self.lock();
        (state.phase, state.since) = (Phase::Busy, Instant::now());
        drop(state);
        Busy(Arc::clone(self))
    }

    /// When the connection is to be closed, as things are now.
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
            // Somebody unknown has one deadline from the beginning to the end of the head.
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

/// While a request is answered.
#[derive(Debug)]
pub struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.phase, state.since) = (Phase::Idle, Instant::now());
    }
}

/// A stream that notes its progress.
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

/// An answer; the connection is busy until it has been handed on.
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

/// A body came too slowly.
#[derive(Debug)]
pub struct Stalled;

impl Stalled {
    /// Whether an error is one of these, at the bottom.
    #[must_use]
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<Stalled>())
    }
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body came too slowly")
    }
}

impl std::error::Error for Stalled {}

/// A request's body that must make progress. Only time in which the server waits for the client counts.
pub(super) struct RequestBody {
    body: Incoming,
    window: Duration,
    least: u64,
    /// Of this window.
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
            // Enough has come: the next window begins.
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
