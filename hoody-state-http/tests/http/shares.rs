//! Shares, as the wire contract has them.

use crate::support::Server;
use serde_json::{Value, json};

struct World {
    s: Server,
    project: String,
    owner: String,
    receiver: String,
}

fn world() -> World {
    let s = Server::start();
    let project = s.project("web");
    let (owner, receiver) = (s.container(&project, "owner"), s.container(&project, "receiver"));
    World { s, project, owner, receiver }
}

impl World {
    fn shares(&self) -> String {
        format!("/api/v1/containers/{}/storage/shares", self.owner)
    }

    fn create(&self, body: &Value) -> crate::support::Answer {
        self.s.call("POST", &self.shares(), &body.to_string())
    }

    fn docs(&self) -> Value {
        json!({ "source_path": "/hoody//storage/./docs/", "mode": "readonly", "target_container_id": self.receiver, "alias": "docs", "expires_at": 4_000_000_000u64 })
    }
}

#[test]
fn a_share_goes_through_its_life() {
    let w = world();
    let made = w.create(&w.docs());
    assert_eq!(made.status, 201, "{}", made.text());
    let h = made.data();
    let example = json!({"source_container_id": w.owner, "source_path": "/hoody/storage/docs", "target_container_id": w.receiver, "target_project_id": null,
        "target_type": "container", "mode": "readonly", "alias": "docs", "label": null, "description": null, "enabled": true, "status": "active",
        "status_message": null, "expires_at": 4_000_000_000u64, "expiry_notified": false, "realm_ids": [], "mount_path": "/hoody/shares/docs"});
    for (key, want) in example.as_object().unwrap() {
        assert_eq!(&h[key], want, "{key}");
    }
    let id = h["id"].as_str().unwrap();
    // Lists are the array itself.
    assert_eq!(w.s.get(&w.shares()).data()[0]["id"], id);
    assert_eq!(w.s.get("/api/v1/storage/shares").data().as_array().unwrap().len(), 1);
    for (query, n) in [("target_type=project", 0), ("target_type=container&enabled=true&status=active", 1), ("label=x", 0), ("include_expired=true", 1)] {
        assert_eq!(w.s.get(&format!("{}?{query}", w.shares())).data().as_array().unwrap().len(), n, "{query}");
    }
    let incoming = format!("/api/v1/containers/{}/storage/incoming", w.receiver);
    let r = w.s.get(&incoming).data()[0].clone();
    assert_eq!((&r["mount"], &r["mounted"]), (&json!(false), &json!(false)), "not before a yes");
    for hidden in ["alias", "label", "description", "expiry_notified"] {
        assert!(r.get(hidden).is_none(), "{hidden} is the owner's");
    }
    let said = w.s.call("PATCH", &format!("{incoming}/{id}/mount"), r#"{"mount":true}"#);
    assert_eq!((said.status, &said.data()["override"]["mount"], &said.data()["share"]["id"]), (200, &json!(true), &json!(id)));
    for field in ["id", "share_id", "container_id", "created_at", "updated_at"] {
        assert!(said.data()["override"][field].is_string(), "{field}");
    }
    assert_eq!(w.s.get("/api/v1/storage/incoming").data()[0]["mounted"], true);
    let detail = w.s.get(&format!("/api/v1/containers/{}", w.receiver)).data();
    assert!(detail["mounts"].as_array().unwrap().iter().any(|m| m["path"] == "/hoody/shares/docs" && m["kind"] == "share"), "{detail}");
    let one = format!("{}/{id}", w.shares());
    let changed = w.s.call("PATCH", &one, r#"{"mode":"readwrite","alias":null,"label":"book","expires_at":null,"enabled":false}"#);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let h = w.s.get(&one).data();
    assert_eq!(
        (&h["mode"], &h["alias"], &h["label"], &h["expires_at"], &h["enabled"]),
        (&json!("readwrite"), &Value::Null, &json!("book"), &Value::Null, &json!(false))
    );
    let gone = w.s.call("DELETE", &format!("/api/v1/storage/shares/{id}"), "");
    assert_eq!((gone.status, gone.data()), (200, Value::Null));
    assert_eq!(w.s.get(&one).status, 404);
    assert!(w.s.get(&incoming).data().as_array().unwrap().is_empty());
    let events = w.s.get("/api/v1/events?resource_type=storage_share&sort_order=asc").data();
    let words: Vec<&str> = events["events"].as_array().unwrap().iter().map(|e| e["event_type"].as_str().unwrap()).collect();
    assert_eq!(words, ["storage.share.created", "storage.share.mount_changed", "storage.share.updated", "storage.share.disabled", "storage.share.deleted"]);
}

#[test]
fn what_is_wrong_with_a_share_is_said_and_nothing_is_made() {
    let w = world();
    let with = |f: &dyn Fn(&mut Value)| {
        let mut body = w.docs();
        f(&mut body);
        w.create(&body)
    };
    type Case<'a> = (&'a str, u16, &'a dyn Fn(&mut Value));
    let cases: [Case; 14] = [
        ("invalid_path", 400, &|b| b["source_path"] = json!("relative")),
        ("invalid_path", 400, &|b| b["source_path"] = json!("/hoody/storage/../../etc")),
        ("invalid_path", 400, &|b| b["source_path"] = json!("/proc/1")),
        ("invalid_path", 400, &|b| b["source_path"] = json!("/ramdisk")),
        ("invalid_path", 400, &|b| b["source_path"] = json!("/hoody/shares/docs")),
        ("self_share", 400, &|b| b["target_container_id"] = json!(w.owner)),
        ("validation_error", 400, &|b| b["target_project_id"] = json!(w.project)),
        ("validation_error", 400, &|b| b["target_container_id"] = Value::Null),
        ("validation_error", 400, &|b| b["mode"] = json!("rw")),
        ("validation_error", 400, &|b| b["alias"] = json!("No")),
        ("validation_error", 400, &|b| b["unknown"] = json!(1)),
        ("validation_error", 400, &|b| b["expires_at"] = json!(1)),
        ("validation_error", 400, &|b| b["expires_at"] = json!(4_000_000_000_000u64)),
        ("container_not_found", 404, &|b| b["target_container_id"] = json!("65f0c0ffee00000000000000")),
    ];
    for (code, status, f) in cases {
        let a = with(f);
        assert_eq!((a.status, a.json()["code"].as_str()), (status, Some(code)), "{}", a.text());
    }
    assert!(w.s.get(&w.shares()).data().as_array().unwrap().is_empty());
    assert_eq!(w.create(&w.docs()).status, 201);
    let again = w.create(&w.docs());
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("share_already_exists")));
    let id = w.s.get(&w.shares()).data()[0]["id"].as_str().unwrap().to_owned();
    let third = w.s.container(&w.project, "third");
    let wrong = w.s.call("PATCH", &format!("/api/v1/containers/{third}/storage/incoming/{id}/mount"), r#"{"mount":true}"#);
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (400, Some("VALIDATION_ERROR")));
    assert_eq!(wrong.json()["data"]["target_container_id"], w.receiver);
    for body in ["", "{}", r#"{"mount":1}"#, r#"{"mount":true,"x":1}"#] {
        assert_eq!(w.s.call("PATCH", &format!("/api/v1/containers/{}/storage/incoming/{id}/mount", w.receiver), body).status, 400, "{body}");
    }
    for filter in ["target_type=x", "status=x", "enabled=x"] {
        assert_eq!(w.s.get(&format!("{}?{filter}", w.shares())).status, 400, "{filter}");
    }
}

