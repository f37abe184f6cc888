//! Who asks, and what they may reach.
//!
//! TCP always needs a token. The UNIX socket takes root without one. A token that reaches some projects only sees nothing of
//! the others (404, not 403); a read-only one changes nothing (403).
//!
//! `rights.rs` decides what a token may be used for, `open.rs` ends what is open when a token is revoked.

mod open;
pub mod rights;

pub use open::{OpenRequests, Pass};
pub use rights::Purpose;

use crate::app::{App, Shared};
use crate::envelope::ApiError;
use crate::serve::Connection;
use crate::slots::{CALLER, Holder};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hoody_state::host::Host;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{Event, Operation, Token};
use hoody_state::runtime::Network;
use hoody_state::{Code, Error, Result};
use rights::{denied, invalid_token, missing_token};
use std::sync::Arc;

/// Where a connection comes from; put into each request by [`serve`](crate::serve).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp,
    /// Over the UNIX socket, from a process of this user.
    Unix {
        /// The user's id, as the kernel says.
        uid: u32,
    },
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Root, over the UNIX socket.
    Root,
    /// The bearer of a token.
    Token(Arc<Token>),
}

impl Identity {
    /// The projects it reaches; `None`: all.
    #[must_use]
    pub fn only(&self) -> Option<&[ProjectId]> {
        match self {
            Identity::Root => None,
            Identity::Token(t) => t.projects.as_deref(),
        }
    }

    /// Whether it reaches a project.
    #[must_use]
    pub fn reaches(&self, project: &ProjectId) -> bool {
        self.only().is_none_or(|p| p.contains(project))
    }

    /// Whether it may change what it reaches.
    #[must_use]
    pub fn may_change(&self) -> bool {
        match self {
            Identity::Root => true,
            Identity::Token(t) => !t.read_only,
        }
    }

    /// Idempotency keys of different tokens are different keys.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Identity::Root => "root".to_owned(),
            Identity::Token(t) => t.id.to_string(),
        }
    }

    /// Refuses what concerns the whole server to a token of some projects.
    ///
    /// # Errors
    /// `insufficient_permissions`.
    pub fn check_server(&self) -> Result<()> {
        if self.only().is_none() {
            return Ok(());
        }
        Err(denied("this concerns the whole server: it takes a token that reaches all projects"))
    }

    /// Refuses the host's network to a token that was not made for it.
    ///
    /// # Errors
    /// `host_network_denied`.
    pub fn check_network(&self, network: Network) -> Result<()> {
        let allowed = match self {
            Identity::Root => true,
            Identity::Token(t) => t.host_network,
        };
        if network != Network::Host || allowed {
            return Ok(());
        }
        let why = "this token may not make containers that use the host's network: it takes one made with `hoody-state-http token create --allow-host-network`, \
                   or root on the UNIX socket";
        Err(Error::new(Code::HostNetworkDenied, why))
    }

    /// The same for a container like this one.
    ///
    /// # Errors
    /// `host_network_denied`, `container_not_found`.
    pub fn check_network_of(&self, host: &Host, id: &ContainerId) -> Result<()> {
        self.check_network(host.container(id)?.network)
    }

    /// Hides the projects it does not reach.
    ///
    /// # Errors
    /// `project_not_found`.
    pub fn check_project(&self, project: &ProjectId) -> Result<()> {
        if self.reaches(project) { Ok(()) } else { Err(Error::new(Code::ProjectNotFound, format!("there is no project {project}"))) }
    }

    /// Hides the containers of projects it does not reach.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn check_container(&self, host: &Host, id: &ContainerId) -> Result<()> {
        if self.only().is_none() || self.reaches(&host.container(id)?.project_id) {
            return Ok(());
        }
        Err(Error::new(Code::ContainerNotFound, format!("there is no container {id}")))
    }

    /// Whether it may see an event.
    #[must_use]
    pub fn sees_event(&self, event: &Event) -> bool {
        let Some(only) = self.only() else { return true };
        let project = match event.resource_type.as_str() {
            "project" => Some(event.resource_id.as_str()),
            _ => event.payload.get("project_id").and_then(serde_json::Value::as_str),
        };
        project.is_some_and(|p| only.iter().any(|o| o.as_str() == p))
    }

    /// Whether it may see an operation.
    #[must_use]
    pub fn sees_operation(&self, host: &Host, operation: &Operation) -> bool {
        if self.only().is_none() {
            return true;
        }
        match operation.resource_type.as_str() {
            "project" => operation.resource_id.parse().is_ok_and(|p| self.reaches(&p)),
            "container" => operation.resource_id.parse().is_ok_and(|c| self.check_container(host, &c).is_ok()),
            _ => false,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Identity>().cloned().ok_or_else(|| missing_token().into())
    }
}

/// Finds out who asks and what for. Answers and streams end when the token is revoked.
pub async fn authenticate(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let purpose = Purpose::of(request.method());
    match identify(&app, Shown::by(&request), purpose).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity.clone());
            while_it_holds(&app, &identity, request, next).await
        }
        Err(e) => e.into_response(),
    }
}

/// The same for what other servers ask.
pub async fn authenticate_peer(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    match identify(&app, Shown::by(&request), Purpose::Replicate).await {
        Ok(identity) => {
            request.extensions_mut().insert(OtherServer(identity.clone()));
            while_it_holds(&app, &identity, request, next).await
        }
        Err(e) => e.into_response(),
    }
}

/// Another server that asks: the identity behind a replication token. No [`Identity`], so that no other route takes it for one.
#[derive(Debug, Clone)]
pub struct OtherServer(pub Identity);

impl OtherServer {
    /// Its token, by which the host decides what it may have done: `Host::answer_peer`, `Host::offer_stream`.
    ///
    /// # Errors
    /// `missing_token` for root, who is no server.
    pub fn token(self) -> Result<Arc<Token>> {
        match self.0 {
            Identity::Token(token) => Ok(token),
            Identity::Root => Err(missing_token()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for OtherServer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<OtherServer>().cloned().ok_or_else(|| missing_token().into())
    }
}

/// What a request shows: where it comes from, and its token.
struct Shown {
    peer: Option<Peer>,
    token: Result<Option<String>>,
}

impl Shown {
    fn by(request: &Request) -> Self {
        Shown { peer: request.extensions().get().copied(), token: bearer(request.headers()) }
    }
}

async fn identify(app: &App, shown: Shown, purpose: Purpose) -> Result<Identity, ApiError> {
    match shown.token? {
        Some(token) => Ok(Identity::Token(rights::admit(app, token, purpose).await?)),
        None if shown.peer == Some(Peer::Unix { uid: 0 }) => Ok(Identity::Root),
        None => Err(missing_token().into()),
    }
}

/// Runs the request. A token that is revoked meanwhile ends it as the client's departure would; a stream breaks off.
async fn while_it_holds(app: &App, identity: &Identity, request: Request, next: Next) -> Response {
    // From here on the connection is one of somebody who is known.
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.authenticated();
    }
    let mut pass = app.open.enter(identity);
    let response = tokio::select! {
        biased;
        response = CALLER.scope(Holder::caller(identity), next.run(request)) => response,
        () = pass.revoked() => return ApiError::from(invalid_token()).into_response(),
    };
    response.map(|body| pass.guard(body))
}

/// The token: `Bearer T`, or a bare one that starts with `hdy_`.
fn bearer(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| invalid_token())?.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        None if value.starts_with("hdy_") => value,
        _ => return Err(invalid_token()),
    };
    if token.is_empty() { Err(invalid_token()) } else { Ok(Some(token.to_owned())) }
}
