//! The least that the published clients ask for outside the scope of this server.

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

/// What asks for no token.
pub(crate) fn open_routes() -> Routes {
    Routes::new().routes(routes!(login))
}

fn reserved() -> MethodRouter<Shared> {
    async fn refuse(_: Input<Nothing>) -> ApiError {
        Error::new(Code::ReservedImageName, "this is a word of the API and cannot name an image: choose another").into()
    }
    put(refuse).merge(delete(refuse))
}

/// A server, as the published lists have it.
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

/// This server, and the peers that containers can be copied to.
#[utoipa::path(get, path = "/servers", tag = "server", operation_id = "list_servers", responses((status = 200, description = "This one first", body = Envelope<Vec<ServerRow>>)))]
pub async fn servers(State(app): State<Shared>, _who: Identity) -> Reply<Vec<ServerRow>> {
    ok("Servers", rows(&app).await?)
}

/// The same, as the published quick start asks for it.
#[utoipa::path(get, path = "/rentals", tag = "server", operation_id = "list_rentals", responses((status = 200, description = "One row", body = Envelope<Vec<ServerRow>>)))]
pub async fn rentals(State(app): State<Shared>, _who: Identity) -> Reply<Vec<ServerRow>> {
    ok("Rentals", rows(&app).await?)
}

/// This server or a peer, by its id.
#[utoipa::path(get, path = "/servers/{id}", tag = "server", operation_id = "get_server", params(("id" = String, Path)), responses((status = 200, description = "It", body = Envelope<ServerRow>)))]
pub async fn server(State(app): State<Shared>, _who: Identity, Id(id): Id<ServerId>) -> Reply<ServerRow> {
    ok("Server", row(app.read(move |host| host.known_server(&id)).await?))
}

/// The images, under the path of the published list.
#[utoipa::path(get, path = "/images/public", tag = "images", operation_id = "list_public_images", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ImagePage>)))]
pub async fn public_images(State(app): State<Shared>, who: Identity, q: Query<PageQuery>) -> Reply<ImagePage> {
    super::images::list(State(app), who, q).await
}

/// The images, under the path of the published list.
#[utoipa::path(get, path = "/images/user", tag = "images", operation_id = "list_user_images", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<ImagePage>)))]
pub async fn user_images(State(app): State<Shared>, who: Identity, q: Query<PageQuery>) -> Reply<ImagePage> {
    super::images::list(State(app), who, q).await
}

/// None: this server has no realms.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Realms {
    realm_ids: Vec<String>,
    total: u64,
}

/// None: this server has no realms.
#[utoipa::path(get, path = "/realms", tag = "server", operation_id = "list_realms", responses((status = 200, description = "None", body = Envelope<Realms>)))]
pub async fn realms(_who: Identity) -> Reply<Realms> {
    ok("Realms", Realms { realm_ids: Vec::new(), total: 0 })
}

/// The token that asks.
#[utoipa::path(get, path = "/auth/tokens/me", tag = "server", operation_id = "get_current_token", responses((status = 200, description = "It", body = Envelope<Object>)))]
pub async fn token(State(app): State<Shared>, who: Identity) -> Reply<Value> {
    let (id, alias, prefix, at) = match &who {
        Identity::Root => (app.host.user().to_string(), "root".to_owned(), String::new(), Timestamp::UNIX_EPOCH),
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

/// Whose everything is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct User {
    id: hoody_state::id::UserId,
    username: &'static str,
}

/// The server's one user.
#[utoipa::path(get, path = "/users/auth/me", tag = "server", operation_id = "get_auth_user", responses((status = 200, description = "It", body = Envelope<User>)))]
pub async fn auth_me(State(app): State<Shared>, _who: Identity) -> Reply<User> {
    ok("User", User { id: app.host.user(), username: "owner" })
}

/// The server's one user.
#[utoipa::path(get, path = "/users/me", tag = "server", operation_id = "get_user", responses((status = 200, description = "It", body = Envelope<User>)))]
pub async fn me(State(app): State<Shared>, _who: Identity) -> Reply<User> {
    ok("User", User { id: app.host.user(), username: "owner" })
}

/// Always refused: tokens are made on the server.
#[utoipa::path(post, path = "/users/auth/login", tag = "server", operation_id = "login", responses((status = 401, description = "Always", body = crate::envelope::ErrorBody)))]
pub async fn login(_: Input<Nothing>) -> ApiError {
    let message =
        "there is no log-in by user name and password: make a token with `hoody-state-http token create` and send it as `Authorization: Bearer TOKEN`";
    Error::new(Code::InvalidCredentials, message).into()
}

/// The pool and the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PoolAnswer {
    #[serde(flatten)]
    pool: PoolInfo,
    /// What the server takes at once, and how long it waits for clients.
    server: ServerLimits,
}

/// What the server takes at once, and how long it waits for clients.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerLimits {
    /// Calls, streams and connections: how many there are, and how many there may be.
    under_way: BTreeMap<&'static str, Load>,
    #[serde(flatten)]
    timeouts: Timeouts,
}

/// The pool: space, health, what is being reclaimed; and what the server takes at once.
#[utoipa::path(get, path = "/pool", tag = "server", operation_id = "get_pool", responses((status = 200, description = "Figures", body = Envelope<PoolAnswer>)))]
pub async fn pool(State(app): State<Shared>, who: Identity) -> Reply<PoolAnswer> {
    let mut pool = app.read(|host| host.pool()).await?;
    if who.only().is_some() {
        // What is reclaimed has the names of other projects' containers and snapshots.
        pool.reclaiming.clear();
    }
    ok("Pool", PoolAnswer { pool, server: ServerLimits { under_way: app.loads(), timeouts: Timeouts::of(&app.options.limits) } })
}
