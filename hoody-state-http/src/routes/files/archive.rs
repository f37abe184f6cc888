//! A directory as a tar, made as the client takes it.

use super::content::guard;
use crate::app::App;
use crate::auth::Identity;
use crate::envelope::ApiError;
use crate::extract::invalid;
use crate::slots::{self, Slot};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hoody_state::host::FileArchive;
use hoody_state::id::ContainerId;
use hoody_state::tree::TreePath;
use hoody_state::{Code, Error};
use std::io;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Not compressed.
    Tar,
    /// In zstd.
    TarZst,
}

impl Format {
    pub(super) fn of(text: &str) -> Result<Self, Error> {
        match text {
            "tar" => Ok(Format::Tar),
            "tar.zst" => Ok(Format::TarZst),
            _ => Err(invalid("archive", format!("{text:?} is neither tar nor tar.zst"))),
        }
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Format::Tar => ("tar", "application/x-tar"),
            Format::TarZst => ("tar.zst", "application/zstd"),
        }
    }
}

/// The answer to GET and HEAD.
pub(super) async fn answer(
    app: &App,
    who: Identity,
    id: ContainerId,
    state: String,
    path: TreePath,
    format: Format,
    method: &Method,
) -> Result<Response, ApiError> {
    let name = path.split().map_or_else(|| "root".to_owned(), |(_, name)| hoody_state::tree::shown(name));
    let archive = app.look(who, id, move |host, id| host.archive(id, &state, &path, format == Format::TarZst)).await?;
    let (ending, kind) = format.parts();
    let mut headers = HeaderMap::new();
    guard(&mut headers, "attachment", &format!("{name}.{ending}"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if method == Method::HEAD {
        return Ok((headers, Body::empty()).into_response());
    }
    let slot = app.counted.downloads.take(&slots::current(), app.options.limits.patience, Code::ServerBusy).await?;
    Ok((headers, body(archive, slot)).into_response())
}

fn body(archive: FileArchive, slot: Slot) -> Body {
    Body::from_stream(stream::unfold(Some((archive, slot)), |state| async move {
        let (mut archive, slot) = state?;
        let made = tokio::task::spawn_blocking(move || (archive.next_piece(), archive)).await;
        match made {
            Ok((Ok(Some(piece)), archive)) => Some((Ok(Bytes::from(piece)), Some((archive, slot)))),
            Ok((Ok(None), archive)) => {
                let left_out = archive.left_out();
                if left_out != Default::default() {
                    tracing::info!(?left_out, "an archive does not have everything");
                }
                None
            }
            // The body is cut, so that nobody takes it for complete.
            Ok((Err(e), _)) => {
                tracing::info!(error = %e.message(), "an archive was not made to its end");
                Some((Err(io::Error::other("the archive broke off")), None))
            }
            Err(e) => Some((Err(io::Error::other(e)), None)),
        }
    }))
}
