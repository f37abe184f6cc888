//! Images. The `/` in a name can be written as `/` or as `%2F`.

use super::{Null, Routes, upload};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, created, ok};
use crate::extract::{Input, Name, Nothing, PageQuery, Query, caller};
use crate::slots;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use hoody_state::host::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{Image, ImageFromSnapshot, Pagination};
use hoody_state::{Code, Error};
use serde::Serialize;
use utoipa_axum::routes;

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
    let caller = Caller { author: Some(who.author()), ..caller(&headers) };
    let slot = app.counted.uploads.take_now(&slots::current(), Code::UploadLimit)?;
    let image =
        upload::receive(&app, slot, body, "the image came too slowly: nothing was kept of it", move |host, tar| host.import_image(&caller, &name, tar)).await?;
    created("Image imported", image)
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
