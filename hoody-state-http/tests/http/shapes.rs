//! Every route's good answer, field by field as the wire contract has it.

use crate::support::{Answer, Server};
use serde_json::{Value, json};

/// Each field of the wire's example is there, of the same type; where `exact` names it, with the same value.
fn like(got: &Value, example: &Value, exact: &[&str]) {
    for (key, want) in example.as_object().unwrap() {
        let value = got.get(key).unwrap_or_else(|| panic!("{key} is missing in {got}"));
        if exact.contains(&key.as_str()) {
            assert_eq!(value, want, "{key}");
        }
        let same = value.is_null() || want.is_null() || std::mem::discriminant(value) == std::mem::discriminant(want);
        assert!(same, "{key}: {value} is not like {want}");
        if want.as_str().is_some_and(|t| t.ends_with(".000Z")) && !value.is_null() {
            let t = value.as_str().unwrap();
            assert!(t.len() == 24 && t.ends_with('Z') && t.as_bytes()[19] == b'.', "{key}: {t}");
        }
    }
}

fn project_example() -> Value {
    json!({"id":"65f0c0ffee00000000000001","user_id":"65f0c0ffee00000000000009","alias":"web","color":"#1F6FEB",
        "max_containers":null,"is_default":false,"realm_ids":[],"created_at":"2026-11-23T10:00:00.000Z","updated_at":"2026-11-23T10:00:00.000Z"})
}

fn container_example() -> Value {
    json!({"id":"65f0c0ffee00000000000002","project_id":"65f0c0ffee00000000000001","project_alias":"web","server_id":"65f0c0ffee00000000000005",
        "server_name":"node-1","name":"dev","color":"#22AA66","container_image":"debian/13","status":"running","ai":false,"hoody_kit":false,
        "dev_kit":false,"kvm":false,"autostart":true,"ramdisk":true,"ramdisk_scope":"container","environment_vars":{},"comment":null,
        "ssh_public_key":null,"source_container_id":null,"snapshot_count":0,"last_used_snapshot":null,"realm_ids":[],
        "created_at":"2026-11-23T10:00:00.000Z","updated_at":"2026-11-23T10:00:05.000Z"})
}

