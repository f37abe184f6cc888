//! The commit graph over HTTP: its shape, who may see it, and what is refused.

use crate::support::Server;

#[test]
fn a_timeline_has_nodes_edges_and_pages() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    for n in ["one", "two"] {
        assert_eq!(s.call("POST", &format!("/api/v1/containers/{c}/snapshots"), &format!(r#"{{"alias":"{n}"}}"#)).status, 200);
    }
    assert_eq!(s.call("PUT", &format!("/api/v1/containers/{c}/snapshots/one"), "").status, 200);
    for path in [format!("/api/v1/containers/{c}/timeline"), format!("/api/v1/projects/{p}/timeline/")] {
        let t = s.request("GET", &path).header("Prefer", "wait=5").send().data();
        let kinds: Vec<&str> = t["nodes"].as_array().unwrap().iter().map(|n| n["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["now", "restore", "snapshot", "snapshot", "snapshot", "create"], "{t:#}");
        let node = |n: usize| &t["nodes"][n];
        assert_eq!((&node(0)["parents"][0], &node(1)["overwrote"]), (&node(1)["id"], &node(2)["id"]));
        assert_eq!(node(1)["parents"], serde_json::json!([node(4)["id"]]));
        assert_eq!((node(1)["author"].as_str(), node(1)["snapshot"].as_str()), (Some("all"), Some("one")), "the author is the token's name");
        assert_eq!((node(4)["alias"].as_str(), &node(4)["tier"], node(4)["frees_bytes"].as_u64()), (Some("one"), &serde_json::Value::Null, Some(0)));
        assert_eq!(node(0)["unsaved_bytes"].as_u64(), Some(0));
        assert!(t["edges"].as_array().unwrap().contains(&serde_json::json!({ "from": node(2)["id"], "to": node(1)["id"], "kind": "overwrote" })));
        assert_eq!((&t["outside"], &t["next_cursor"]), (&serde_json::json!([]), &serde_json::Value::Null));
        let first = s.get(&format!("{}?limit=2", path.trim_end_matches('/'))).data();
        assert_eq!(first["nodes"].as_array().unwrap().len(), 3, "two, and what is now");
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = s.get(&format!("{}?limit=2&cursor={cursor}", path.trim_end_matches('/'))).data();
        assert_eq!((&second["nodes"][0]["id"], &second["nodes"][1]["id"]), (&node(3)["id"], &node(4)["id"]));
    }
    let one = s.request("GET", &format!("/api/v1/containers/{c}/snapshots/one")).header("Prefer", "wait=5").send().data();
    assert_eq!(one["snapshot"]["frees_bytes"].as_u64(), Some(0));
    let usage = s.request("GET", &format!("/api/v1/containers/{c}/usage")).header("Prefer", "wait=5").send().data();
    assert!(usage["snapshots"].as_array().unwrap().iter().all(|s| s["frees_bytes"].is_u64()), "{usage:#}");
}

#[test]
fn bad_requests_and_what_is_not_there_are_refused() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    for of in [format!("/api/v1/containers/{c}/timeline"), format!("/api/v1/projects/{p}/timeline")] {
        for query in ["limit=0", "limit=10001", "cursor=x", "cursor=1", "cursor="] {
            let a = s.get(&format!("{of}?{query}"));
            assert_eq!((a.status, a.code().as_str()), (400, "invalid_page"), "{query}");
        }
        for query in ["limit=-1", "limit=x", "copies=x"] {
            assert_eq!(s.get(&format!("{of}?{query}")).code(), "validation_error", "{query}");
        }
    }
    let nobody = "65f0c0ffee000000000000aa";
    assert_eq!(s.get(&format!("/api/v1/containers/{nobody}/timeline")).code(), "container_not_found");
    assert_eq!(s.get(&format!("/api/v1/projects/{nobody}/timeline")).code(), "project_not_found");
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{c}/timeline"), "").status, 405);
}

#[test]
fn a_token_of_another_project_sees_no_timeline_and_no_names() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let secret = s.container(&other, "secret");
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{secret}/snapshots"), r#"{"alias":"plans"}"#).status, 200);
    let body = format!(r#"{{"target_project_id":"{mine}","name":"copy","source_snapshot":"plans"}}"#);
    let copy = s.request("POST", &format!("/api/v1/containers/{secret}/copy")).header("Prefer", "wait=10").body(&body).send().data();
    let copy = copy["id"].as_str().unwrap().to_owned();
    for read_only in [false, true] {
        let token = s.scoped(&mine, read_only);
        let get = |path: &str| s.with_token(&token, "GET", path).send();
        assert_eq!(get(&format!("/api/v1/containers/{secret}/timeline")).code(), "container_not_found");
        assert_eq!(get(&format!("/api/v1/projects/{other}/timeline")).code(), "project_not_found");
        for path in [format!("/api/v1/containers/{copy}/timeline"), format!("/api/v1/projects/{mine}/timeline")] {
            let t = get(&path).data();
            let hidden = &t["outside"][0];
            assert_eq!((&hidden["hidden"], &hidden["kind"], &hidden["container_name"]), (&true.into(), &serde_json::Value::Null, &serde_json::Value::Null));
            assert!(!t.to_string().contains("secret") && !t.to_string().contains(&secret), "{t:#}");
        }
    }
}
