//! The bytes of a file as an answer.
//!
//! They are read in pieces as the client takes them, so a download takes the memory of a piece and no thread while the client is slow. A client that leaves
//! ends it. If a file of the present state becomes shorter meanwhile, the connection is cut: an answer is never short without the client noticing.

use super::conditions::{Subject, Wanted, http_date};
use crate::app::App;
use crate::envelope::ApiError;
use crate::slots::{self, Slot};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hoody_state::host::OpenFile;
use hoody_state::{Code, Error};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io;

/// The size of a piece, in bytes.
const PIECE: usize = 256 << 10;

/// Endings of names, and the types that a browser shows without running anything of them. Everything else is a download.
const SHOWN: &[(&[&str], &str)] = &[
    (&["txt", "log", "md", "csv", "conf", "cfg", "ini", "toml", "yaml", "yml", "sh", "py", "rs", "c", "h", "go"], "text/plain; charset=utf-8"),
    (&["json"], "application/json"),
    (&["png"], "image/png"),
    (&["jpg", "jpeg"], "image/jpeg"),
    (&["gif"], "image/gif"),
    (&["webp"], "image/webp"),
    (&["mp3"], "audio/mpeg"),
    (&["wav"], "audio/wav"),
    (&["mp4"], "video/mp4"),
    (&["webm"], "video/webm"),
];

/// The type of a file with this name, if a browser may show it.
fn shown_type(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    SHOWN.iter().find(|(endings, _)| endings.iter().any(|e| e.eq_ignore_ascii_case(ending))).map(|(_, kind)| *kind)
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// The headers of what a container wrote: no browser runs anything of it.
pub(super) fn guard(headers: &mut HeaderMap, disposition: &str, name: &str) {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    if let Some(v) = value(&format!("{disposition}; filename*=UTF-8''{name}")) {
        headers.insert(header::CONTENT_DISPOSITION, v);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

/// The answer to GET and HEAD.
pub(super) async fn answer(app: &App, file: OpenFile, method: &Method, request: &HeaderMap) -> Result<Response, ApiError> {
    let etag = format!("\"{}\"", file.entry.version);
    let size = file.entry.size;
    let subject = Subject { etag: &etag, modified: file.modified, size };
    let mut headers = HeaderMap::new();
    for (name, text) in [(header::ETAG, Some(etag.clone())), (header::LAST_MODIFIED, file.modified.and_then(http_date))] {
        if let Some(v) = text.as_deref().and_then(value) {
            headers.insert(name, v);
        }
    }
    // A name of a snapshot can be given to another one later, so a cache has to ask again.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if subject.is_known(request) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let (status, from, length) = match subject.wanted(request) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Range(first, last) => {
            headers.extend(value(&format!("bytes {first}-{last}/{size}")).map(|v| (header::CONTENT_RANGE, v)));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Beyond => {
            let error = Error::new(Code::RangeNotSatisfiable, format!("the file has {size} bytes, and the range has none of them"));
            headers.extend(value(&format!("bytes */{size}")).map(|v| (header::CONTENT_RANGE, v)));
            return Ok((headers, ApiError::from(error)).into_response());
        }
    };
    let kind = shown_type(&file.entry.name);
    guard(&mut headers, if kind.is_some() { "inline" } else { "attachment" }, &file.entry.name);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.unwrap_or("application/octet-stream")));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if method == Method::HEAD || length == 0 {
        return Ok((status, headers, Body::empty()).into_response());
    }
    let slot = app.counted.downloads.take(&slots::current(), app.options.limits.patience, Code::ServerBusy).await?;
    Ok((status, headers, body(Download { file, at: from, left: length, _slot: slot })).into_response())
}

struct Download {
    file: OpenFile,
    at: u64,
    left: u64,
    _slot: Slot,
}

impl Download {
    /// The next piece.
    fn read(&mut self) -> io::Result<Bytes> {
        let most = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
        let piece = self.file.read_at(self.at, most).map_err(io::Error::other)?;
        if piece.len() < most {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.at += most as u64;
        self.left -= most as u64;
        Ok(piece.into())
    }
}

fn body(download: Download) -> Body {
    Body::from_stream(stream::unfold(Some(download), |download| async move {
        let mut download = download.filter(|d| d.left > 0)?;
        let read = tokio::task::spawn_blocking(move || (download.read(), download)).await;
        Some(match read {
            Ok((Ok(piece), download)) => (Ok(piece), Some(download)),
            Ok((Err(e), _)) => {
                tracing::info!(error = %e, "a download was cut");
                (Err(e), None)
            }
            Err(e) => (Err(io::Error::other(e)), None),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_run_is_never_shown() {
        for run in ["x.html", "x.htm", "x.svg", "x.xml", "x.xhtml", "x.js", "x.mjs", "x.pdf", "x.HTML", "x", ".txt.html", "x.wasm", "html"] {
            assert_eq!(shown_type(run), None, "{run}");
        }
        assert_eq!((shown_type("a.TXT"), shown_type("a.html.png")), (Some("text/plain; charset=utf-8"), Some("image/png")));
    }
}
