//! The OpenAPI document. It is generated from the handlers; what holds for all of them is added here.

use crate::envelope::{Envelope, ErrorBody};
use crate::error_map;
use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::fmt::Write;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HttpMethod, Ref, RefOr, ResponseBuilder};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "hoody-state",
        description = "Snapshot, restore, copy and pause containers. Every path works with and without a trailing slash."
    ),
    components(schemas(ErrorBody, Envelope<Option<String>>)),
    tags(
        (name = "projects", description = "Groups of containers"),
        (name = "containers", description = "Containers: lifecycle, commands, logs and usage"),
        (name = "copies", description = "Copying, forking, syncing and moving containers; peers"),
        (name = "replication", description = "Requests between servers, with a replication token"),
        (name = "snapshots", description = "Snapshots: taking, restoring, undoing"),
        (name = "trash", description = "Deleted containers that can be recovered"),
        (name = "files", description = "Files of a container, in a snapshot or as they are now"),
        (name = "timeline", description = "Where the states of containers come from"),
        (name = "shares", description = "Directories that one container shares with others"),
        (name = "images", description = "Images that containers are created from"),
        (name = "operations", description = "Operations that run in the background, and their history"),
        (name = "events", description = "Events, as a list and as live streams"),
        (name = "server", description = "The server itself")
    )
)]
struct Base;

/// The document without routes.
pub(crate) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Adds what holds for all routes: errors by status, their codes, the token. Paths in the notation of axum are renamed.
pub(crate) fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        let guarded = path.starts_with("/api/v1") && !path.ends_with("/login");
        for (method, operation) in operations(&mut item) {
            if let Some(id) = &mut operation.operation_id
                && matches!(method, "patch")
            {
                id.push_str("_by_patch");
            }
            errors(operation, method, guarded);
            if guarded {
                operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
            }
        }
        let plain = path.replace("{*", "{");
        if let Some(post) = item.post.take_if(|_| path.ends_with("/images/{*name}")) {
            let item = PathItem::new(HttpMethod::Post, post);
            document.paths.paths.insert(format!("{plain}/from-snapshot"), item);
        }
        document.paths.paths.insert(plain, item);
    }
    if let Some(components) = &mut document.components {
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        if let Some(RefOr::T(Schema::Object(body))) = components.schemas.get_mut("ErrorBody") {
            body.properties.insert("code".to_owned(), RefOr::T(Schema::Object(code_schema())));
        }
    }
    document
}

fn code_schema() -> Object {
    let mut description =
        String::from("The stable code of the error. New codes may be added.\n\n| code | status | `error` | meaning |\n| --- | --- | --- | --- |\n");
    let codes = error_map::documented();
    for code in &codes {
        let word = error_map::word(*code).unwrap_or("the status phrase");
        let _ = writeln!(description, "| `{code}` | {} | {word} | {} |", error_map::status(*code), code.sentence());
    }
    let mut schema = Object::with_type(SchemaType::Type(Type::String));
    schema.description = Some(description);
    schema.examples = codes.iter().map(|c| c.as_str().into()).collect();
    schema
}

fn operations(item: &mut PathItem) -> Vec<(&'static str, &mut Operation)> {
    let all = [("get", &mut item.get), ("post", &mut item.post), ("put", &mut item.put), ("patch", &mut item.patch), ("delete", &mut item.delete)];
    all.into_iter().filter_map(|(m, o)| o.as_mut().map(|o| (m, o))).collect()
}

fn errors(operation: &mut Operation, method: &str, guarded: bool) {
    let statuses: &[u16] = match (guarded, method) {
        (false, _) => &[401, 500, 503],
        (true, "get") => &[400, 401, 404, 500, 503],
        (true, _) => &[400, 401, 403, 404, 408, 409, 413, 422, 500, 502, 503, 504, 507],
    };
    for status in statuses {
        let codes: Vec<String> = error_map::documented().into_iter().filter(|c| error_map::status(*c) == *status).map(|c| format!("`{c}`")).collect();
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(codes.join(", ")).content("application/json", content).build();
        operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response));
    }
}

/// The document, serialised.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

impl Document {
    pub(crate) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        Document(text(document).into())
    }

    pub(crate) async fn answer(Extension(Document(bytes)): Extension<Document>) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
    }
}

fn text(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = document.to_pretty_json().unwrap_or_else(|e| {
        tracing::error!(error = %e, "the OpenAPI document could not be written");
        "{}".to_owned()
    });
    text.push('\n');
    text
}
