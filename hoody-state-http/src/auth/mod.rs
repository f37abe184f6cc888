//! Authentication, and what a caller can reach.
//!
//! TCP always needs a token. On the UNIX socket root needs none. For a token that is limited to some projects the others do not
//! exist (404, not 403); a read-only token cannot change anything (403).
//!
//! `rights.rs` decides what a token can be used for, `open.rs` ends open requests and streams when their token is revoked.

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

/// Where a connection comes from. It is added to each request by [`serve`](crate::serve).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp,
    /// Over the UNIX socket, from a process of this user.
    Unix {
        /// The id of the user, from the kernel.
        uid: u32,
    },
    /// Over the socket of a container, from its root.
    Container,
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Root, over the UNIX socket.
    Root,
    /// Somebody with a token.
    Token(Arc<Token>),
    /// The root of this container, by the container's own socket. It reaches this container, and the few routes that the socket has.
    Container(ContainerId),
}

impl Identity {
    /// The projects that the caller can reach; `None`: all.
    #[must_use]
    pub fn only(&self) -> Option<&[ProjectId]> {
        match self {
            Identity::Root => None,
            Identity::Token(t) => t.projects.as_deref(),
            Identity::Container(_) => Some(&[]),
        }
    }

    /// Whether the caller can reach a project.
    #[must_use]
    pub fn reaches(&self, project: &ProjectId) -> bool {
        self.only().is_none_or(|p| p.contains(project))
    }

    /// Whether the caller can change anything.
    #[must_use]
    pub fn may_change(&self) -> bool {
        match self {
            Identity::Root | Identity::Container(_) => true,
            Identity::Token(t) => !t.read_only,
        }
    }

    /// Who that is in the history: the name of the token, `root`, or `container:` and the id of the container.
    #[must_use]
    pub fn author(&self) -> String {
        match self {
            Identity::Root => "root".to_owned(),
            Identity::Token(t) => t.name.clone(),
            Identity::Container(id) => format!("container:{id}"),
        }
    }

    /// The scope of idempotency keys: the same key of another token is another key.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Identity::Root => "root".to_owned(),
            Identity::Token(t) => t.id.to_string(),
            Identity::Container(id) => format!("container:{id}"),
        }
    }

    /// Refuses requests about the whole server to tokens that are limited to some projects.
    ///
    /// # Errors
    /// `insufficient_permissions`.
    pub fn check_server(&self) -> Result<()> {
        if self.only().is_none() {
            return Ok(());
        }
        Err(denied("this concerns the whole server: use a token that reaches all projects"))
    }

    /// Refuses the network of the host to tokens without that right.
    ///
    /// # Errors
    /// `host_network_denied`.
    pub fn check_network(&self, network: Network) -> Result<()> {
        let allowed = match self {
            Identity::Root => true,
            Identity::Token(t) => t.host_network,
            Identity::Container(_) => false,
        };
        if network != Network::Host || allowed {
            return Ok(());
        }
        let why = "this token cannot create containers that use the network of the host: use one created with `hoody-state-http token create --allow-host-network`, \
                   or root on the UNIX socket";
        Err(Error::new(Code::HostNetworkDenied, why))
    }

    /// The same for the network of an existing container.
    ///
    /// # Errors
    /// `host_network_denied`, `container_not_found`.
    pub fn check_network_of(&self, host: &Host, id: &ContainerId) -> Result<()> {
        self.check_network(host.container(id)?.network)
    }

    /// Hides projects that the caller cannot reach.
    ///
    /// # Errors
    /// `project_not_found`.
    pub fn check_project(&self, project: &ProjectId) -> Result<()> {
        if self.reaches(project) { Ok(()) } else { Err(Error::new(Code::ProjectNotFound, format!("there is no project {project}"))) }
    }

    /// Hides containers of projects that the caller cannot reach.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn check_container(&self, host: &Host, id: &ContainerId) -> Result<()> {
        if matches!(self, Identity::Container(own) if own == id) {
            return Ok(());
        }
        if self.only().is_none() || self.reaches(&host.container(id)?.project_id) {
            return Ok(());
        }
        Err(Error::new(Code::ContainerNotFound, format!("there is no container {id}")))
    }

    /// Whether the caller can see an event.
    #[must_use]
    pub fn sees_event(&self, event: &Event) -> bool {
        let Some(only) = self.only() else { return true };
        let project = match event.resource_type.as_str() {
            "project" => Some(event.resource_id.as_str()),
            _ => event.payload.get("project_id").and_then(serde_json::Value::as_str),
        };
        project.is_some_and(|p| only.iter().any(|o| o.as_str() == p))
    }

    /// Whether this is a container, and `id` a copy of it that it made by its own socket.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn made(&self, host: &Host, id: &ContainerId) -> Result<bool> {
        let Identity::Container(own) = self else { return Ok(false) };
        Ok(host.copies_by(own, &self.author())?.iter().any(|c| c.id == *id))
    }

    /// Whether the caller can see an operation.
    #[must_use]
    pub fn sees_operation(&self, host: &Host, operation: &Operation) -> bool {
        if self.only().is_none() {
            return true;
        }
        match operation.resource_type.as_str() {
            "project" => operation.resource_id.parse().is_ok_and(|p| self.reaches(&p)),
            "container" => operation.resource_id.parse().is_ok_and(|c| self.check_container(host, &c).is_ok() || self.made(host, &c).unwrap_or(false)),
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

/// Authenticates a request. Its answer or stream ends when the token is revoked.
pub async fn authenticate(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let purpose = Purpose::of(request.method());
    match identify(&app, Credentials::of(&request), purpose).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity.clone());
            run_until_revoked(&app, &identity, request, next).await
        }
        Err(e) => e.into_response(),
    }
}

