//! Events: the list here, the live streams in `stream` and `socket_io`.

pub(crate) mod socket_io;
mod stream;

use super::{Null, Routes};
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, ok};
use crate::extract::{Id, Input, Nothing, Query, invalid};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hoody_state::host::Host;
use hoody_state::id::EventId;
use hoody_state::model::{Event, EventFilter};
use hoody_state::{Code, Error, Result};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list, delete_all)).routes(routes!(stats)).routes(routes!(cleanup)).routes(routes!(get, delete))
}

/// Which events to show.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// How many, 1–500. Default: 100.
    limit: Option<i64>,
    /// How many to skip.
    offset: Option<i64>,
    /// `created_at` (default) or `event_type`.
    sort_by: Option<String>,
    /// `asc` or `desc` (default).
    sort_order: Option<String>,
    /// Only events of this type.
    event_type: Option<String>,
    /// Only events of resources of this type.
    resource_type: Option<String>,
    /// Only events of this resource.
    resource_id: Option<String>,
    /// Only events from this time or day on.
    start_date: Option<String>,
    /// Only events up to this time or day.
    end_date: Option<String>,
}

impl EventQuery {
    fn check(self, who: &Identity) -> Result<EventFilter> {
        let limit = self.limit.unwrap_or(100);
        let offset = self.offset.unwrap_or(0);
        let sort_by = self.sort_by.as_deref().unwrap_or("created_at");
        if !matches!(sort_by, "created_at" | "event_type") {
            return Err(Error::new(Code::InvalidPage, format!("sort_by {sort_by:?} is neither created_at nor event_type")));
        }
        let ascending = match self.sort_order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => return Err(Error::new(Code::InvalidPage, format!("sort_order {other:?} is neither asc nor desc"))),
        };
        Ok(EventFilter {
            event_type: self.event_type,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            start: self.start_date.map(|t| time("start_date", &t, false)).transpose()?,
            end: self.end_date.map(|t| time("end_date", &t, true)).transpose()?,
            after_seq: None,
            ascending,
            limit: u32::try_from(limit).ok().filter(|l| (1..=500).contains(l)).ok_or_else(|| invalid_range("limit", limit, "1 to 500"))?,
            offset: u64::try_from(offset).map_err(|_| invalid_range("offset", offset, "at least 0"))?,
            projects: projects(who),
        })
    }
}

fn invalid_range(field: &str, value: i64, range: &str) -> Error {
    Error::new(Code::InvalidPage, format!("{field} {value} is out of range: it must be {range}"))
}

fn projects(who: &Identity) -> Option<Vec<String>> {
    who.only().map(|ids| ids.iter().map(ToString::to_string).collect())
}

/// A time, or a day: its first or its last instant.
fn time(field: &str, text: &str, end: bool) -> Result<Timestamp> {
    if let Ok(t) = text.parse::<Timestamp>() {
        return Ok(t);
    }
    let day = text.parse::<Date>().ok().and_then(|d| if end { d.tomorrow().ok() } else { Some(d) });
    let start = day.and_then(|d| TimeZone::UTC.to_timestamp(d.at(0, 0, 0, 0)).ok());
    let at = if end { start.and_then(|t| t.checked_sub(SignedDuration::from_millis(1)).ok()) } else { start };
    at.ok_or_else(|| invalid(field, format!("{text:?} is neither an RFC 3339 time nor a day")))
}

/// A page of events.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventPage {
    events: Vec<Event>,
    pagination: EventPagination,
}

/// The position of this page.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventPagination {
    total: u64,
    limit: u32,
    offset: u64,
    has_more: bool,
}

/// Lists events. With `Accept: text/event-stream` the answer is a live stream, which continues after `Last-Event-ID`.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "list_events",
    params(EventQuery, ("Last-Event-ID" = Option<String>, Header, description = "For the stream: continue after this event")),
    responses((status = 200, description = "A page, or the stream", content((Envelope<EventPage> = "application/json"), (String = "text/event-stream")))))]
pub async fn list(State(app): State<Shared>, who: Identity, headers: HeaderMap, Query(q): Query<EventQuery>) -> Result<Response, ApiError> {
    let filter = q.check(&who)?;
    if wants_stream(&headers) {
        return stream::open(app, who, filter, &headers).await;
    }
    let (limit, offset) = (filter.limit, filter.offset);
    let (events, total) = app.read(move |host| host.events(&filter)).await?;
    let has_more = offset.saturating_add(events.len() as u64) < total;
    Ok(ok("Events", EventPage { events, pagination: EventPagination { total, limit, offset, has_more } }).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("text/event-stream"))
}

