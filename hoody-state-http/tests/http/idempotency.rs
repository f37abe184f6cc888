//! The same key and request gives the first answer again.

use crate::support::Server;

#[test]
fn the_same_request_is_done_once_and_another_is_refused() {
    let s = Server::start();
    let post = |key: &str, alias: &str| s.request("POST", "/api/v1/projects").header("Idempotency-Key", key).body(&format!(r#"{{"alias":"{alias}"}}"#)).send();
    let first = post("k1", "one");
    assert_eq!(first.status, 201);
    let again = post("k1", "one");
    assert_eq!((again.status, again.data()), (201, first.data()));
    let other = post("k1", "two");
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(s.get("/api/v1/projects").data()["pagination"]["total"], 1);
    // Another token's keys are other keys.
    let token = s.host.create_token("second", None, hoody_state::model::Rights::Full).unwrap().1;
    let a = s.with_token(&token, "POST", "/api/v1/projects").header("Idempotency-Key", "k1").body(r#"{"alias":"three"}"#).send();
    assert_eq!(a.status, 201);
}

#[test]
fn keys_are_visible_ascii_of_1_to_255() {
    let s = Server::start();
    let post = |key: &str| s.request("POST", "/api/v1/projects").header("Idempotency-Key", key).body(r#"{"alias":"x"}"#).send();
    for bad in ["", "a b", "ä", &"x".repeat(256)] {
        let a = post(bad);
        assert_eq!((a.status, a.code().as_str()), (400, "invalid_idempotency_key"), "{bad:?}");
    }
    assert_eq!(post(&"x".repeat(255)).status, 201);
}

#[test]
fn snapshots_restores_and_containers_take_keys_too() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let base = format!("/api/v1/containers/{id}/snapshots");
    let keyed = |method: &str, path: &str, key: &str, body: &str| s.request(method, path).header("Idempotency-Key", key).body(body).send();
    let first = keyed("POST", &base, "s", r#"{"alias":"a"}"#).data();
    assert_eq!(keyed("POST", &base, "s", r#"{"alias":"a"}"#).data(), first);
    assert_eq!(keyed("POST", &base, "s", r#"{"alias":"b"}"#).code(), "idempotency_key_reused");
    assert_eq!(s.get(&base).data()["snapshot_count"], 1);

    let path = format!("{base}/a");
    let restored = keyed("PATCH", &path, "r", "").data();
    let count = s.get(&base).data()["snapshot_count"].clone();
    assert_eq!(keyed("PATCH", &path, "r", "").data()["undo"], restored["undo"]);
    assert_eq!(s.get(&base).data()["snapshot_count"], count);

    let containers = format!("/api/v1/projects/{project}/containers");
    let made = keyed("POST", &containers, "c", r#"{"name":"second"}"#).data();
    assert_eq!(keyed("POST", &containers, "c", r#"{"name":"second"}"#).data()["id"], made["id"]);
}

#[test]
fn of_many_at_once_one_is_done() {
    let s = Server::start();
    let made: Vec<(u16, String)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let a = s.request("POST", "/api/v1/projects").header("Idempotency-Key", "same").body(r#"{"alias":"once"}"#).send();
                    (a.status, a.text())
                })
            })
            .collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(made.iter().all(|(status, _)| *status == 201 || *status == 409), "{made:?}");
    assert!(made.iter().any(|(status, _)| *status == 201));
    assert_eq!(s.get("/api/v1/projects").data()["pagination"]["total"], 1);
}
