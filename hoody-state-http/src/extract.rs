//! Extractors: ids, queries, and JSON bodies with their caller.

use crate::auth::{Identity, OtherServer};
use crate::envelope::ApiError;
use crate::limits::Limits;
use crate::serve::{Connection, Stalled};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, Method, header, request::Parts};
use bytes::Bytes;
use hoody_state::host::{Caller, IdempotencyKey};
use hoody_state::model::{PageRequest, SnapshotPolicy};
use hoody_state::{Code, Error, Result};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::str::FromStr;
use std::time::Duration;

/// The largest JSON body, in bytes.
pub const JSON_LIMIT: usize = 1 << 20;
/// The largest one from a container by its socket.
pub const CONTAINER_LIMIT: usize = 64 << 10;
/// How long an answer waits for the end of a longer operation, unless the request says otherwise.
const DEFAULT_WAIT: Duration = Duration::from_millis(900);
/// How long a list waits for sizes that have still to be measured, unless the request says otherwise.
const MEASURING_WAIT: Duration = Duration::from_millis(20);
/// The longest `Prefer: wait` that is honoured, in seconds: the published clients give up after 30 s.
const MAX_WAIT_S: u64 = 25;

/// The error for an invalid field of a request.
pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(Code::ValidationError, format!("{field}: {problem}")).with_data(serde_json::json!({ "field": field }))
}

async fn path_params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<String>> {
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| invalid("path", "it is not UTF-8 once its % escapes are decoded"))?;
    Ok(params.iter().map(|(_, v)| v.to_owned()).collect())
}

/// The first parameter of the path, as an id.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr<Err = Error>> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        Ok(Id(params.first().map_or("", String::as_str).parse()?))
    }
}

/// The first two parameters of the path: an id and a name.
pub struct Named<T>(pub T, pub String);

impl<S: Send + Sync, T: FromStr<Err = Error>> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut params = path_params(parts, state).await?.into_iter();
        let id = params.next().unwrap_or_default().parse()?;
        Ok(Named(id, params.next().unwrap_or_default()))
    }
}

/// The three parameters of the path: an id and two names.
pub struct Twice<T>(pub T, pub String, pub String);

impl<S: Send + Sync, T: FromStr<Err = Error>> FromRequestParts<S> for Twice<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut params = path_params(parts, state).await?.into_iter();
        let id = params.next().unwrap_or_default().parse()?;
        Ok(Twice(id, params.next().unwrap_or_default(), params.next().unwrap_or_default()))
    }
}

/// The only parameter of the path: a name, with `/` written as `/` or as `%2F`.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Name(path_params(parts, state).await?.into_iter().next().unwrap_or_default()))
    }
}

/// The query. Unknown fields are ignored.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(q) => Ok(Query(q.0)),
            Err(e) => {
                let text = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
                Err(Error::new(Code::ValidationError, format!("query: {text}")).into())
            }
        }
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The number of the page, from 1.
    pub page: Option<i64>,
    /// How many rows a page has, 1–100.
    pub limit: Option<i64>,
    /// The field to sort by; which ones there are depends on the list. Default: `created_at`.
    pub sort_by: Option<String>,
    /// `asc` or `desc` (default).
    pub sort_order: Option<String>,
}

impl PageQuery {
    /// The checked request.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn check(self, default_limit: u32) -> Result<PageRequest> {
        PageRequest::new(self.page, self.limit, default_limit, self.sort_by, self.sort_order.as_deref())
    }
}

/// A change: its caller, and its body. An empty body is read as an empty object.
pub struct Input<T> {
    /// Who asks, how long the answer may be held, and the idempotency key.
    pub caller: Caller,
    /// The body.
    pub body: T,
    /// Whether `Prefer` says how long the answer may be held.
    prefers: bool,
}

impl<T> Input<T> {
    /// For a change whose published answer is that of its end: without `Prefer: wait` the answer is held as long as possible.
    #[must_use]
    pub fn held_to_the_end(mut self) -> Self {
        if !self.prefers {
            self.caller.wait = Duration::from_secs(MAX_WAIT_S);
        }
        self
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Input::read(request, None).await?)
    }
}

/// A change whose body must be there: with an empty one it would do what hardly anybody means.
pub struct Explicit<T>(pub Input<T>);

/// What to send instead of an empty body.
pub trait Advice {
    /// The advice, for people.
    const ADVICE: &'static str;
}

impl Advice for SnapshotPolicy {
    const ADVICE: &'static str = "it is empty: send a policy; {\"schedules\": []} is one that takes no snapshots and switches inherited policies off";
}

impl<S: Send + Sync, T: DeserializeOwned + Advice> FromRequest<S> for Explicit<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Explicit(Input::read(request, Some(T::ADVICE)).await?))
    }
}