#[test]
fn projects() {
    let s = Server::start();
    let made = s.call("POST", "/api/v1/projects/", r##"{"alias":"web","color":"1f6feb","realm_ids":["65f0c0ffee00000000000003"],"whatever":1}"##);
    assert_eq!(made.status, 201);
    let p = made.data();
    like(&p, &project_example(), &["alias", "color", "max_containers", "is_default", "realm_ids"]);
    let id = p["id"].as_str().unwrap();
    let list = s.get("/api/v1/projects/?page=1&limit=10&sort_by=alias&sort_order=asc&realm_id=x").data();
    assert_eq!(list, json!({"projects": [p], "pagination": {"total": 1, "page": 1, "limit": 10, "totalPages": 1}}));
    assert_eq!(s.get("/api/v1/projects").data()["pagination"]["limit"], 10);
    assert_eq!(s.get(&format!("/api/v1/projects/{id}/?include_permissions=true")).data(), p);
    for (method, alias) in [("PUT", "put"), ("PATCH", "patch")] {
        let changed = s.call(method, &format!("/api/v1/projects/{id}"), &format!(r#"{{"alias":"{alias}","max_containers":3}}"#)).data();
        assert_eq!((&changed["alias"], &changed["max_containers"], &changed["color"]), (&alias.into(), &3.into(), &"#1F6FEB".into()));
    }
    let container = s.container(id, "box");
    let gone = s.call("DELETE", &format!("/api/v1/projects/{id}?include_deleted_items=true"), "").data();
    assert_eq!(
        gone,
        json!({"deleted": {"containers": 1, "permissions": 0, "aliases": 0}, "deleted_items": {"containers": [{"id": container, "name": "box"}]}})
    );
    // Its containers are deleted in the background.
    let left = (0..500).find_map(|_| {
        let a = s.get(&format!("/api/v1/containers/{container}"));
        if a.status == 404 {
            return Some(a);
        }
        assert_eq!(a.data()["status"], "deleting");
        std::thread::sleep(std::time::Duration::from_millis(10));
        None
    });
    assert_eq!(left.map(|a| a.code()).as_deref(), Some("container_not_found"));
    let id = s.project("empty");
    let gone = s.call("DELETE", &format!("/api/v1/projects/{id}?include_deleted_items=false"), "").data();
    assert_eq!(gone, json!({"deleted": {"containers": 0, "permissions": 0, "aliases": 0}}));
}

#[test]
fn containers_as_the_cli_makes_them() {
    let s = Server::start();
    let project = s.project("web");
    let server = s.get("/api/v1/servers").data()[0]["server_id"].as_str().unwrap().to_owned();
    let body = json!({"server_id": server, "name": "dev", "container_image": "debian-13", "ai": true, "hoody_kit": true, "autostart": true, "ramdisk": true,
        "cache": true, "cache_image": false, "prespawn": false, "bypass_prespawn": false, "dev_kit": true, "environment_vars": {"A": "1"}, "color": "#22AA66"});
    let made = s.request("POST", &format!("/api/v1/projects/{project}/containers")).body(&body.to_string()).send();
    assert_eq!(made.status, 201);
    let id = made.data()["id"].as_str().unwrap().to_owned();
    s.wait_status(&id, "running");
    let c = s.get(&format!("/api/v1/containers/{id}?runtime=true&include_proxy_domains=true")).data();
    like(
        &c,
        &container_example(),
        &["project_alias", "name", "color", "container_image", "status", "hoody_kit", "dev_kit", "realm_ids", "snapshot_count", "ramdisk_scope"],
    );
    assert_eq!(c["project_id"], project.as_str());
    assert_eq!(c["server_id"], server.as_str());
    assert_eq!(c["environment_vars"], json!({"A": "1"}));
    assert!(c["lineage"]["image"] == "debian/13" && c["usage"]["referenced"].is_u64() && c["mounts"].is_array(), "{c}");

    for path in ["/api/v1/containers/".to_owned(), format!("/api/v1/projects/{project}/containers?include_expired=false")] {
        let list = s.get(&path).data();
        like(&list["containers"][0], &container_example(), &["name", "status"]);
        assert_eq!(list["pagination"], json!({"total": 1, "page": 1, "limit": 50, "totalPages": 1}));
    }
    for method in ["PUT", "PATCH"] {
        let changed = s.call(method, &format!("/api/v1/containers/{id}"), &format!(r#"{{"name":"by-{method}","comment":"text","autostart":false}}"#)).data();
        assert_eq!((&changed["name"], &changed["comment"], &changed["autostart"]), (&format!("by-{method}").into(), &"text".into(), &false.into()));
    }
    let cleared = s.call("PUT", &format!("/api/v1/containers/{id}"), r#"{"comment":null}"#).data();
    assert!(cleared["comment"].is_null() && cleared["autostart"] == false, "absent is unchanged, null clears: {cleared}");

    let logs = s.get(&format!("/api/v1/containers/{id}/status-logs?limit=5")).data();
    let row = json!({"id":"65f0c0ffee0000000000000a","container_id":id,"from_status":"creating","to_status":"running",
        "transition_time":"2026-11-23T10:02:00.000Z","duration_ms":115000,"triggered_by":"user","metadata":null});
    like(&logs["logs"][0], &row, &["container_id", "from_status", "to_status"]);
    assert_eq!(logs["pagination"]["limit"], 5);
    let stats = s.get(&format!("/api/v1/containers/{id}/stats")).data();
    let example = json!({"id": id, "project_id": project, "server_name":"node-1","status":"Running","status_code":103,
        "processes":4,"started_at":"2026-11-23T10:00:05.000Z","cpu":{},"memory":{},"disk":{},"ramdisk":{},"network":[],"processing_time":"3ms"});
    like(&stats, &example, &["id", "project_id", "status", "status_code", "network"]);
    assert!(stats["disk"]["root"]["total"].is_u64() && stats["disk"]["root"]["usage"].is_u64());
    assert_eq!(stats["ramdisk"]["capacity_reserved"], false);
    assert!(s.get(&format!("/api/v1/containers/{id}/usage")).data()["total"].is_u64());

    let deleted = s.call("DELETE", &format!("/api/v1/containers/{id}"), "").data();
    assert!(deleted.is_null());
    let after = s.get(&format!("/api/v1/containers/{id}"));
    assert!(after.status == 404 || after.data()["status"] == "deleting");
}

#[test]
fn the_life_of_a_container() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    for (verb, body, status) in [
        ("pause", "", "paused"),
        ("resume", "", "running"),
        ("restart", r#"{"timeout":5}"#, "running"),
        ("stop", r#"{"timeout":1}"#, "stopped"),
        ("start", "{}", "running"),
        ("force-stop", "", "stopped"),
    ] {
        let a = s.request("POST", &format!("/api/v1/containers/{id}/{verb}")).header("Prefer", "wait=20").body(body).send().data();
        assert_eq!(
            (&a["error"], &a["operation"], &a["container_id"], &a["project_id"]),
            (&false.into(), &verb.into(), &id.as_str().into(), &project.as_str().into())
        );
        assert!(a["message"].is_string());
        s.wait_status(&id, status);
    }
}

#[test]
fn the_environment() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let env = format!("/api/v1/containers/{id}/env");
    assert_eq!(s.get(&env).data(), json!({"environment_vars": {}}));
    assert_eq!(s.call("PUT", &env, r#"{"A":"1","B":"2"}"#).data(), json!({"environment_vars": {"A": "1", "B": "2"}, "synced": true}));
    assert_eq!(s.call("PATCH", &env, r#"{"B":"3"}"#).data()["environment_vars"], json!({"A": "1", "B": "3"}));
    assert_eq!(s.call("PUT", &env, r#"{"environment_vars":{"C":"3"}}"#).data()["environment_vars"], json!({"C": "3"}));
    for method in ["PUT", "PATCH"] {
        assert_eq!(s.call(method, &format!("{env}/D"), r#"{"value":"4"}"#).data()["environment_vars"], json!({"C": "3", "D": "4"}));
        assert_eq!(s.call("DELETE", &format!("{env}/D"), "").data()["environment_vars"], json!({"C": "3"}));
    }
    assert_eq!(s.get(&env).data(), json!({"environment_vars": {"C": "3"}}));
}

#[test]
fn snapshots_and_restore() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let base = format!("/api/v1/containers/{id}/snapshots");
    assert_eq!(s.get(&base).data(), json!({"container_id": id, "project_id": project, "snapshot_count": 0, "max_snapshots": null, "snapshots": []}));
    let made = s.call("POST", &base, r#"{"alias":"pre-auth-refactor","expiry":7,"description":"d","labels":{"a":"b"}}"#);
    assert_eq!(made.status, 200);
    let made = made.data();
    assert_eq!((&made["container_id"], &made["project_id"]), (&id.as_str().into(), &project.as_str().into()));
    let example = json!({"name":"pre-auth-refactor","alias":"pre-auth-refactor","created_at":"2026-11-23T10:05:00.000Z","last_used_at":null,
        "expires_at":"2026-11-30T10:05:00.000Z","stateful":false,"size":40960});
    like(&made["snapshot"], &example, &["name", "alias", "last_used_at", "stateful"]);
    assert_eq!((&made["snapshot"]["description"], &made["snapshot"]["labels"]), (&"d".into(), &json!({"a": "b"})));

    let one = format!("{base}/pre-auth-refactor");
    for method in ["PUT", "PATCH"] {
        let renamed = s.call(method, &format!("{one}/alias"), r#"{"alias":"other name"}"#).data();
        assert_eq!((&renamed["snapshot"]["name"], &renamed["snapshot"]["alias"]), (&"pre-auth-refactor".into(), &"other name".into()));
        assert!(s.call(method, &format!("{one}/alias"), r#"{"alias":null}"#).data()["snapshot"]["alias"].is_null());
    }
    s.call("PUT", &format!("{one}/alias"), r#"{"alias":"other name"}"#).data();
    assert_eq!(s.get(&format!("{base}/other%20name")).data()["snapshot"]["name"], "pre-auth-refactor");

    for (method, path) in [("PATCH", one.clone()), ("PUT", format!("{base}/other%20name"))] {
        let restored = s.call(method, &path, "").data();
        assert_eq!((&restored["success"], &restored["snapshot"]["name"]), (&true.into(), &"pre-auth-refactor".into()));
        assert!(restored["message"].is_string() && restored["snapshot"]["last_used_at"].is_string());
        s.wait_status(&id, "running");
        assert_eq!(s.get(&format!("/api/v1/containers/{id}")).data()["last_used_snapshot"], "pre-auth-refactor");
    }
    let undone = s.call("POST", &format!("/api/v1/containers/{id}/undo"), "").data();
    assert_eq!(undone["success"], true);
    let kept = s.call("PUT", &one, r#"{"keep_current":"kept","start":false}"#).data();
    assert!(kept["undo"].is_string());
    assert_eq!(s.get(&format!("{base}/kept")).data()["snapshot"]["alias"], "kept");

    let pinned = s.call("PUT", &format!("{one}/pin"), r#"{"reason":"release"}"#).data();
    assert_eq!(pinned["snapshot"]["pinned"], "release");
    assert_eq!(s.call("DELETE", &one, "").status, 409);
    assert!(s.call("DELETE", &format!("{one}/pin"), "").data()["snapshot"]["pinned"].is_null());
    assert_eq!(
        s.call("PUT", &format!("{one}/expiry"), r#"{"expires_at":"2099-01-01T00:00:00Z"}"#).data()["snapshot"]["expires_at"],
        "2099-01-01T00:00:00.000Z"
    );
    assert!(s.call("PUT", &format!("{one}/expiry"), r#"{"expires_at":null}"#).data()["snapshot"]["expires_at"].is_null());
    assert_eq!(s.call("DELETE", &one, "").data(), json!({"container_id": id, "project_id": project, "snapshot_name": "pre-auth-refactor"}));
    assert_eq!(s.get(&one).code(), "snapshot_not_found");
}

pub fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode) in [("bin/sh", 0o755), ("etc/os-release", 0o644)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(5);
        header.set_mode(mode);
        header.set_cksum();
        tar.append_data(&mut header, path, &b"hello"[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn images() {
    let s = Server::start();
    let made = s.request("PUT", "/api/v1/images/my/base%2F1").bytes(&tar()).send();
    assert_eq!(made.status, 201, "{}", made.text());
    let image = made.data();
    assert_eq!(
        (&image["name"], &image["alias"], &image["image_name"], &image["source"]),
        (&"my/base/1".into(), &"my/base/1".into(), &"my/base/1".into(), &"import".into())
    );
    for path in ["/api/v1/images/my/base/1", "/api/v1/images/my%2Fbase%2F1", "/api/v1/images/my/base/1/"] {
        assert_eq!(s.get(path).data(), image, "{path}");
    }
    for path in ["/api/v1/images", "/api/v1/images/public", "/api/v1/images/user/"] {
        let list = s.get(path).data();
        assert!(list["images"].as_array().unwrap().contains(&image), "{path}: {list}");
        assert_eq!(list["pagination"]["total"], 2);
    }
    let project = s.project("p");
    let id = s.container(&project, "box");
    s.call("POST", &format!("/api/v1/containers/{id}/snapshots"), r#"{"alias":"gold"}"#).data();
    let made = s.call("POST", "/api/v1/images/gold/1/from-snapshot", &format!(r#"{{"container_id":"{id}","snapshot":"gold"}}"#));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!((&made.data()["name"], &made.data()["source"]), (&"gold/1".into(), &"snapshot".into()));
    assert!(s.call("DELETE", "/api/v1/images/gold/1", "").data().is_null());
    assert_eq!(s.get("/api/v1/images/gold/1").code(), "image_not_found");
}

#[test]
fn commands_and_the_console() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let ran =
        s.call("POST", &format!("/api/v1/containers/{id}/exec"), r#"{"command":["echo","hi"],"env":{"A":"1"},"cwd":"/","stdin":"","timeout_ms":5000}"#).data();
    for key in ["exit_code", "stdout", "stderr", "truncated", "timed_out"] {
        assert!(ran.get(key).is_some(), "{ran}");
    }
    assert!(ran.get("snapshot").is_none() && ran.get("undone").is_none(), "{ran}");
    let kept = s.call("POST", &format!("/api/v1/containers/{id}/exec"), r#"{"command":["echo","hi"],"snapshot":"before"}"#).data();
    assert_eq!(s.get(&format!("/api/v1/containers/{id}/snapshots")).data()["snapshots"][0]["name"], kept["snapshot"]["name"]);
    let shown = s.call("POST", &format!("/api/v1/containers/{id}/exec"), r#"{"command":["echo","hi"],"diff":true}"#).data();
    assert!(shown.get("diff").is_some() != shown.get("diff_error").is_some() && shown.get("snapshot").is_none(), "{shown}");
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{id}/exec"), r#"{"command":["echo"],"snapshot":"after"}"#).code(), "validation_error");
    let logs = s.get(&format!("/api/v1/containers/{id}/logs?tail=10"));
    assert_eq!((logs.status, logs.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    s.request("POST", &format!("/api/v1/containers/{id}/stop")).header("Prefer", "wait=20").send().data();
    // Following a container that has ended ends.
    assert_eq!(s.get(&format!("/api/v1/containers/{id}/logs?follow=true")).status, 200);
}

#[test]
fn operations() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let list = s.get("/api/v1/operations?limit=10").data();
    assert_eq!(list["pagination"]["limit"], 10);
    let create = list["operations"].as_array().unwrap().iter().find(|o| o["resource_id"] == id.as_str()).unwrap().clone();
    for key in ["id", "kind", "resource_type", "status", "step", "done", "total", "error", "created_at", "finished_at"] {
        assert!(create.get(key).is_some(), "{key} in {create}");
    }
    let path = format!("/api/v1/operations/{}", create["id"].as_str().unwrap());
    let waited = s.request("GET", &path).header("Prefer", "wait=5").send().data();
    assert_eq!(waited["status"], "succeeded");
    assert_eq!(s.get(&path).data(), waited);
    let cancelled: Answer = s.call("DELETE", &path, "");
    assert!(cancelled.status == 200 || cancelled.status == 409, "{}", cancelled.text());
}

#[test]
fn what_the_published_clients_ask_for_beside() {
    let s = Server::start();
    let server = s.host.server();
    let row = json!({"id": server.id, "server_id": server.id, "status": "active", "server": {"id": server.id, "name": server.name}});
    assert_eq!(s.get("/api/v1/servers").data(), json!([row]));
    assert_eq!(s.get("/api/v1/rentals").data(), json!([row]));
    assert_eq!(s.get(&format!("/api/v1/servers/{}", server.id)).data(), row);
    assert_eq!(s.get("/api/v1/realms/").data(), json!({"realm_ids": [], "total": 0}));
    for path in ["/api/v1/users/auth/me", "/api/v1/users/me"] {
        assert_eq!(s.get(path).data()["id"], s.host.user().to_string());
        assert!(s.get(path).data()["username"].is_string());
    }
    let me = s.get("/api/v1/auth/tokens/me").data();
    let token = json!({"id":"65f0c0ffee00000000000001","alias":"all","prefix":"hdy_","ip_whitelist":[],"permissions":{},"is_enabled":true,
        "vault_access":false,"event_access":true,"created_at":"2026-11-23T10:00:00.000Z","updated_at":"2026-11-23T10:00:00.000Z"});
    like(&me["token"], &token, &["alias", "ip_whitelist", "permissions", "is_enabled", "vault_access", "event_access"]);
    let none = json!({"has_realm_restrictions":false,"requires_realm_scope":false,"allowed_realm_ids":[],"allow_no_realm":true,"active_realm_id":null});
    assert_eq!(me["restrictions"], none);
    let pool = s.get("/api/v1/pool").data();
    for key in ["total", "used", "free", "reserve", "health", "tasks", "reclaiming"] {
        assert!(pool.get(key).is_some(), "{pool}");
    }
}

#[test]
fn health_and_metrics() {
    let s = Server::start();
    for path in ["/healthz", "/readyz", "/healthz/"] {
        assert_eq!(s.bare("GET", path).send().data()["status"], "ok");
    }
    let project = s.project("p");
    s.container(&project, "box");
    s.get("/api/v1/containers/nope");
    let text = s.bare("GET", "/metrics").send().text();
    assert!(text.contains(r#"hoody_state_requests_total{method="POST",route="/api/v1/projects",status="201"} 1"#), "{text}");
    assert!(text.contains(r#"route="/api/v1/containers/{id}",status="400"} 1"#), "{text}");
    assert!(text.contains(r#"hoody_state_containers{status="running"} 1"#), "{text}");
    assert!(text.contains("hoody_state_operations_running 0"), "{text}");
}
