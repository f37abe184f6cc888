//! The trash over HTTP, and who reaches what is in it.

use crate::support::Server;
use hoody_state::Caller;
use hoody_state::model::{PolicyTarget, SnapshotPolicy};
use serde_json::{Value, json};

/// A container that was deleted and can be recovered.
fn deleted(s: &Server, project: &str, name: &str) -> String {
    let id = s.container(project, name);
    let policy: SnapshotPolicy = serde_json::from_value(json!({ "on": { "before_delete": { "max_age": "7d" } } })).unwrap();
    s.host.set_snapshot_policy(&Caller::default(), &PolicyTarget::Container(id.parse().unwrap()), &policy).unwrap();
    let answer = s.call("DELETE", &format!("/api/v1/containers/{id}"), "");
    assert_eq!((answer.status, answer.data()), (200, Value::Null), "the published answer stays as it is");
    for _ in 0..200 {
        if s.get(&format!("/api/v1/trash/{id}")).status == 200 {
            return id;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{id} is not in the trash");
}

#[test]
fn a_token_of_another_project_neither_sees_nor_recovers_nor_deletes_what_is_in_the_trash() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let (own, foreign) = (deleted(&s, &mine, "own"), deleted(&s, &other, "foreign"));
    let token = s.scoped(&mine, false);
    let call = |method: &str, path: &str, body: &str| s.with_token(&token, method, path).body(body).send();
    let listed = call("GET", "/api/v1/trash", "").data();
    assert_eq!((listed["containers"][0]["id"].as_str(), &listed["pagination"]["total"]), (Some(own.as_str()), &json!(1)));
    for (method, path) in [("GET", ""), ("POST", "/recover"), ("DELETE", "")] {
        assert_eq!(call(method, &format!("/api/v1/trash/{foreign}{path}"), "").code(), "trash_not_found", "{method} {path}");
    }
    let into_other = json!({ "project_id": other }).to_string();
    assert_eq!(call("POST", &format!("/api/v1/trash/{own}/recover"), &into_other).code(), "project_not_found");
    let reader = s.scoped(&mine, true);
    for (method, path) in [("POST", "/recover"), ("DELETE", "")] {
        let refused = s.with_token(&reader, method, &format!("/api/v1/trash/{own}{path}")).send();
        assert_eq!(refused.code(), "insufficient_permissions", "{method} {path}");
    }
    assert_eq!(s.get("/api/v1/trash").data()["pagination"]["total"], 2, "nothing was changed");
    assert_eq!(call("POST", &format!("/api/v1/trash/{own}/recover"), "").status, 200);
    assert_eq!(call("GET", &format!("/api/v1/containers/{own}"), "").data()["status"], "stopped");
}

#[test]
fn a_recovery_that_is_repeated_with_its_key_gets_the_same_answer() {
    let s = Server::start();
    let id = deleted(&s, &s.project("p"), "box");
    let path = format!("/api/v1/trash/{id}/recover");
    let again = || s.request("POST", &path).header("Idempotency-Key", "once").body(r#"{"name":"back"}"#).send();
    let (first, second) = (again(), again());
    assert_eq!((first.status, first.data()), (200, second.data()));
    assert_eq!((&first.data()["container"]["name"], &first.data()["snapshot_count"]), (&json!("back"), &json!(0)));
    assert_eq!(s.call("POST", &path, "").code(), "trash_not_found");
    assert_eq!(s.call("DELETE", &format!("/api/v1/containers/{id}?trash=false"), "").status, 200);
    assert_eq!(s.get("/api/v1/trash").data()["containers"], json!([]));
}
