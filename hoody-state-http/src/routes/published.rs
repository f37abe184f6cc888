//! Minimal answers to the other requests of the published clients.

use super::Routes;
use super::images::ImagePage;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, ok};
use crate::extract::{Id, Input, Nothing, PageQuery, Query};
use crate::limits::Timeouts;
use crate::slots::Load;
use axum::extract::State;
use axum::routing::{MethodRouter, delete, put};
use hoody_state::clock::rfc3339;
use hoody_state::id::ServerId;
use hoody_state::model::{PoolInfo, Server};
use hoody_state::{Code, Error};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(servers))
        .routes(routes!(rentals))
        .routes(routes!(server))
        .routes(routes!(public_images))
        .routes(routes!(user_images))
        .routes(routes!(realms))
        .routes(routes!(token))
        .routes(routes!(auth_me))
        .routes(routes!(me))
        .routes(routes!(pool))
        .route("/images/public", reserved())
        .route("/images/user", reserved())
}

/// The routes that need no token.
pub(crate) fn open_routes() -> Routes {
    Routes::new().routes(routes!(login))
}

fn reserved() -> MethodRouter<Shared> {
    async fn refuse(_: Input<Nothing>) -> ApiError {
        Error::new(Code::ReservedImageName, "this is a word of the API and cannot name an image: choose another").into()
    }
    put(refuse).merge(delete(refuse))
}

/// A server, in the form of the published lists.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerRow {
    id: ServerId,
    server_id: ServerId,
    status: &'static str,
    server: Server,
}

fn row(server: Server) -> ServerRow {
    ServerRow { id: server.id.clone(), server_id: server.id.clone(), status: "active", server }
}

async fn rows(app: &Shared) -> Result<Vec<ServerRow>, ApiError> {
    Ok(app.read(|host| host.servers()).await?.into_iter().map(row).collect())
}

/// Lists this server, and the peers that containers can be copied to.
#[utoipa::path(get, path = "/servers", tag = "server", operation_id = "list_servers", responses((status = 200, description = "All servers, this one first", body = Envelope<Vec<ServerRow>>)))]
pub async fn servers(State(app): State<Shared>, _who: Identity) -> Reply<Vec<ServerRow>> {
    ok("Servers", rows(&app).await?)
}

/// Lists this server in the form that the published quick start asks for.
#[utoipa::path(get, path = "/rentals", tag = "server", operation_id = "list_rentals", responses((status = 200, description = "One row", body = Envelope<Vec<ServerRow>>)))]
pub async fn rentals(State(app): State<Shared>, _who: Identity) -> Reply<Vec<ServerRow>> {
    ok("Rentals", rows(&app).await?)
}

/// Shows this server or a peer, by the id of the server.
#[utoipa::path(get, path = "/servers/{id}", tag = "server", operation_id = "get_server", params(("id" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<ServerRow>)))]
pub async fn server(State(app): State<Shared>, _who: Identity, Id(id): Id<ServerId>) -> Reply<ServerRow> {
    ok("Server", row(app.read(move |host| host.known_server(&id)).await?))
}

/// Lists the images, under the path of the published list.
#[utoipa::path(get, path = "/images/public", tag = "images", operation_id = "list_public_images", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ImagePage>)))]
pub async fn public_images(State(app): State<Shared>, who: Identity, q: Query<PageQuery>) -> Reply<ImagePage> {
    super::images::list(State(app), who, q).await
}

/// Lists the images, under the path of the published list.
#[utoipa::path(get, path = "/images/user", tag = "images", operation_id = "list_user_images", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ImagePage>)))]
pub async fn user_images(State(app): State<Shared>, who: Identity, q: Query<PageQuery>) -> Reply<ImagePage> {
    super::images::list(State(app), who, q).await
}

/// The realms: none.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Realms {
    realm_ids: Vec<String>,
    total: u64,
}

