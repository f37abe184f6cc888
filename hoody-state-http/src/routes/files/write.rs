//! Writing and deleting files of the present state.

use super::at::At;
use super::conditions::versions;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, created, ok};
use crate::extract::{Query, caller, invalid};
use crate::routes::upload;
use crate::slots;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use hoody_state::id::ContainerId;
use hoody_state::model::{FileCondition, FileDeleted, FileWritten, LIVE, WriteOptions};
use hoody_state::tree::TreePath;
use hoody_state::{Code, Error};
use serde::Deserialize;

/// How a file is written.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WriteQuery {
    /// Its permissions in octal, such as `0755`. Default: those of the file that is replaced, else `0644`.
    mode: Option<String>,
    /// Its owner, as the container sees it. Default: that of the file that is replaced, else 0.
    uid: Option<u32>,
    /// Its group, as the container sees it. Default: that of the file that is replaced, else 0.
    gid: Option<u32>,
    /// Make the directories that are missing above it.
    #[serde(default)]
    parents: bool,
    /// Make an empty directory instead of a file; the body is empty. One that is there stays as it is.
    #[serde(default)]
    directory: bool,
}

/// What is deleted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// A directory too, with everything in it.
    #[serde(default)]
    recursive: bool,
}

/// Writes a file. It is replaced in one step, when all of the body has come and is on the disk; owner, mode and attributes of a file that was there are kept. The directory is made with `parents`.
#[utoipa::path(put, path = "/containers/{id}/snapshots/{name}/files/{*path}", tag = "files", operation_id = "put_file", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("id" = String, Path), ("name" = String, Path, description = "`live`"), ("path" = String, Path, description = "The path in the container, percent-encoded"), WriteQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the file is still the one with this `ETag`; `*`: only if there is one"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is nothing at this path")),
    responses((status = 200, description = "Replaced", body = Envelope<FileWritten>), (status = 201, description = "Created", body = Envelope<FileWritten>), (status = 412, description = "`precondition_failed`")))]
pub async fn put(State(app): State<Shared>, who: Identity, at: At, Query(query): Query<WriteQuery>, headers: HeaderMap, body: Body) -> Reply<FileWritten> {
    let (id, path) = of_live(at)?;
    let options = WriteOptions {
        mode: query.mode.as_deref().map(octal).transpose()?,
        uid: query.uid,
        gid: query.gid,
        parents: query.parents,
        condition: condition(&headers)?,
        length: headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()),
    };
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(invalid("Content-Range", "a file is written as a whole").into());
    }
    let caller = caller(&headers);
    if query.directory {
        let given = [query.mode.is_some(), query.uid.is_some(), query.gid.is_some(), options.length.is_some_and(|n| n > 0)];
        if given.contains(&true) {
            return Err(invalid("directory", "a directory is made without a mode, an owner and a body").into());
        }
        let made = app.alter(who, id, move |host, id| host.make_directory(&caller, id, &path, &options)).await?;
        return if made.created { created("Directory created", made) } else { ok("The directory was there", made) };
    }
    let seen = id.clone();
    app.look(who, id.clone(), move |host, id| host.container(id)).await?;
    let slot = app.counted.uploads.take_now(&slots::current(), Code::UploadLimit)?;
    let slow = "the file came too slowly: nothing was kept of it";
    let written = upload::receive(&app, slot, body, slow, move |host, body| host.write_file(&caller, &seen, &path, &options, body)).await?;
    if written.created { created("File created", written) } else { ok("File replaced", written) }
}

/// Deletes a file, or with `recursive` a directory with everything in it. It disappears in one step. A symbolic link is deleted itself.
#[utoipa::path(delete, path = "/containers/{id}/snapshots/{name}/files/{*path}", tag = "files", operation_id = "delete_file",
    params(("id" = String, Path), ("name" = String, Path, description = "`live`"), ("path" = String, Path, description = "The path in the container, percent-encoded"), DeleteQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the file is still the one with this `ETag`")),
    responses((status = 200, description = "Deleted", body = Envelope<FileDeleted>), (status = 412, description = "`precondition_failed`")))]
pub async fn delete(State(app): State<Shared>, who: Identity, at: At, Query(query): Query<DeleteQuery>, headers: HeaderMap) -> Reply<FileDeleted> {
    let (id, path) = of_live(at)?;
    let (condition, caller) = (condition(&headers)?, caller(&headers));
    ok("Deleted", app.alter(who, id, move |host, id| host.delete_file(&caller, id, &path, query.recursive, &condition)).await?)
}

fn of_live(at: At) -> Result<(ContainerId, TreePath), Error> {
    if at.state == LIVE {
        return Ok((at.container, at.path));
    }
    Err(Error::new(Code::VolumeReadOnly, format!("a snapshot never changes: write to the present state, `{LIVE}`")))
}

fn octal(text: &str) -> Result<u32, Error> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777 && text.bytes().all(|b| b.is_ascii_digit()));
    mode.ok_or_else(|| invalid("mode", format!("{text:?} is not a mode: give 0 to 7777 in octal")))
}

fn condition(headers: &HeaderMap) -> Result<FileCondition, ApiError> {
    let if_match = headers.get(header::IF_MATCH).map(|v| v.to_str().map(versions).unwrap_or_default());
    let if_none = match headers.get(header::IF_NONE_MATCH) {
        None => false,
        Some(v) if v.as_bytes() == b"*" => true,
        Some(_) => return Err(invalid("If-None-Match", "only `*` is understood here").into()),
    };
    Ok(FileCondition { if_match, if_none })
}
