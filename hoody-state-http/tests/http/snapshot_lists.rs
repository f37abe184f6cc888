//! Lists of snapshots by label, time, trigger and alias; how long a snapshot is kept; rolling slots.

use crate::support::Server;
use serde_json::{Value, json};

fn names(data: &Value) -> Vec<String> {
    data["snapshots"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_list_has_what_matches_all_filters() {
    let s = Server::start();
    let id = s.container(&s.project("p"), "box");
    let at = format!("/api/v1/containers/{id}/snapshots");
    for body in [
        json!({ "alias": "one", "labels": { "env": "prod", "by": "ci" } }),
        json!({ "alias": "two", "labels": { "env": "test" } }),
        json!({ "alias": "three" }),
    ] {
        assert_eq!(s.call("POST", &at, &body.to_string()).status, 200);
    }
    let list = |query: &str| names(&s.get(&format!("{at}?{query}")).data());
    assert_eq!(list("").len(), 3);
    assert_eq!(list("label=env=prod"), ["one"]);
    assert_eq!(list("label=env%3Dprod"), ["one"]);
    assert_eq!(list("label=env"), ["two", "one"]);
    assert_eq!(list("label=env&label=by=ci"), ["one"]);
    assert_eq!(list("label=env&label=nothing"), [""; 0]);
    assert_eq!(list("label=env="), [""; 0], "an empty value is a value");
    assert_eq!(list("trigger=manual").len(), 3);
    assert_eq!(list("trigger=schedule"), [""; 0]);
    assert_eq!(list("alias=t"), ["three", "two"]);
    assert_eq!(list("since=1h").len(), 3);
    assert_eq!(list("until=1h"), [""; 0]);
    assert_eq!(list("since=2020-01-01T00:00:00Z&until=2099-01-01T00:00:00Z&label=env=test"), ["two"]);
    assert_eq!(s.get(&format!("{at}?label=env")).data()["snapshot_count"], 2);
    for (query, field) in [
        ("label==x", "label"),
        ("label=", "label"),
        ("since=yesterday", "since"),
        ("until=12", "until"),
        ("trigger=teleported", "trigger"),
        ("since=2099-01-01T00:00:00Z&until=2020-01-01T00:00:00Z", "since"),
    ] {
        let refused = s.get(&format!("{at}?{query}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "validation_error"), "{query}: {}", refused.text());
        assert_eq!(refused.json()["data"]["field"], field, "{}", refused.text());
    }
}

#[test]
fn how_long_a_snapshot_is_kept_is_said_in_one_way() {
    let s = Server::start();
    let id = s.container(&s.project("p"), "box");
    let at = format!("/api/v1/containers/{id}/snapshots");
    let hours = |data: &Value| {
        let time = |field: &str| data["snapshot"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        (time("expires_at").duration_since(time("created_at")).as_secs_f64() / 3600.0).round()
    };
    assert_eq!(hours(&s.call("POST", &at, r#"{"alias":"a","expires_in":"6h"}"#).data()), 6.0);
    assert_eq!(hours(&s.call("POST", &at, r#"{"alias":"b","expiry":2}"#).data()), 48.0);
    assert_eq!(s.call("POST", &at, r#"{"expiry":2,"expires_in":"6h"}"#).code(), "invalid_expiry");
    for bad in ["6", "h", "-1h", "0s", "99999w", "6 h", ""] {
        assert_eq!(s.call("POST", &at, &json!({ "expires_in": bad }).to_string()).code(), "validation_error", "{bad:?}");
    }
    let expiry = format!("{at}/a/expiry");
    assert_eq!(hours(&s.call("PUT", &expiry, r#"{"expires_in":"2w"}"#).data()), 336.0);
    assert_eq!(s.call("PUT", &expiry, r#"{"expires_in":"2w","expires_at":null}"#).code(), "validation_error");
    assert_eq!(s.call("PUT", &expiry, "{}").code(), "validation_error");
    assert_eq!(s.call("PUT", &expiry, r#"{"expires_at":null}"#).data()["snapshot"]["expires_at"], Value::Null);
}

#[test]
fn a_slot_keeps_those_that_it_had() {
    let s = Server::start();
    let id = s.container(&s.project("p"), "box");
    let at = format!("/api/v1/containers/{id}/snapshots");
    let roll = json!({ "alias": "slot", "on_alias_conflict": "replace", "keep_replaced": 1 }).to_string();
    for _ in 0..4 {
        assert_eq!(s.call("POST", &at, &roll).status, 200);
    }
    let data = s.get(&format!("{at}?alias=slot")).data();
    assert_eq!(data["snapshot_count"], 2);
    assert_eq!((&data["snapshots"][0]["alias"], data["snapshots"][0].get("replaced_alias")), (&json!("slot"), None));
    assert_eq!((&data["snapshots"][1]["alias"], &data["snapshots"][1]["replaced_alias"]), (&Value::Null, &json!("slot")));
    assert_eq!(s.call("POST", &at, r#"{"alias":"x","keep_replaced":1}"#).code(), "validation_error");
}
