//! The container, the state and the path of a URL. The path may be any bytes, so it is read from the URL as it was sent.

use crate::envelope::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use hoody_state::id::ContainerId;
use hoody_state::tree::TreePath;
use percent_encoding::percent_decode_str;

/// A path in a state of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct At {
    /// The container.
    pub container: ContainerId,
    /// A snapshot, by name or alias, or `live`.
    pub state: String,
    /// The path.
    pub path: TreePath,
}

impl<S: Sync> FromRequestParts<S> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parse(parts.uri.path())?)
    }
}

/// `…/containers/{id}/snapshots/{name}/files/{path}`.
fn parse(url: &str) -> Result<At, hoody_state::Error> {
    let (_, rest) = url.split_once("/containers/").unwrap_or_default();
    let mut parts = rest.splitn(5, '/');
    let container = text(parts.next()).parse()?;
    let state = text(parts.nth(1));
    let path = TreePath::decode(parts.nth(1).unwrap_or_default())?;
    Ok(At { container, state, path })
}

/// A path in all states of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Everywhere {
    /// The container.
    pub container: ContainerId,
    /// The path.
    pub path: TreePath,
}

impl<S: Sync> FromRequestParts<S> for Everywhere {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parse_everywhere(parts.uri.path())?)
    }
}

/// `…/containers/{id}/versions/{path}`.
fn parse_everywhere(url: &str) -> Result<Everywhere, hoody_state::Error> {
    let (_, rest) = url.split_once("/containers/").unwrap_or_default();
    let mut parts = rest.splitn(3, '/');
    let container = text(parts.next()).parse()?;
    Ok(Everywhere { container, path: TreePath::decode(parts.nth(1).unwrap_or_default())? })
}

/// No id and no name has bytes that are not UTF-8: with U+FFFD in their place they are not found.
fn text(part: Option<&str>) -> String {
    percent_decode_str(part.unwrap_or_default()).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_parts_of_a_url_are_found_whatever_the_path_is() {
        let at = |rest: &str| parse(&format!("/api/v1/containers/65f0c0ffee00000000000001/snapshots/{rest}")).unwrap();
        assert_eq!((at("live/files").state, at("live/files").path), ("live".into(), TreePath::root()));
        assert_eq!(at("a%20b/files/etc/hosts").state, "a b");
        assert_eq!(at("s/files/containers/x/files/y").path.as_bytes(), b"containers/x/files/y");
        assert_eq!(at("s/files//%FF%0A").path.as_bytes(), b"\xff\n");
        assert_eq!(at("%FF/files/x").state, "\u{fffd}");
        let all = |rest: &str| parse_everywhere(&format!("/containers/65f0c0ffee00000000000001/versions/{rest}")).unwrap().path;
        assert_eq!((all("versions/x").as_bytes(), all("/etc/%FF").as_bytes()), (&b"versions/x"[..], &b"etc/\xff"[..]));
        assert!(parse("/containers/x/snapshots/s/files").is_err());
        assert!(parse("").is_err());
    }
}
