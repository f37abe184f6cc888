//! Promote and reset as a client meets them: shapes, conflicts, and tokens that must not reach one of the two containers.

use crate::copies::server;
use hoody_state::snapshot::Volume;
use serde_json::json;

#[test]
fn a_promotion_has_its_shape_and_names_its_conflicts() {
    let (s, store) = server("one");
    let p = s.project("one");
    let source = s.container(&p, "agent");
    let write = |id: &str, path: &str, data: &[u8]| store.write(&Volume::Live(id.parse().unwrap()), path, data).unwrap();
    write(&source, "a", b"one");
    write(&source, "b", b"one");
    let forked = s.call("POST", &format!("/api/v1/containers/{source}/fork"), r#"{"count":1}"#).data();
    let fork = forked["results"][0]["container"]["id"].as_str().unwrap().to_owned();
    s.wait_status(&fork, "running");
    write(&fork, "a", b"two");
    let post = |path: &str, body: &str| s.call("POST", &format!("/api/v1/containers/{fork}{path}"), body);
    let done = post("/promote", "").data();
    assert_eq!((done["fork_id"].as_str(), done["target_id"].as_str()), (Some(&*fork), Some(&*source)));
    assert_eq!((&done["changes"], &done["conflict_count"], &done["conflicts"]), (&json!(1), &json!(0), &json!([])));
    assert_eq!(done["branch_point"]["snapshot"], forked["source_snapshot"]);
    assert!(done["undo"].as_str().unwrap().starts_with("undo-") && done["success"] == true, "{done}");

    write(&fork, "b", b"two");
    write(&source, "b", b"three");
    let refused = post("/promote", "{}");
    assert_eq!((refused.status, refused.code().as_str()), (409, "promote_conflicts"));
    let conflict = json!({ "path": "/b", "fork": "modified", "target": "modified" });
    assert_eq!(refused.json()["data"], json!({ "conflicts": [conflict], "total": 1 }));
    let done = post("/promote", r#"{"prefer":"target"}"#).data();
    assert_eq!((&done["conflict_count"], &done["conflicts"], &done["undo"]), (&json!(1), &json!([conflict]), &json!(null)), "only b differs: it stays");
    assert_eq!(post("/promote", r#"{"prefer":"nobody"}"#).code(), "validation_error");
    assert_eq!(post("/promote", &json!({ "into": fork }).to_string()).code(), "validation_error");

    let done = post("/reset", "").data();
    assert_eq!((done["to"].as_str(), done["container_id"].as_str()), (Some("branch_point"), Some(&*fork)));
    assert_eq!(done["snapshot"]["name"], forked["source_snapshot"]);
    assert!(done["undo"].as_str().is_some());
    assert_eq!(post("/reset", r#"{"to":"source"}"#).data()["to"], "source");
    assert_eq!(post("/reset", r#"{"to":"nowhere"}"#).code(), "validation_error");
}

#[test]
fn a_token_must_reach_both_containers() {
    let (s, _) = server("one");
    let (p, q) = (s.project("one"), s.project("two"));
    let source = s.container(&p, "agent");
    let copied = s.call("POST", &format!("/api/v1/containers/{source}/copy"), &json!({ "target_project_id": q, "name": "copy" }).to_string());
    let copy = copied.data()["id"].as_str().unwrap().to_owned();
    s.wait_status(&copy, "running");
    let of_source = s.scoped(&p, false);
    let of_copy = s.scoped(&q, false);
    let read_only = s.scoped(&q, true);
    let call = |token: &str, path: &str, body: &str| s.with_token(token, "POST", &format!("/api/v1/containers/{copy}{path}")).body(body).send();
    for path in ["/promote", "/reset"] {
        assert_eq!(call(&of_source, path, "").code(), "container_not_found", "{path}");
        assert_eq!(call(&read_only, path, "").code(), "insufficient_permissions", "{path}");
    }
    assert_eq!(call(&of_copy, "/promote", "").code(), "source_container_not_found");
    assert_eq!(call(&of_copy, "/promote", &json!({ "into": source }).to_string()).code(), "container_not_found");
    assert_eq!(call(&of_copy, "/reset", r#"{"to":"source"}"#).code(), "source_container_not_found");
    assert_eq!(call(&of_copy, "/reset", "").status, 200, "its branch point is its own");
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{copy}/promote"), "").status, 200);
}
