//! The one place that decides what a token may do: for requests, for Socket.IO, for other servers, and again while a stream is open.

use crate::app::App;
use crate::envelope::ApiError;
use axum::http::Method;
use hoody_state::model::Token;
use hoody_state::{Code, Error, Result};
use std::sync::Arc;

/// What a token is shown for.
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
    /// What a request of this method is for.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) { Purpose::Read } else { Purpose::Change }
    }

    /// Whether the token's rights allow this. Which projects it reaches is asked where the project is known.
    ///
    /// # Errors
    /// `insufficient_permissions`.
    pub fn check(self, token: &Token) -> Result<()> {
        match self {
            Purpose::Replicate if !token.replication => {
                Err(denied("this is for other servers: it takes a token made with `hoody-state-http token create --replication`"))
            }
            Purpose::Read | Purpose::Change if token.replication => {
                Err(denied("this token is another server's: it is good for copying containers and nothing else"))
            }
            Purpose::Change if token.read_only => Err(denied("this token may only read: use one that may change things")),
            _ => Ok(()),
        }
    }
}

/// Looks a token up, and checks that it may be used for this.
///
/// # Errors
/// `invalid_token`, `insufficient_permissions`, and those of the catalog.
pub async fn admit(app: &App, secret: String, purpose: Purpose) -> Result<Arc<Token>, ApiError> {
    let token = app.read(move |host| host.authenticate(&secret)).await?.ok_or_else(invalid_token)?;
    purpose.check(&token)?;
    Ok(Arc::new(token))
}

/// Whether what a token was admitted to may go on: `now` is its row in the catalog as it is at present, `None` once it is revoked.
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
    Error::new(Code::MissingToken, "a token is needed: send it as `Authorization: Bearer TOKEN` (make one with `hoody-state-http token create`)")
}

pub(super) fn invalid_token() -> Error {
    Error::new(Code::InvalidToken, "this token is not known here: it was revoked, is of another server or misspelt")
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
