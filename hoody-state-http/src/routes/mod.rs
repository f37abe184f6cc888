//! The handlers, one file a noun.

pub mod containers;
pub mod copies;
pub mod dedupe;
pub mod diff;
pub mod environment;
pub mod events;
pub mod files;
pub mod health;
pub mod images;
pub mod inside;
pub mod operations;
pub mod peers;
pub mod policies;
pub mod projects;
pub mod promote;
pub mod published;
pub mod restore_files;
pub mod shares;
pub mod snapshots;
pub mod timeline;
pub mod trash;
mod upload;

use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

/// The routes of one file.
pub(crate) type Routes = OpenApiRouter<crate::app::Shared>;

/// An answer that is always null.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(value_type = Option<Object>)]
pub struct Null(pub ());