/// Lists no realms: this server has none.
#[utoipa::path(get, path = "/realms", tag = "server", operation_id = "list_realms", responses((status = 200, description = "An empty list", body = Envelope<Realms>)))]
pub async fn realms(_who: Identity) -> Reply<Realms> {
    ok("Realms", Realms { realm_ids: Vec::new(), total: 0 })
}

/// Shows the token of the request.
#[utoipa::path(get, path = "/auth/tokens/me", tag = "server", operation_id = "get_current_token", responses((status = 200, description = "The resource", body = Envelope<Object>)))]
pub async fn token(State(app): State<Shared>, who: Identity) -> Reply<Value> {
    let (id, alias, prefix, at) = match &who {
        Identity::Root => (app.host.user().to_string(), "root".to_owned(), String::new(), Timestamp::UNIX_EPOCH),
        Identity::Container(id) => (id.to_string(), who.author(), String::new(), Timestamp::UNIX_EPOCH),
        Identity::Token(t) => (t.id.to_string(), t.name.clone(), t.prefix.clone(), t.created_at),
    };
    let at = rfc3339::format(at);
    ok(
        "Token",
        json!({
            "token": {
                "id": id, "alias": alias, "prefix": prefix, "ip_whitelist": [], "permissions": {}, "is_enabled": true, "vault_access": false,
                "event_access": true, "created_at": at, "updated_at": at,
                "projects": who.only(), "read_only": !who.may_change(),
            },
            "restrictions": {
                "has_realm_restrictions": false, "requires_realm_scope": false, "allowed_realm_ids": [], "allow_no_realm": true, "active_realm_id": null,
            },
        }),
    )
}

/// The user that owns everything on this server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct User {
    id: hoody_state::id::UserId,
    username: &'static str,
}

/// Shows the only user of the server.
#[utoipa::path(get, path = "/users/auth/me", tag = "server", operation_id = "get_auth_user", responses((status = 200, description = "The resource", body = Envelope<User>)))]
pub async fn auth_me(State(app): State<Shared>, _who: Identity) -> Reply<User> {
    ok("User", User { id: app.host.user(), username: "owner" })
}

/// Shows the only user of the server.
#[utoipa::path(get, path = "/users/me", tag = "server", operation_id = "get_user", responses((status = 200, description = "The resource", body = Envelope<User>)))]
pub async fn me(State(app): State<Shared>, _who: Identity) -> Reply<User> {
    ok("User", User { id: app.host.user(), username: "owner" })
}

/// Always refused: tokens are created on the server.
#[utoipa::path(post, path = "/users/auth/login", tag = "server", operation_id = "login", responses((status = 401, description = "Always refused", body = crate::envelope::ErrorBody)))]
pub async fn login(_: Input<Nothing>) -> ApiError {
    let message =
        "this server has no login by user name and password: create a token with `hoody-state-http token create` and send it as `Authorization: Bearer TOKEN`";
    Error::new(Code::InvalidCredentials, message).into()
}

/// The pool and the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PoolAnswer {
    #[serde(flatten)]
    pool: PoolInfo,
    /// The limits of the server and how much of them is in use.
    server: ServerLimits,
}

/// The limits of the server and how much of them is in use.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerLimits {
    /// Calls, streams and connections: how many are open, and how many may be.
    under_way: BTreeMap<&'static str, Load>,
    #[serde(flatten)]
    timeouts: Timeouts,
}

/// Shows the pool (space, health, what is being reclaimed) and the limits of the server.
#[utoipa::path(get, path = "/pool", tag = "server", operation_id = "get_pool", responses((status = 200, description = "The pool and the limits", body = Envelope<PoolAnswer>)))]
pub async fn pool(State(app): State<Shared>, who: Identity) -> Reply<PoolAnswer> {
    let mut pool = app.read(|host| host.pool()).await?;
    if who.only().is_some() {
        // The list of what is reclaimed names containers and snapshots of other projects.
        pool.reclaiming.clear();
    }
    ok("Pool", PoolAnswer { pool, server: ServerLimits { under_way: app.loads(), timeouts: Timeouts::of(&app.options.limits) } })
}
