//! The published live stream: Socket.IO 4 with long polling. It has the path of the list and is recognised by `EIO=4`. The token is in the connect packet.
//!
//! Each event is one Socket.IO event `message` with `{type, event, eventId, timestamp, data}`. A client that was disconnected reads the events it missed from the list.

use crate::app::{App, Shared};
use crate::auth::{Identity, Purpose, rights};
use crate::envelope::ApiError;
use crate::error_map;
use crate::extract::too_slow;
use crate::serve::Connection;
use crate::slots::{Holder, Slot, Slots};
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use hoody_state::Code;
use hoody_state::model::Event;
use serde::{Deserialize, Serialize};
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::{SocketIo, TransportType};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tower::ServiceExt;

/// The largest packet of a client, in bytes.
const PAYLOAD: u64 = 16 << 10;

/// The content of the connect packet.
#[derive(Debug, Deserialize)]
struct Hello {
    token: String,
}

/// An event as it is sent to clients.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    r#type: &'static str,
    event: &'a str,
    event_id: &'a str,
    timestamp: String,
    data: &'a serde_json::Value,
}

/// Why a connection is refused. It is sent to the client in a connect error.
#[derive(Debug)]
struct Refused(Cow<'static, str>);

impl Refused {
    fn because(e: &ApiError) -> Self {
        Refused(error_map::outer_message(e.error()).into())
    }
}

impl From<&'static str> for Refused {
    fn from(why: &'static str) -> Self {
        Refused(why.into())
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The slot of a session: first one for sessions without a token, then one for streams. It is held as long as the session.
#[derive(Clone)]
struct Session(Arc<Mutex<Slot>>);

type Known = Arc<Mutex<HashMap<String, Identity>>>;

/// The service of all connections.
#[derive(Clone)]
pub(crate) struct Sockets {
    service: SocketIoService<NotHere>,
    pending: Arc<Slots>,
    body_timeout: Duration,
}

/// The inner service, which only gets Socket.IO requests.
type NotHere = tower::util::BoxCloneSyncService<axum::http::Request<Body>, Response, std::convert::Infallible>;

impl Sockets {
    /// The service for the events of `app`.
    pub fn new(app: &Shared) -> Self {
        let not_here: NotHere = tower::util::BoxCloneSyncService::new(tower::service_fn(|_| async { Ok(axum::http::StatusCode::NOT_FOUND.into_response()) }));
        let (service, io) = SocketIo::builder()
            .transports([TransportType::Polling])
            .req_path("/")
            .max_payload(PAYLOAD)
            .connect_timeout(app.options.limits.session_timeout)
            .build_with_inner_svc(not_here);
        let known = Known::default();
        let (asked, knows) = (Arc::downgrade(app), Arc::clone(&known));
        let admit = async move |socket: SocketRef, TryData(hello): TryData<Hello>| -> Result<(), Refused> {
            let hello = hello.map_err(|_| "a token is missing: send {\"token\": …} with the connection")?;
            let app = asked.upgrade().ok_or("the server ends")?;
            let token = hello.token.strip_prefix("Bearer ").unwrap_or(&hello.token).to_owned();
            let who = Identity::Token(rights::admit(&app, token, Purpose::Read).await.map_err(|e| Refused::because(&e))?);
            if let Some(session) = socket.req_parts().extensions.get::<Session>() {
                let slot = app.counted.streams.take_now(&Holder::caller(&who), Code::StreamLimit).map_err(|e| Refused::because(&e.into()))?;
                *session.0.lock().unwrap_or_else(PoisonError::into_inner) = slot;
            }
            knows.lock().unwrap_or_else(PoisonError::into_inner).insert(socket.id.to_string(), who);
            Ok(())
        };
        let (pending, body_timeout) = (Arc::clone(&app.counted.pending_sessions), app.options.limits.body_timeout);
        let app = Arc::downgrade(app);
        let serve = async move |socket: SocketRef| {
            let who = known.lock().unwrap_or_else(PoisonError::into_inner).remove(&socket.id.to_string());
            if let (Some(app), Some(who)) = (app.upgrade(), who) {
                tokio::spawn(follow(app, who, socket));
            }
        };
        io.ns("/", serve.with(admit));
        Sockets { service, pending, body_timeout }
    }

    /// Whether a request is part of Socket.IO.
    pub fn is_for(&self, request: &Request) -> bool {
        let uri = request.uri();
        let marked = uri.query().is_some_and(|q| q.split('&').any(|p| p.starts_with("EIO=")));
        marked && uri.path().trim_end_matches('/') == "/api/v1/events"
    }

    /// Answers such a request.
    pub async fn answer(self, mut request: Request) -> Response {
        let query = request.uri().query().unwrap_or_default();
        if let Ok(uri) = format!("/?{query}").parse() {
            *request.uri_mut() = uri;
        }
        let begins = !request.uri().query().unwrap_or_default().split('&').any(|p| p.starts_with("sid="));
        if begins {
            let address = request.extensions().get::<Connection>().map_or_else(String::new, |c| c.address.to_string());
            match self.pending.take_share_now(&Holder { key: address, root: false }, Code::AddressLimit, Code::SessionLimit) {
                Ok(slot) => drop(request.extensions_mut().insert(Session(Arc::new(Mutex::new(slot))))),
                Err(e) => return ApiError::from(e).into_response(),
            }
        }
        let sends = request.method() == Method::POST;
        let answer = self.service.oneshot(request);
        let answered = if sends { tokio::time::timeout(self.body_timeout, answer).await } else { Ok(answer.await) };
        let response = match answered {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(never)) => match never {},
            Err(_) => return ApiError::from(too_slow(self.body_timeout)).into_response(),
        };
        if begins { no_upgrade(response).await } else { response }
    }
}

/// Removes WebSocket from the open packet, which always offers it: a client would try it, and wait until that fails.
async fn no_upgrade(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, PAYLOAD as usize).await else { return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let text = String::from_utf8_lossy(&bytes).replace(r#""upgrades":["websocket"]"#, r#""upgrades":[]"#);
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(text))
}

/// Sends events to a client until it disconnects, its token is revoked, or the server ends.
async fn follow(app: Arc<App>, who: Identity, socket: SocketRef) {
    let mut events = app.events.subscribe();
    let mut closing = app.closing();
    let mut pass = app.open.enter(&who);
    while socket.connected() {
        let event = tokio::select! {
            event = events.recv() => event,
            () = pass.revoked() => break,
            () = async { drop(closing.wait_for(|c| *c).await) } => break,
        };
        let goes_on = match event {
            Ok(event) => !who.sees_event(&event) || tell(&socket, &event).is_ok(),
            // A client that does not fetch its events is disconnected. It reconnects and reads the list.
            Err(RecvError::Lagged(_) | RecvError::Closed) => false,
        };
        if !goes_on {
            break;
        }
    }
    let _ = socket.disconnect();
}

fn tell(socket: &SocketRef, event: &Event) -> Result<(), socketioxide::SendError> {
    let timestamp = event.created_at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    socket.emit("message", &Told { r#type: "event", event: &event.event_type, event_id: event.id.as_str(), timestamp, data: &event.payload })
}
