//! Requests and streams that are open, and the end of those whose token is revoked.
//!
//! `token revoke` is another process: it writes the catalog and says nothing to the server. So while anything is open that was admitted by a token, the
//! rows of those tokens are read once a second. With nothing open, nothing wakes.

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

/// How soon the end of a token is noticed.
const EVERY: Duration = Duration::from_secs(1);

/// Everything that is open.
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
    /// Whether a task looks at the tokens.
    watched: bool,
}

struct Entry {
    token: Arc<Token>,
    /// Dropped to end what is open.
    _end: oneshot::Sender<()>,
}

/// Held by what is open.
pub struct Pass {
    inner: Arc<Inner>,
    /// `None` for what no token admitted.
    held: Option<(u64, oneshot::Receiver<()>)>,
}

impl OpenRequests {
    /// Of this host's tokens.
    #[must_use]
    pub fn new(host: Host) -> Self {
        OpenRequests(Arc::new(Inner { host, state: Mutex::default() }))
    }

    /// Notes that something was opened. The pass says when it must end.
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
        // Once it has ended it must not be polled again.
        if Pin::new(ended).poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The body, broken off when the token is revoked. One that is complete already is left alone.
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

/// Runs while anything is open.
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
            // A catalog that cannot be read cannot have been written by `token revoke` either.
            Ok(Err(e)) => tracing::warn!(error = %e, "the tokens of open requests could not be looked up"),
            Err(e) => tracing::warn!(error = %e, "the look-up of open requests' tokens ended early"),
        }
    }
}

/// Those of `open` that must end.
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

/// A body that breaks off: a reader must not take what it has for complete.
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
