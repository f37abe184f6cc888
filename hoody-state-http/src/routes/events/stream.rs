//! Server-Sent Events. The `id` of each is its place in the order of all events, so that a client that reconnects with
//! `Last-Event-ID` misses nothing and receives nothing twice.
//!
//! Events that the client missed are read from the catalog; after that they are sent as they happen. A client that reads too
//! slowly for the backlog gets the rest from the catalog again, without noticing.

use crate::app::{App, Shared};
use crate::auth::Identity;
use crate::envelope::ApiError;
use crate::extract::invalid;
use crate::slots::{Holder, Slot};
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use hoody_state::Code;
use hoody_state::model::{Event, EventFilter};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};

/// After so long without an event a comment is sent, so that both ends notice a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a client is to reconnect when the stream ends.
const RECONNECT: Duration = Duration::from_secs(1);
/// How many missed events are read from the catalog at a time.
const BATCH: u32 = 200;

pub(super) async fn open(app: Shared, who: Identity, filter: EventFilter, headers: &HeaderMap) -> Result<Response, ApiError> {
    let after = last_event_id(headers)?;
    let slot = app.counted.streams.take_now(&Holder::caller(&who), Code::StreamLimit)?;
    // Subscribe before the catalog is read: no event falls between the two.
    let live = app.events.subscribe();
    let last = match after {
        Some(seq) => seq,
        // Only events from now on.
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
        _slot: slot,
    };
    let greeting = stream::iter([sse::Event::default().comment("hello").retry(RECONNECT)]);
    let events = stream::unfold(follower, |mut f| async move { f.next().await.map(|event| (event, f)) });
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    let body = Sse::new(greeting.chain(events).map(Ok::<_, Infallible>)).keep_alive(keep_alive);
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    match value.to_str().ok().and_then(|v| v.trim().parse().ok()) {
        Some(seq) => Ok(Some(seq)),
        None => Err(invalid("Last-Event-ID", "not a number: send the `id` of the last event").into()),
    }
}

/// One client of the stream.
struct Follower {
    app: Arc<App>,
    who: Identity,
    filter: EventFilter,
    live: broadcast::Receiver<Arc<Event>>,
    /// Whether the catalog may hold events that were not sent.
    behind: bool,
    /// The number of the last event that was sent.
    last: u64,
    ready: VecDeque<Event>,
    _slot: Slot,
}

impl Follower {
    /// The next event; `None` when the server ends.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = event.seq;
                return message(&event);
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let mut closing = self.app.closing();
            tokio::select! {
                event = self.live.recv() => match event {
                    Ok(event) if self.wants(&event) => self.ready.push_back((*event).clone()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                _ = closing.wait_for(|c| *c) => return None,
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

/// An event as it is sent; `None` if it cannot be written as JSON, which ends the stream.
fn message(event: &Event) -> Option<sse::Event> {
    // A line break in the type would end the field.
    let kind: String = event.event_type.chars().filter(|c| !c.is_control()).collect();
    sse::Event::default().id(event.seq.to_string()).event(kind).json_data(event).ok()
}
