//! Who asks, and what they may reach.
//!
//! TCP always needs a token. The UNIX socket takes root without one. A token that reaches some projects only sees nothing of
//! the others (404, not 403); a read-only one changes nothing (403).

use crate::app::Shared;
use crate::envelope::ApiError;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hoody_state::host::Host;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{Event, Operation, Token};
use hoody_state::{Error, Kind, Result};
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
        Err(Error::new(Kind::Denied, "insufficient_permissions", "this concerns the whole server: it takes a token that reaches all projects"))
    }

    /// Hides the projects it does not reach.
    ///
    /// # Errors
    /// `project_not_found`.
    pub fn check_project(&self, project: &ProjectId) -> Result<()> {
        if self.reaches(project) { Ok(()) } else { Err(Error::not_found("project_not_found", format!("there is no project {project}"))) }
    }

    /// Hides the containers of projects it does not reach.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn check_container(&self, host: &Host, id: &ContainerId) -> Result<()> {
        if self.only().is_none() || self.reaches(&host.container(id)?.project_id) {
            return Ok(());
        }
        Err(Error::not_found("container_not_found", format!("there is no container {id}")))
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

/// Finds out who asks, and refuses changes to those who may only read.
pub async fn authenticate(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let token = bearer(request.headers());
    match identify(&app, token, peer, looks).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(e) => e.into_response(),
    }
}

/// Finds out whether another server asks; root may too, over the UNIX socket.
pub async fn authenticate_peer(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let token = bearer(request.headers());
    let known = async {
        match token? {
            None if peer == Some(Peer::Unix { uid: 0 }) => Ok(()),
            None => Err(missing_token().into()),
            Some(token) => match app.read(move |host| host.authenticate(&token)).await? {
                Some(t) if t.replication => Ok(()),
                Some(_) => Err(denied("this is for other servers: it takes a token made with `hoody-state-http token create --replication`")),
                None => Err(invalid_token().into()),
            },
        }
    };
    match known.await {
        Ok(()) => next.run(request).await,
        Err::<(), ApiError>(e) => e.into_response(),
    }
}

fn denied(why: &str) -> ApiError {
    Error::new(Kind::Denied, "insufficient_permissions", why).into()
}

async fn identify(app: &Shared, token: Result<Option<String>>, peer: Option<Peer>, looks: bool) -> Result<Identity, ApiError> {
    let identity = match token? {
        Some(token) => {
            let found = app.read(move |host| host.authenticate(&token)).await?;
            let found = found.ok_or_else(invalid_token)?;
            if found.replication {
                return Err(denied("this token is another server's, good for copying containers and nothing else"));
            }
            Identity::Token(Arc::new(found))
        }
        None if peer == Some(Peer::Unix { uid: 0 }) => Identity::Root,
        None => return Err(missing_token().into()),
    };
    if !looks && !identity.may_change() {
        return Err(Error::new(Kind::Denied, "insufficient_permissions", "this token may only read: use one that may change things").into());
    }
    Ok(identity)
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

fn missing_token() -> Error {
    Error::new(Kind::Denied, "missing_token", "a token is needed: send it as `Authorization: Bearer TOKEN` (make one with `hoody-state-http token create`)")
}

fn invalid_token() -> Error {
    Error::new(Kind::Denied, "invalid_token", "this token is not known here: it was revoked, is of another server or misspelt")
}
