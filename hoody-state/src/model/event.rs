use crate::clock::rfc3339;
use crate::id::{EventId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Such as `container.snapshot.created`.
    pub event_type: String,
    /// `container`, `project`, `image`.
    pub resource_type: String,
    /// Id of what it happened to.
    pub resource_id: String,
    /// Whose it is.
    pub user_id: UserId,
    /// What is worth knowing; `project_id` is always there for containers and projects.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub payload: serde_json::Value,
    /// Always empty.
    pub realm_ids: Vec<String>,
    /// When.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Its place in the order of all events; the id of the live stream.
    #[serde(default)]
    pub seq: u64,
}

/// Which events.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Exactly this type.
    pub event_type: Option<String>,
    /// Of this kind of thing.
    pub resource_type: Option<String>,
    /// Of this thing.
    pub resource_id: Option<String>,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
    /// After this place in the order.
    pub after_seq: Option<u64>,
    /// Oldest first.
    pub ascending: bool,
    /// At most so many.
    pub limit: u32,
    /// Skip so many.
    pub offset: u64,
    /// Only of these projects (a scoped token); `None`: all.
    pub projects: Option<Vec<String>>,
}

impl Default for EventFilter {
    /// The newest hundred of all.
    fn default() -> Self {
        EventFilter {
            event_type: None,
            resource_type: None,
            resource_id: None,
            start: None,
            end: None,
            after_seq: None,
            ascending: false,
            limit: 100,
            offset: 0,
            projects: None,
        }
    }
}