#[test]
fn a_token_shares_only_what_it_reaches() {
    let w = world();
    let other = w.s.project("other");
    let stranger = w.s.scoped(&other, false);
    let id = w.create(&w.docs()).data()["id"].as_str().unwrap().to_owned();
    let as_stranger = |method: &str, path: &str, body: &str| w.s.with_token(&stranger, method, path).body(body).send();
    assert_eq!(as_stranger("POST", &w.shares(), &w.docs().to_string()).status, 404);
    assert_eq!(as_stranger("GET", &w.shares(), "").status, 404);
    assert_eq!(as_stranger("DELETE", &format!("/api/v1/storage/shares/{id}"), "").status, 404);
    assert!(as_stranger("GET", "/api/v1/storage/shares", "").data().as_array().unwrap().is_empty());
    assert!(as_stranger("GET", "/api/v1/storage/incoming", "").data().as_array().unwrap().is_empty());
    // Into a project that it does not reach nothing is pushed; to one container it may be offered, for that must agree.
    let inside = w.s.container(&other, "inside");
    let at = format!("/api/v1/containers/{inside}/storage/shares");
    assert_eq!(as_stranger("POST", &at, &json!({"source_path": "/a", "mode": "readonly", "target_project_id": w.project}).to_string()).status, 404);
    assert_eq!(as_stranger("POST", &at, &json!({"source_path": "/a", "mode": "readonly", "target_container_id": w.receiver}).to_string()).status, 201);
    assert_eq!(w.s.get(&w.shares()).data()[0]["id"], id, "still there");
}

#[test]
fn a_direct_share_beats_one_with_the_project() {
    let w = world();
    assert_eq!(w.create(&json!({"source_path": "/a", "mode": "readonly", "target_project_id": w.project})).status, 201);
    let incoming = || w.s.get(&format!("/api/v1/containers/{}/storage/incoming", w.receiver)).data();
    assert_eq!((incoming()[0]["target_type"].as_str(), &incoming()[0]["mounted"]), (Some("project"), &json!(true)));
    assert_eq!(w.create(&json!({"source_path": "/a", "mode": "readwrite", "target_container_id": w.receiver})).status, 201);
    assert_eq!((incoming().as_array().unwrap().len(), incoming()[0]["target_type"].as_str()), (1, Some("container")));
    assert!(w.s.get(&format!("/api/v1/containers/{}/storage/incoming", w.owner)).data().as_array().unwrap().is_empty(), "its own are left out");
    // What a deleted container shared ends with it.
    w.s.call("DELETE", &format!("/api/v1/containers/{}", w.owner), "");
    assert!(incoming().as_array().unwrap().is_empty());
}
