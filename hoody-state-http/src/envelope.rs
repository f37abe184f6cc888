//! The form of every answer: `{statusCode, message, data}`, or `{statusCode, error, message, code, data?}`.

use crate::error_map::{self, Mapped};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hoody_state::{Code, Error};
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// The body of a successful answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// The HTTP status.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// A message for people.
    #[schema(value_type = String)]
    pub message: Cow<'static, str>,
    /// The requested data; null if there is none.
    pub data: T,
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The HTTP status.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// The phrase of the status, or one of the published words in capitals.
    #[schema(value_type = String)]
    pub error: Cow<'static, str>,
    /// What failed, why, and what to do.
    pub message: String,
    /// The stable code of the error.
    #[schema(value_type = String)]
    pub code: Code,
    /// Machine-readable details.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<serde_json::Value>,
}

/// The result of a handler.
pub type Reply<T> = Result<Answer<T>, ApiError>;

/// A successful answer.
#[derive(Debug)]
pub struct Answer<T> {
    status: StatusCode,
    message: Cow<'static, str>,
    data: T,
}

/// 200 with `data`.
#[allow(clippy::unnecessary_wraps, clippy::missing_errors_doc)]
pub fn ok<T>(message: impl Into<Cow<'static, str>>, data: T) -> Reply<T> {
    Ok(Answer { status: StatusCode::OK, message: message.into(), data })
}

/// 201 with `data`.
#[allow(clippy::unnecessary_wraps, clippy::missing_errors_doc)]
pub fn created<T>(message: impl Into<Cow<'static, str>>, data: T) -> Reply<T> {
    Ok(Answer { status: StatusCode::CREATED, message: message.into(), data })
}

/// 200 if every part was done, 207 if some were not: then `data` says which.
#[allow(clippy::unnecessary_wraps, clippy::missing_errors_doc)]
pub fn all_or_some<T>(all: bool, message: impl Into<Cow<'static, str>>, data: T) -> Reply<T> {
    let status = if all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok(Answer { status, message: message.into(), data })
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let body = Envelope { status_code: self.status.as_u16(), message: self.message, data: self.data };
        json(self.status, &body)
    }
}

/// An error as an answer.
#[derive(Debug)]
pub struct ApiError {
    error: Error,
    on_snapshot: bool,
}

impl ApiError {
    /// The error.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The same, for a request about snapshots: some codes have another published word there.
    #[must_use]
    pub fn on_snapshot(mut self) -> Self {
        self.on_snapshot = true;
        self
    }

    /// The same with details, unless it has details.
    #[must_use]
    pub fn with_data(mut self, data: serde_json::Value) -> Self {
        if self.error.data().is_none() {
            self.error = self.error.with_data(data);
        }
        self
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError { error, on_snapshot: false }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Mapped { status, word, code, message } = error_map::map(&self.error, self.on_snapshot);
        let body = ErrorBody {
            status_code: status.as_u16(),
            error: word.map_or_else(|| phrase(status), Cow::Borrowed),
            message,
            code,
            data: self.error.data().cloned(),
        };
        let mut response = json(status, &body);
        if let Some(seconds) = error_map::retry_after(&self.error) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn phrase(status: StatusCode) -> Cow<'static, str> {
    status.canonical_reason().map_or_else(|| status.as_u16().to_string().into(), Cow::Borrowed)
}

/// A JSON answer without the envelope.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(e) => {
            tracing::error!(error = %e, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
