//! Merging equal data as a client meets it: what is gained, and tokens that must not ask for it.

use crate::copies::server;
use hoody_state::snapshot::Volume;
use serde_json::json;

const ROUTE: &str = "/api/v1/pool/dedupe";

#[test]
fn what_was_written_twice_is_gained_once() {
    let (s, store) = server("one");
    let (p, q) = (s.project("one"), s.project("two"));
    let (a, b, c) = (s.container(&p, "one-a"), s.container(&p, "one-b"), s.container(&q, "two-c"));
    for id in [&a, &b, &c] {
        store.write(&Volume::Live(id.parse().unwrap()), "big", &[7; 100_000]).unwrap();
        store.write(&Volume::Live(id.parse().unwrap()), "small", &[8; 5000]).unwrap();
    }
    assert_eq!(s.get(ROUTE).data()["last"], json!(null));
    let post = |body: &str| s.request("POST", ROUTE).header("Prefer", "wait=20").body(body).send();
    let used = || s.get("/api/v1/pool").data()["used"].as_u64().unwrap();
    let before = used();
    let done = post(&json!({ "project_id": p, "min_size": "10K" }).to_string()).data();
    let result = &done["result"];
    assert_eq!((&result["gained_bytes"], &result["project_id"], &result["cancelled"]), (&json!(100_000), &json!(p), &json!(false)), "{done}");
    assert_eq!(used(), before - 100_000);
    assert_eq!((&s.get(ROUTE).data()["last"], &done["operation_id"]), (result, &result["operation_id"]));
    let operation = s.get(&format!("/api/v1/operations/{}", done["operation_id"].as_str().unwrap())).data();
    assert_eq!((&operation["kind"], &operation["resource_type"], &operation["status"]), (&json!("pool.dedupe"), &json!("project"), &json!("succeeded")));
    let events = s.get("/api/v1/events?event_type=pool.deduped").data();
    assert_eq!(events["events"][0]["payload"]["result"]["gained_bytes"], json!(100_000), "{events}");
    // A snapshot holds its data.
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{c}/snapshots"), "").status, 200);
    let named = post(&json!({ "containers": [a, c] }).to_string()).data();
    assert_eq!(named["result"]["gained_bytes"], json!(5000), "what a shares with b, and c with its snapshot, stays: {named}");
    let all = post("").data();
    assert_eq!(all["result"]["gained_bytes"], json!(100_000 + 5000), "{all}");
    assert_eq!(post("{}").data()["result"]["gained_bytes"], json!(0), "a second run gains nothing");
}

#[test]
fn bad_requests_are_refused() {
    let (s, _) = server("one");
    let (p, q) = (s.project("one"), s.project("two"));
    let c = s.container(&p, "one-a");
    let nobody = "65f0c0ffee000000000000aa";
    for (body, code) in [
        (json!({ "project_id": nobody }), "project_not_found"),
        (json!({ "project_id": "x" }), "invalid_id_format"),
        (json!({ "containers": [nobody] }), "container_not_found"),
        (json!({ "containers": ["x"] }), "invalid_id_format"),
        (json!({ "project_id": q, "containers": [c] }), "container_not_found"),
        (json!({ "min_size": "many" }), "validation_error"),
        (json!({ "min_size": -1 }), "validation_error"),
        (json!({ "dry_run": true }), "validation_error"),
        (json!({ "containers": vec![c.clone(); 10_001] }), "validation_error"),
    ] {
        assert_eq!(s.call("POST", ROUTE, &body.to_string()).code(), code, "{}", &body.to_string()[..60.min(body.to_string().len())]);
    }
    assert_eq!(s.call("DELETE", ROUTE, "").status, 405);
}

#[test]
fn a_token_of_a_project_merges_data_of_its_project_alone() {
    let (s, _) = server("one");
    let (p, q) = (s.project("one"), s.project("two"));
    let (mine, other) = (s.container(&p, "one-a"), s.container(&q, "two-b"));
    let (token, reader) = (s.scoped(&p, false), s.scoped(&p, true));
    let call = |token: &str, body: &serde_json::Value| s.with_token(token, "POST", ROUTE).header("Prefer", "wait=20").body(&body.to_string()).send();
    for body in [json!({}), json!({ "containers": [] }), json!({ "min_size": 5 })] {
        assert_eq!(call(&token, &body).code(), "insufficient_permissions", "{body}");
    }
    assert_eq!(call(&token, &json!({ "project_id": q })).code(), "project_not_found");
    assert_eq!(call(&token, &json!({ "containers": [mine, other] })).code(), "container_not_found");
    assert_eq!(call(&token, &json!({ "project_id": p, "containers": [other] })).code(), "container_not_found");
    assert_eq!(call(&reader, &json!({ "project_id": p })).code(), "insufficient_permissions");
    let done = call(&token, &json!({ "containers": [mine] })).data();
    assert_eq!(done["result"]["project_id"], json!(p));
    let last = |token: &str| s.with_token(token, "GET", ROUTE).send().data()["last"].clone();
    assert_eq!(last(&token), done["result"]);
    // What concerns others is not shown.
    assert_eq!(s.request("POST", ROUTE).header("Prefer", "wait=20").send().status, 200);
    assert_eq!(last(&token), json!(null));
    assert!(s.get(ROUTE).data()["last"].is_object());
}