impl<T: DeserializeOwned> Input<T> {
    /// `required`: the error for an empty body.
    async fn read(request: Request, required: Option<&str>) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let key = idempotency_key(&parts.headers)?;
        let bytes = read_body(&parts, body).await?;
        if let Some(advice) = required.filter(|_| bytes.iter().all(u8::is_ascii_whitespace)) {
            return Err(invalid("body", advice));
        }
        let identity = parts.extensions.get::<Identity>();
        let idempotency = key.filter(|_| takes_key(&parts)).map(|key| IdempotencyKey {
            scope: identity.map(Identity::scope).unwrap_or_default(),
            key,
            fingerprint: fingerprint(&parts.method, parts.uri.path(), &bytes),
        });
        let inside = matches!(identity, Some(Identity::Container(_)));
        let caller = Caller { idempotency, author: identity.map(Identity::author), inside, ..caller(&parts.headers) };
        Ok(Input { caller, body: parse(&bytes)?, prefers: preferred_wait(&parts.headers).is_some() })
    }
}

/// A body without fields: it must be empty or an object, whose fields are ignored.
#[derive(Debug, Default, Deserialize)]
pub struct Nothing {}

/// A caller without an idempotency key.
#[must_use]
pub fn caller(headers: &HeaderMap) -> Caller {
    let preferred = preferred_wait(headers);
    let usual = Caller::default();
    Caller { wait: preferred.unwrap_or(DEFAULT_WAIT), patience: preferred.map_or(usual.patience, |wait| usual.patience.min(wait)), ..usual }
}

/// `Prefer: wait=N`, at most 25 s. An invalid value is ignored, as RFC 7240 requires.
#[must_use]
pub fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").into_iter().filter_map(|v| v.to_str().ok());
    let wait = values.flat_map(|v| v.split([',', ';'])).find_map(|p| {
        let (name, value) = p.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("wait") { value.trim().trim_matches('"').parse::<u64>().ok() } else { None }
    })?;
    Some(Duration::from_secs(wait.min(MAX_WAIT_S)))
}

/// How long an answer waits for sizes that have still to be measured: briefly, or as `Prefer` says.
pub struct Measuring(pub Duration);

impl<S: Sync> FromRequestParts<S> for Measuring {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Measuring(preferred_wait(&parts.headers).unwrap_or(MEASURING_WAIT)))
    }
}

/// Idempotency keys are used on POST and on a restore, which is PATCH or PUT of a snapshot.
fn takes_key(parts: &Parts) -> bool {
    let restores = parts.extensions.get::<axum::extract::MatchedPath>().is_some_and(|p| p.as_str().ends_with("/snapshots/{name}"));
    parts.method == Method::POST || (restores && (parts.method == Method::PATCH || parts.method == Method::PUT))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bytes = value.as_bytes();
    if (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
        return Ok(Some(String::from_utf8_lossy(bytes).into_owned()));
    }
    Err(Error::new(Code::InvalidIdempotencyKey, "an Idempotency-Key must be 1 to 255 visible ASCII characters without blanks"))
}

fn fingerprint(method: &Method, path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

async fn read_body(parts: &Parts, body: Body) -> Result<Bytes> {
    let defaults = Limits::default();
    let limits = parts.extensions.get::<Connection>().map_or(&defaults, Connection::limits);
    let known = parts.extensions.get::<Identity>().is_some() || parts.extensions.get::<OtherServer>().is_some();
    let most = match parts.extensions.get::<Identity>() {
        Some(Identity::Container(_)) => CONTAINER_LIMIT,
        _ if known => JSON_LIMIT,
        _ => limits.unauthenticated_body,
    };
    let too_large = || Error::new(Code::RequestTooLarge, format!("the body is larger than {most} bytes"));
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > most as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(limits.body_timeout, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) if Stalled::is_behind(e.as_ref()) => Err(too_slow(limits.progress_timeout)),
        Ok(Err(e)) => Err(invalid("body", format!("the connection was lost: {e}"))),
        Err(_) => Err(too_slow(limits.body_timeout)),
    }
}

/// The error for a body that did not arrive in time.
pub(crate) fn too_slow(limit: Duration) -> Error {
    Error::new(Code::RequestTimeout, format!("the body did not arrive within {} s", limit.as_secs_f32()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|e| invalid("body", format!("it is not UTF-8 from byte {} on", e.valid_up_to())))?;
    let text = if text.trim().is_empty() { "{}" } else { text };
    if !text.trim_start().starts_with('{') {
        return Err(invalid("body", "it must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        invalid(if matches!(path.as_str(), "." | "?") { "body" } else { &path }, e.into_inner())
    })?;
    json.end().map_err(|e| invalid("body", e))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_prefer_and_bounded() {
        for (value, want) in [("wait=3", Some(3)), ("respond-async, wait=99", Some(25)), ("wait=\"7\"", Some(7)), ("wait=x", None), ("handling=lenient", None)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().unwrap());
            assert_eq!(preferred_wait(&headers), want.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_fingerprint_tells_method_path_and_body_apart() {
        let all = [fingerprint(&Method::POST, "/a", b"b"), fingerprint(&Method::POST, "/ab", b""), fingerprint(&Method::PUT, "/a", b"b")];
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