fn find(host: &Host, who: &Identity, id: &EventId) -> Result<Event> {
    let event = host.event(id)?;
    if who.sees_event(&event) {
        return Ok(event);
    }
    Err(Error::new(Code::EventNotFound, format!("there is no event {id}")))
}

/// Shows an event.
#[utoipa::path(get, path = "/events/{id}", tag = "events", operation_id = "get_event", params(("id" = String, Path)), responses((status = 200, description = "The resource", body = Envelope<Event>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<EventId>) -> Reply<Event> {
    ok("Event", app.read(move |host| find(host, &who, &id)).await?)
}

/// Deletes an event.
#[utoipa::path(delete, path = "/events/{id}", tag = "events", operation_id = "delete_event", params(("id" = String, Path)), responses((status = 200, description = "Deleted", body = Envelope<Null>)))]
pub async fn delete(State(app): State<Shared>, who: Identity, Id(id): Id<EventId>, _: Input<Nothing>) -> Reply<Null> {
    app.change(move |host| {
        find(host, &who, &id)?;
        host.delete_event(&id)
    })
    .await?;
    ok("Event deleted", Null(()))
}

/// How many events were deleted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Deleted {
    deleted_count: u64,
}

/// Deletes all events.
#[utoipa::path(delete, path = "/events", tag = "events", operation_id = "delete_events", responses((status = 200, description = "Deleted", body = Envelope<Deleted>)))]
pub async fn delete_all(State(app): State<Shared>, who: Identity, _: Input<Nothing>) -> Reply<Deleted> {
    who.check_server()?;
    ok("Events deleted", Deleted { deleted_count: app.change(|host| host.delete_events(None)).await? })
}

/// Which events to keep.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CleanupInput {
    /// Delete events older than this many days: 1–365.
    retention_days: i64,
}

/// Deletes old events.
#[utoipa::path(post, path = "/events/cleanup", tag = "events", operation_id = "cleanup_events", request_body = CleanupInput, responses((status = 200, description = "Deleted", body = Envelope<Deleted>)))]
pub async fn cleanup(State(app): State<Shared>, who: Identity, input: Input<CleanupInput>) -> Reply<Deleted> {
    who.check_server()?;
    let days = input.body.retention_days;
    if !(1..=365).contains(&days) {
        return Err(invalid("retention_days", format!("{days} is out of range: 1 to 365")).into());
    }
    let before = Timestamp::now().checked_sub(SignedDuration::from_hours(24 * days)).map_err(|e| invalid("retention_days", e))?;
    ok("Events deleted", Deleted { deleted_count: app.change(move |host| host.delete_events(Some(before))).await? })
}

/// Numbers of events.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct EventStats {
    total_events: u64,
    by_type: BTreeMap<String, u64>,
    by_resource: BTreeMap<String, u64>,
}

/// Counts the events by type and by type of resource.
#[utoipa::path(get, path = "/events/stats", tag = "events", operation_id = "event_stats", responses((status = 200, description = "The numbers", body = Envelope<EventStats>)))]
pub async fn stats(State(app): State<Shared>, who: Identity) -> Reply<EventStats> {
    let stats = app
        .read(move |host| {
            if who.only().is_some() {
                return count_visible(host, &who);
            }
            let (by_type, by_resource) = host.event_stats()?;
            Ok(EventStats { total_events: by_type.values().sum(), by_type, by_resource })
        })
        .await?;
    ok("Event stats", stats)
}

fn count_visible(host: &Host, who: &Identity) -> Result<EventStats> {
    let mut stats = EventStats::default();
    let mut filter = EventFilter { limit: 500, ascending: true, projects: projects(who), ..EventFilter::default() };
    loop {
        let (events, _) = host.events(&filter)?;
        let Some(last) = events.last() else { return Ok(stats) };
        filter.after_seq = Some(last.seq);
        for e in events {
            stats.total_events += 1;
            *stats.by_type.entry(e.event_type).or_default() += 1;
            *stats.by_resource.entry(e.resource_type).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_stands_for_all_of_it() {
        assert_eq!(time("x", "2026-11-23", false).unwrap().to_string(), "2026-11-23T00:00:00Z");
        assert_eq!(time("x", "2026-11-23", true).unwrap().to_string(), "2026-11-23T23:59:59.999Z");
        assert_eq!(time("x", "2026-11-23T10:00:00Z", true).unwrap().to_string(), "2026-11-23T10:00:00Z");
        assert!(time("x", "yesterday", false).is_err());
    }
}
