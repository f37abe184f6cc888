//! Open requests and streams, which end when their token is revoked.
//!
//! `token revoke` is another process: it writes to the catalog and does not notify the server. So while a request or stream with a token is open, the rows of
//! those tokens are read once a second. If nothing is open, nothing runs.

use super::Identity;
use super::rights::still_holds;
use axum::body::Body;
use bytes::Bytes;
use hoody_state::Result;
use hoody_state::host::Host;
use hoody_state::id::TokenId;
use hoody_state::model::Token;
use hyper::body::{Body as _, Frame, SizeHint};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the tokens are read.
const EVERY: Duration = Duration::from_secs(1);

/// The open requests and streams.
#[derive(Clone)]
pub struct OpenRequests(Arc<Inner>);

struct Inner {
    host: Host,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Entry>,
    /// Whether the task that reads the tokens is running.
    watched: bool,
}

struct Entry {
    token: Arc<Token>,
    /// Dropping it ends the request.
    _end: oneshot::Sender<()>,
}

/// Held by an open request or stream.
pub struct Pass {
    inner: Arc<Inner>,
    /// `None` for root, which has no token.
    held: Option<(u64, oneshot::Receiver<()>)>,
}

impl OpenRequests {
    /// For the tokens of this host.
    #[must_use]
    pub fn new(host: Host) -> Self {
        OpenRequests(Arc::new(Inner { host, state: Mutex::default() }))
    }

    /// Registers a request. The pass tells when it must end.
    #[must_use]
    pub fn enter(&self, who: &Identity) -> Pass {
        let inner = Arc::clone(&self.0);
        let Identity::Token(token) = who else { return Pass { inner, held: None } };
        let (end, ended) = oneshot::channel();
        let mut state = inner.lock();
        let key = state.next;
        state.next += 1;
        state.open.insert(key, Entry { token: Arc::clone(token), _end: end });
        if !std::mem::replace(&mut state.watched, true) {
            tokio::spawn(watch(Arc::clone(&inner)));
        }
        drop(state);
        Pass { inner, held: Some((key, ended)) }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Returns when the token is revoked or its rights change; never for root.
    pub async fn revoked(&mut self) {
        std::future::poll_fn(|cx| self.poll_revoked(cx)).await;
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, ended)) = &mut self.held else { return Poll::Pending };
        // A future that has ended must not be polled again.
        if Pin::new(ended).poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The body, which is aborted when the token is revoked. A complete body is returned as it is.
    pub fn guard(self, body: Body) -> Body {
        if body.size_hint().exact().is_some() { body } else { Body::new(Guarded { body, pass: self, over: false }) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((key, _)) = &self.held {
            let entry = self.inner.lock().open.remove(key);
            drop(entry);
        }
    }
}

/// Reads the tokens while anything is open.
async fn watch(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let open: Vec<(u64, Arc<Token>)> = {
            let mut state = inner.lock();
            if state.open.is_empty() {
                state.watched = false;
                return;
            }
            state.open.iter().map(|(key, e)| (*key, Arc::clone(&e.token))).collect()
        };
        let host = inner.host.clone();
        match tokio::task::spawn_blocking(move || revoked(&host, &open)).await {
            Ok(Ok(keys)) => {
                let mut state = inner.lock();
                let ended: Vec<_> = keys.iter().filter_map(|k| state.open.remove(k)).collect();
                drop(state);
                drop(ended);
            }
            // If the catalog cannot be read, `token revoke` cannot have written to it.
            Ok(Err(e)) => tracing::warn!(error = %e, "the tokens of open requests could not be read"),
            Err(e) => tracing::warn!(error = %e, "reading the tokens of open requests failed"),
        }
    }
}

/// The requests that must end.
fn revoked(host: &Host, open: &[(u64, Arc<Token>)]) -> Result<Vec<u64>> {
    let mut rows: HashMap<&TokenId, Option<Token>> = HashMap::new();
    let mut ended = Vec::new();
    for (key, token) in open {
        let row = match rows.entry(&token.id) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => e.insert(host.token(&token.id)?),
        };
        if !still_holds(token, row.as_ref()) {
            ended.push(*key);
        }
    }
    Ok(ended)
}

/// A body that can be aborted, so that the reader does not take it for complete.
struct Guarded {
    body: Body,
    pass: Pass,
    over: bool,
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.pass.poll_revoked(cx).is_ready() {
            self.over = true;
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::other("the token was revoked")))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.over = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
