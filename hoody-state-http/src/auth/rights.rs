//! What a token can be used for. This is decided only here: for requests, for Socket.IO, for other servers, and again while a stream is open.

use crate::app::App;
use crate::envelope::ApiError;
use axum::http::Method;
use hoody_state::model::Token;
use hoody_state::{Code, Error, Result};
use std::sync::Arc;

/// What a token is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read: lists, logs, events.
    Read,
    /// To change something.
    Change,
    /// To copy containers from one server to another.
    Replicate,
}

impl Purpose {
    /// The purpose of a request with this method.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) { Purpose::Read } else { Purpose::Change }
    }

    /// Checks that the token has the right to do this. Whether it reaches a project is checked where the project is known.
    ///
    /// # Errors
    /// `insufficient_permissions`.
    pub fn check(self, token: &Token) -> Result<()> {
        match self {
            Purpose::Replicate if !token.replication => {
                Err(denied("this is for other servers: use a token created with `hoody-state-http token create --replication`"))
            }
            Purpose::Read | Purpose::Change if token.replication => Err(denied("this token is for another server: it can only be used to copy containers")),
            Purpose::Change if token.read_only => Err(denied("this token is read-only: use one that can make changes")),
            _ => Ok(()),
        }
    }
}

/// Finds the token, and checks that it can be used for this.
///
/// # Errors
/// `invalid_token`, `insufficient_permissions`, and those of the catalog.
pub async fn admit(app: &App, secret: String, purpose: Purpose) -> Result<Arc<Token>, ApiError> {
    let token = app.read(move |host| host.authenticate(&secret)).await?.ok_or_else(invalid_token)?;
    purpose.check(&token)?;
    Ok(Arc::new(token))
}

/// Whether requests with this token can continue. `now` is the token as it is in the catalog now, `None` if it was revoked.
#[must_use]
pub fn still_holds(admitted: &Token, now: Option<&Token>) -> bool {
    now.is_some_and(|now| {
        now.projects == admitted.projects
            && now.read_only == admitted.read_only
            && now.replication == admitted.replication
            && now.host_network == admitted.host_network
    })
}

pub(super) fn denied(why: &str) -> Error {
    Error::new(Code::InsufficientPermissions, why)
}

pub(super) fn missing_token() -> Error {
    Error::new(Code::MissingToken, "a token is needed: send it as `Authorization: Bearer TOKEN` (create one with `hoody-state-http token create`)")
}

pub(super) fn invalid_token() -> Error {
    Error::new(Code::InvalidToken, "this token is unknown: it was revoked, belongs to another server, or is misspelt")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hoody_state::host::Host;
    use hoody_state::model::Rights;

    #[test]
    fn each_kind_of_token_is_good_for_its_purpose_alone() {
        let host = Host::in_memory().unwrap();
        for (rights, read, change, replicate) in
            [(Rights::Full, true, true, false), (Rights::ReadOnly, true, false, false), (Rights::Replication, false, false, true)]
        {
            let (token, _) = host.create_token(&format!("{rights:?}"), None, rights).unwrap();
            let may = [Purpose::Read, Purpose::Change, Purpose::Replicate].map(|p| p.check(&token).is_ok());
            assert_eq!(may, [read, change, replicate], "{rights:?}");
        }
    }

    #[test]
    fn a_token_holds_until_it_is_revoked_or_its_rights_change() {
        let host = Host::in_memory().unwrap();
        let (token, _) = host.create_token("t", None, Rights::Full).unwrap();
        assert!(still_holds(&token, Some(&token)));
        assert!(!still_holds(&token, None));
        assert!(!still_holds(&token, Some(&Token { read_only: true, ..token.clone() })));
        assert!(!still_holds(&token, Some(&Token { projects: Some(Vec::new()), ..token.clone() })));
        assert!(still_holds(&token, Some(&Token { name: "renamed".into(), ..token.clone() })));
    }
}
