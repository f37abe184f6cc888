//! Server-Sent Events. The id of each is its place in the order of all events, so that a client that comes back with
//! `Last-Event-ID` misses nothing and sees nothing twice.
//!
//! What a client missed comes from the catalog; then events come as they happen. One that reads too slowly for the
//! backlog is sent back to the catalog, unseen by it.

use crate::app::{App, Shared};
use crate::auth::Identity;
use crate::envelope::ApiError;
use crate::extract::invalid;
use crate::slots::{Holder, Slot};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hoody_state::model::{Event, EventFilter};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

/// How often a comment is sent, however much else is, so that both ends notice a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Missed events are fetched so many at a time.
const BATCH: u32 = 200;

pub(super) async fn open(app: Shared, who: Identity, filter: EventFilter, headers: &HeaderMap) -> Result<Response, ApiError> {
    let after = match headers.get("last-event-id").map(|v| v.to_str().ok().and_then(|v| v.trim().parse::<u64>().ok())) {
        None => None,
        Some(Some(seq)) => Some(seq),
        Some(None) => return Err(invalid("Last-Event-ID", "it is no number: send the `id` of the last event").into()),
    };
    let slot = app.counted.streams.take_now(&Holder::caller(&who), "stream_limit")?;
    // Listening begins before the catalog is read: nothing falls between the two.
    let live = app.events.subscribe();
    let last = match after {
        Some(seq) => seq,
        // From now on.
        None => app.read(|host| Ok(host.events(&EventFilter { limit: 1, ..EventFilter::default() })?.0.first().map_or(0, |e| e.seq))).await?,
    };
    let follower = Follower {
        app,
        who,
        filter: EventFilter { limit: BATCH, offset: 0, ascending: true, ..filter },
        live,
        behind: after.is_some(),
        last,
        ready: VecDeque::new(),
        greeted: false,
        beat: Instant::now(),
        _slot: slot,
    };
    let body = stream::unfold(follower, |mut f| async move { f.next().await.map(|text| (Ok::<_, Infallible>(text), f)) });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(body)).into_response())
}

struct Follower {
    app: Arc<App>,
    who: Identity,
    filter: EventFilter,
    live: broadcast::Receiver<Arc<Event>>,
    /// Whether the catalog may hold events that were not sent.
    behind: bool,
    last: u64,
    ready: VecDeque<Event>,
    greeted: bool,
    /// When the last heartbeat was.
    beat: Instant,
    _slot: Slot,
}

impl Follower {
    /// The next piece of text; nothing when the server ends.
    async fn next(&mut self) -> Option<String> {
        if !self.greeted {
            self.greeted = true;
            return Some(": hello\nretry: 1000\n\n".to_owned());
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = event.seq;
                return text(&event);
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let mut closing = self.app.closing();
            let mut beat = false;
            let due = self.beat + HEARTBEAT;
            tokio::select! {
                // First, so that events that never stop do not keep it from its turn.
                biased;
                () = tokio::time::sleep_until(due) => beat = true,
                event = self.live.recv() => match event {
                    Ok(event) if self.wants(&event) => self.ready.push_back((*event).clone()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                _ = closing.wait_for(|c| *c) => return None,
            }
            if beat {
                self.beat = Instant::now();
                return Some(": heartbeat\n\n".to_owned());
            }
        }
    }

    async fn catch_up(&mut self) -> Option<()> {
        let filter = EventFilter { after_seq: Some(self.last), ..self.filter.clone() };
        let (events, _) = self.app.read(move |host| host.events(&filter)).await.ok()?;
        self.behind = events.len() == BATCH as usize;
        self.ready = events.into();
        Some(())
    }

    fn wants(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w == value);
        event.seq > self.last
            && self.who.sees_event(event)
            && is(&self.filter.event_type, &event.event_type)
            && is(&self.filter.resource_type, &event.resource_type)
            && is(&self.filter.resource_id, &event.resource_id)
            && self.filter.start.is_none_or(|t| event.created_at >= t)
            && self.filter.end.is_none_or(|t| event.created_at <= t)
    }
}

fn text(event: &Event) -> Option<String> {
    let data = serde_json::to_string(event).ok()?;
    let kind: String = event.event_type.chars().filter(|c| !c.is_control()).collect();
    Some(format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.seq))
}
