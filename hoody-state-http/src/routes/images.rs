//! Images. The `/` in a name can be written as `/` or as `%2F`.

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, created, ok};
use crate::extract::{Input, Name, Nothing, PageQuery, Query, caller};
use crate::serve::Stalled;
use crate::slots;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::HeaderMap;
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use hoody_state::id::ContainerId;
use hoody_state::model::{Image, ImageFromSnapshot, Pagination};
use hoody_state::{Code, Error};
use serde::Serialize;
use std::io::{self, Read};
use tokio::sync::mpsc;
use utoipa_axum::routes;

/// How many pieces of an upload can wait to be unpacked.
const PIECES: usize = 8;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get, import, from_snapshot, delete))
}

/// A page of images.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ImagePage {
    /// The images of this page.
    pub images: Vec<Image>,
    /// The position of this page.
    pub pagination: Pagination,
}

/// Lists images.
#[utoipa::path(get, path = "/images", tag = "images", operation_id = "list_images", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ImagePage>)))]
pub async fn list(State(app): State<Shared>, _who: Identity, Query(q): Query<PageQuery>) -> Reply<ImagePage> {
    let page = q.check(50)?;
    let paged = app.read(move |host| host.images(&page)).await?;
    ok("Images", ImagePage { images: paged.rows, pagination: paged.pagination })
}

/// Shows an image.
#[utoipa::path(get, path = "/images/{*name}", tag = "images", operation_id = "get_image", params(("name" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<Image>)))]
pub async fn get(State(app): State<Shared>, _who: Identity, Name(name): Name) -> Reply<Image> {
    ok("Image", app.read(move |host| host.image(&name)).await?)
}

/// Imports an image. The body is a tar archive of any size, plain or compressed with gzip or zstd.
#[utoipa::path(put, path = "/images/{*name}", tag = "images", operation_id = "import_image", request_body(content = Vec<u8>, content_type = "application/x-tar"), params(("name" = String, Path)),
    responses((status = 201, description = "Imported", body = Envelope<Image>)))]
pub async fn import(State(app): State<Shared>, who: Identity, Name(name): Name, headers: HeaderMap, body: Body) -> Reply<Image> {
    who.check_server()?;
    let caller = caller(&headers);
    let (sender, receiver) = mpsc::channel(PIECES);
    let slot = app.counted.uploads.take_now(&slots::current(), Code::UploadLimit)?;
    let work = app.in_slot(slot, move |host| host.import_image(&caller, &name, &mut Upload { receiver, piece: Bytes::new(), whole: false }));
    tokio::pin!(work);
    let image = tokio::select! {
        // If the import refuses the archive, it ends before the upload.
        image = &mut work => image?,
        stalled = pump(body.into_data_stream(), sender) => match work.await {
            Err(_) if stalled => return Err(Error::new(Code::RequestTimeout, "the image came too slowly: nothing was kept of it").into()),
            image => image?,
        },
    };
    created("Image imported", image)
}

enum Piece {
    Data(Bytes),
    Broken(String),
    End,
}

/// Passes the body to the import. Returns whether it was cut because it came too slowly. If the client disconnects, this is dropped, and the reader gets
/// an error.
async fn pump(mut body: BodyDataStream, sender: mpsc::Sender<Piece>) -> bool {
    loop {
        let mut stalled = false;
        let piece = match body.next().await {
            Some(Ok(data)) => Piece::Data(data),
            Some(Err(e)) => {
                stalled = Stalled::is_behind(&e);
                Piece::Broken(e.to_string())
            }
            None => Piece::End,
        };
        let last = !matches!(piece, Piece::Data(_));
        if sender.send(piece).await.is_err() || last {
            return stalled;
        }
    }
}

/// The reader for the thread that unpacks.
struct Upload {
    receiver: mpsc::Receiver<Piece>,
    piece: Bytes,
    whole: bool,
}

impl Read for Upload {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.whole {
            match self.receiver.blocking_recv() {
                Some(Piece::Data(data)) => self.piece = data,
                Some(Piece::End) => self.whole = true,
                Some(Piece::Broken(why)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the upload broke off: {why}"))),
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client went away")),
            }
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// Creates an image from a snapshot.
#[utoipa::path(post, path = "/images/{*name}", tag = "images", operation_id = "image_from_snapshot", request_body = ImageFromSnapshot,
    params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request safe: the same key with the same request gets the first answer again")),
    responses((status = 201, description = "Created", body = Envelope<Image>)))]
pub async fn from_snapshot(State(app): State<Shared>, who: Identity, Name(path): Name, input: Input<ImageFromSnapshot>) -> Reply<Image> {
    let Some(name) = path.strip_suffix("/from-snapshot").map(str::to_owned) else {
        return Err(Error::new(Code::RouteNotFound, "images are made by PUT, or by POST …/from-snapshot").into());
    };
    who.check_server()?;
    let container: ContainerId = input.body.container_id.parse()?;
    let image = app.change(move |host| host.image_from_snapshot(&input.caller, &name, &container, &input.body.snapshot)).await?;
    created("Image created", image)
}

/// Deletes an image. Containers created from it stay.
#[utoipa::path(delete, path = "/images/{*name}", tag = "images", operation_id = "delete_image", params(("name" = String, Path)), responses((status = 200, description = "Deleted", body = Envelope<Null>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, Name(name): Name, input: Input<Nothing>) -> Reply<Null> {
    who.check_server()?;
    app.change(move |host| host.delete_image(&input.caller, &name)).await?;
    ok("Image deleted", Null(()))
}