/// The same for requests of other servers.
pub async fn authenticate_peer(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    match identify(&app, Credentials::of(&request), Purpose::Replicate).await {
        Ok(identity) => {
            request.extensions_mut().insert(OtherServer(identity.clone()));
            run_until_revoked(&app, &identity, request, next).await
        }
        Err(e) => e.into_response(),
    }
}

/// Another server: the caller with a replication token. It is not an [`Identity`], so that no other route accepts it.
#[derive(Debug, Clone)]
pub struct OtherServer(pub Identity);

impl OtherServer {
    /// Its token, from which the host decides what it may do: `Host::answer_peer`, `Host::offer_stream`.
    ///
    /// # Errors
    /// `missing_token` for root, which is not a server.
    pub fn token(self) -> Result<Arc<Token>> {
        match self.0 {
            Identity::Token(token) => Ok(token),
            Identity::Root | Identity::Container(_) => Err(missing_token()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for OtherServer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<OtherServer>().cloned().ok_or_else(|| missing_token().into())
    }
}

/// The credentials of a request: where it comes from, and its token.
struct Credentials {
    peer: Option<Peer>,
    token: Result<Option<String>>,
}

impl Credentials {
    fn of(request: &Request) -> Self {
        Credentials { peer: request.extensions().get().copied(), token: bearer(request.headers()) }
    }
}

async fn identify(app: &App, credentials: Credentials, purpose: Purpose) -> Result<Identity, ApiError> {
    match credentials.token? {
        Some(token) => Ok(Identity::Token(rights::admit(app, token, purpose).await?)),
        None if credentials.peer == Some(Peer::Unix { uid: 0 }) => Ok(Identity::Root),
        None => Err(missing_token().into()),
    }
}

/// Runs the request. If the token is revoked meanwhile, the request ends as if the client had disconnected, and a stream is aborted.
async fn run_until_revoked(app: &App, identity: &Identity, request: Request, next: Next) -> Response {
    // From here on the client of the connection is authenticated.
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

/// The token of the request: `Bearer TOKEN`, or a bare token that starts with `hdy_`.
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
