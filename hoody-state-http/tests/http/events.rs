//! The list and the live stream.

use crate::support::{Server, Stream, read_chunk, read_head};
use serde_json::Value;
use std::io::BufReader;

struct Live(BufReader<Box<dyn Stream>>, String);

impl Live {
    fn open(s: &Server, token: &str, after: Option<u64>, query: &str) -> Live {
        let mut r = s.with_token(token, "GET", &format!("/api/v1/events/{query}")).header("Accept", "text/event-stream");
        if let Some(after) = after {
            r = r.header("Last-Event-ID", &after.to_string());
        }
        let mut reader = r.open();
        let (status, headers) = read_head(&mut reader).unwrap();
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())));
        let mut live = Live(reader, String::new());
        assert!(live.piece().unwrap().starts_with(": hello"));
        live
    }

    fn piece(&mut self) -> Option<String> {
        while !self.1.contains("\n\n") {
            self.1.push_str(std::str::from_utf8(&read_chunk(&mut self.0)?).unwrap());
        }
        let (piece, rest) = self.1.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        self.1 = rest;
        Some(piece)
    }

    fn event(&mut self) -> (u64, String, Value) {
        let piece = self.piece().unwrap();
        let field = |name: &str| piece.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{piece}")).trim().to_owned();
        (field("id:").parse().unwrap(), field("event:"), serde_json::from_str(&field("data:")).unwrap())
    }
}

#[test]
fn the_stream_brings_what_happens_and_goes_on_where_it_broke_off() {
    let s = Server::start();
    let mut live = Live::open(&s, &s.token, None, "");
    let a = s.project("a");
    let (first, kind, event) = live.event();
    assert_eq!((kind.as_str(), &event["resource_id"]), ("project.created", &Value::from(a.clone())));
    assert_eq!(event["event_type"], "project.created");
    drop(live);
    let (b, c) = (s.project("b"), s.project("c"));
    let mut live = Live::open(&s, &s.token, Some(first), "");
    let (second, _, event) = live.event();
    assert_eq!(event["resource_id"], b.as_str());
    let (third, _, event) = live.event();
    assert_eq!(event["resource_id"], c.as_str());
    assert!(first < second && second < third);
    let d = s.project("d");
    assert_eq!(live.event().2["resource_id"], d.as_str());
}

#[test]
fn a_long_absence_is_made_good_in_batches_without_gaps_or_doubles() {
    let s = Server::start();
    s.project("p-first");
    let first = s.get("/api/v1/events?limit=1").data()["events"][0]["seq"].as_u64().unwrap();
    for i in 0..450 {
        s.host.create_project(&hoody_state::host::Caller::default(), serde_json::from_value(serde_json::json!({ "alias": format!("p{i}") })).unwrap()).unwrap();
    }
    let mut live = Live::open(&s, &s.token, Some(first), "?event_type=project.created");
    let mut last = first;
    for _ in 0..450 {
        let (seq, kind, _) = live.event();
        assert!(seq > last && kind == "project.created");
        last = seq;
    }
    let e = s.project("end");
    assert_eq!(live.event().2["resource_id"], e.as_str());
}

#[test]
fn a_stream_shows_only_what_was_asked_for_and_may_be_seen() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let token = s.scoped(&mine, true);
    let mut scoped = Live::open(&s, &token, None, "");
    let mut of_other = Live::open(&s, &s.token, None, &format!("?resource_id={other}"));
    for (id, alias) in [(&other, "other-2"), (&mine, "mine-2"), (&other, "other-3")] {
        assert_eq!(s.call("PUT", &format!("/api/v1/projects/{id}"), &format!(r#"{{"alias":"{alias}"}}"#)).status, 200);
    }
    assert_eq!(scoped.event().2["resource_id"], mine.as_str());
    assert_eq!(of_other.event().2["resource_id"], other.as_str());
    assert_eq!(of_other.event().2["resource_id"], other.as_str());
}

#[test]
fn streams_end_with_the_server() {
    let s = Server::start();
    let mut live = Live::open(&s, &s.token, None, "");
    let start = std::time::Instant::now();
    drop(s);
    assert!(live.piece().is_none());
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn the_list_has_the_published_shape_filters_and_deletes() {
    let s = Server::start();
    let (a, b) = (s.project("a"), s.project("b"));
    let page = s.get("/api/v1/events/?limit=1&sort_order=asc&event_type=project.created").data();
    assert_eq!(page["pagination"], serde_json::json!({"total": 2, "limit": 1, "offset": 0, "has_more": true}));
    let event = &page["events"][0];
    for key in ["id", "event_type", "resource_type", "resource_id", "user_id", "payload", "realm_ids", "created_at"] {
        assert!(event.get(key).is_some(), "{key} in {event}");
    }
    assert_eq!((&event["resource_type"], &event["resource_id"]), (&"project".into(), &a.as_str().into()));
    let rest = s.get("/api/v1/events?limit=1&offset=1&sort_order=asc&event_type=project.created").data();
    assert_eq!((&rest["events"][0]["resource_id"], &rest["pagination"]["has_more"]), (&b.as_str().into(), &false.into()));
    assert_eq!(s.get("/api/v1/events?start_date=2999-01-01").data()["pagination"]["total"], 0);
    assert_eq!(s.get("/api/v1/events?end_date=2000-01-01").data()["pagination"]["total"], 0);

    let stats = s.get("/api/v1/events/stats").data();
    assert_eq!(stats["by_type"]["project.created"], 2);
    assert_eq!(stats["by_resource"]["project"], 2);
    assert_eq!(stats["total_events"], s.get("/api/v1/events").data()["pagination"]["total"]);

    let id = event["id"].as_str().unwrap();
    assert_eq!(&s.get(&format!("/api/v1/events/{id}")).data(), event);
    assert!(s.call("DELETE", &format!("/api/v1/events/{id}"), "").data().is_null());
    assert_eq!(s.get(&format!("/api/v1/events/{id}")).code(), "event_not_found");
    assert_eq!(s.call("POST", "/api/v1/events/cleanup", r#"{"retention_days":1}"#).data(), serde_json::json!({"deleted_count": 0}));
    assert_eq!(s.call("DELETE", "/api/v1/events", "").data(), serde_json::json!({"deleted_count": stats["total_events"].as_u64().unwrap() - 1}));
}
