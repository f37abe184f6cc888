//! Who may do what.

use crate::support::Server;

#[test]
fn tcp_always_needs_a_token_that_is_known() {
    let s = Server::start();
    let missing = s.bare("GET", "/api/v1/projects/").send();
    assert_eq!((missing.status, missing.code().as_str()), (401, "missing_token"));
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    for wrong in ["Bearer nope", "Bearer ", "Bearer", "Basic dTpw", "nope", "hdy_nope"] {
        let a = s.bare("GET", "/api/v1/projects/").header("Authorization", wrong).send();
        assert_eq!((a.status, a.code().as_str()), (401, "invalid_token"), "{wrong}");
    }
    for good in [format!("Bearer {}", s.token), format!("bearer {}", s.token), s.token.clone()] {
        assert_eq!(s.bare("GET", "/api/v1/projects/").header("Authorization", &good).send().status, 200, "{good}");
    }
    for open in ["/healthz", "/readyz", "/openapi.json", "/metrics"] {
        assert_eq!(s.bare("GET", open).send().status, 200, "{open}");
    }
}

#[test]
fn the_unix_socket_takes_root_without_a_token() {
    let s = Server::start();
    let a = s.bare("GET", "/api/v1/projects").over_unix().send();
    if nix::unistd::geteuid().is_root() {
        assert_eq!(a.status, 200);
        let made = s.bare("POST", "/api/v1/projects").over_unix().body(r#"{"alias":"by-root"}"#).send();
        assert_eq!(made.status, 201);
    } else {
        assert_eq!(a.code(), "missing_token");
    }
    let wrong = s.bare("GET", "/api/v1/projects").over_unix().header("Authorization", "Bearer nope").send();
    assert_eq!(wrong.code(), "invalid_token");
}

#[test]
fn a_token_of_one_project_sees_nothing_of_the_others() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let (my_container, other_container) = (s.container(&mine, "mine"), s.container(&other, "other"));
    let token = s.scoped(&mine, false);
    let call = |method: &str, path: &str, body: &str| s.with_token(&token, method, path).body(body).send();

    let listed = call("GET", "/api/v1/projects", "").data();
    assert_eq!((listed["projects"].as_array().unwrap().len(), &listed["pagination"]["total"]), (1, &1.into()));
    let listed = call("GET", "/api/v1/containers", "").data();
    assert_eq!((listed["containers"][0]["id"].as_str(), &listed["pagination"]["total"]), (Some(my_container.as_str()), &1.into()));
    assert_eq!(call("GET", &format!("/api/v1/projects/{other}"), "").code(), "project_not_found");
    assert_eq!(call("PUT", &format!("/api/v1/projects/{other}"), r#"{"alias":"x"}"#).code(), "project_not_found");
    assert_eq!(call("DELETE", &format!("/api/v1/projects/{other}"), "").code(), "project_not_found");
    assert_eq!(call("GET", &format!("/api/v1/projects/{other}/containers"), "").code(), "project_not_found");
    assert_eq!(call("POST", &format!("/api/v1/projects/{other}/containers"), "").code(), "project_not_found");
    let routes = [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("GET", "/stats"),
        ("GET", "/usage"),
        ("GET", "/status-logs"),
        ("GET", "/env"),
        ("PUT", "/env"),
        ("GET", "/logs"),
        ("GET", "/snapshots"),
        ("POST", "/snapshots"),
        ("PATCH", "/snapshots/x"),
        ("DELETE", "/snapshots/x"),
        ("POST", "/undo"),
        ("POST", "/snapshots/x/restore-files"),
    ];
    for (method, path) in routes {
        assert_eq!(call(method, &format!("/api/v1/containers/{other_container}{path}"), "").code(), "container_not_found", "{method} {path}");
    }
    assert_eq!(call("GET", &format!("/api/v1/containers/{my_container}"), "").status, 200);
    assert_eq!(call("POST", &format!("/api/v1/containers/{my_container}/snapshots"), "").status, 200);

    let events = call("GET", "/api/v1/events?limit=500", "").data();
    assert!(!events["events"].as_array().unwrap().is_empty());
    assert!(!events.to_string().contains(&other), "{events}");
    let foreign = s.get(&format!("/api/v1/events?resource_id={other_container}")).data()["events"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(call("GET", &format!("/api/v1/events/{foreign}"), "").code(), "event_not_found");
    assert_eq!(call("GET", "/api/v1/events/stats", "").data()["total_events"], events["pagination"]["total"]);

    let all = s.get("/api/v1/operations").data();
    let foreign =
        all["operations"].as_array().unwrap().iter().find(|o| o["resource_id"] == other_container.as_str()).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(call("GET", &format!("/api/v1/operations/{foreign}"), "").code(), "operation_not_found");
    assert!(!call("GET", "/api/v1/operations", "").data().to_string().contains(&other_container));

    for (method, path, body) in [
        ("POST", "/api/v1/projects", r#"{"alias":"new"}"#),
        ("PUT", "/api/v1/images/x", ""),
        ("DELETE", "/api/v1/images/debian/13", ""),
        ("POST", "/api/v1/images/x/from-snapshot", r#"{"container_id":"65f0c0ffee00000000000001","snapshot":"x"}"#),
        ("DELETE", "/api/v1/events", ""),
        ("POST", "/api/v1/events/cleanup", r#"{"retention_days":1}"#),
    ] {
        let a = call(method, path, body);
        assert_eq!((a.status, a.code().as_str()), (403, "insufficient_permissions"), "{method} {path}");
    }
}

#[test]
fn a_read_only_token_changes_nothing() {
    let s = Server::start();
    let token = s.host.create_token("reader", None, hoody_state::model::Rights::ReadOnly).unwrap().1;
    let call = |method: &str, path: &str| s.with_token(&token, method, path).body("{}").send();
    assert_eq!(call("GET", "/api/v1/projects").status, 200);
    let id = "65f0c0ffee00000000000001";
    for (method, path) in [
        ("POST", "/api/v1/projects".to_owned()),
        ("PUT", format!("/api/v1/projects/{id}")),
        ("PATCH", format!("/api/v1/containers/{id}")),
        ("POST", format!("/api/v1/containers/{id}/start")),
        ("POST", format!("/api/v1/containers/{id}/exec")),
        ("PATCH", format!("/api/v1/containers/{id}/snapshots/x")),
        ("DELETE", format!("/api/v1/containers/{id}/snapshots/x")),
        ("POST", format!("/api/v1/containers/{id}/snapshots/x/restore-files")),
        ("PUT", "/api/v1/images/x".to_owned()),
        ("DELETE", "/api/v1/events".to_owned()),
    ] {
        let a = call(method, &path);
        assert_eq!((a.status, a.code().as_str()), (403, "insufficient_permissions"), "{method} {path}");
    }
    let me = call("GET", "/api/v1/auth/tokens/me").data();
    assert_eq!(me["token"]["alias"], "reader");
    assert_eq!(me["restrictions"]["has_realm_restrictions"], false);
}

#[test]
fn a_revoked_token_is_out_at_once() {
    let s = Server::start();
    let (row, token) = s.host.create_token("short", None, hoody_state::model::Rights::Full).unwrap();
    assert_eq!(s.with_token(&token, "GET", "/api/v1/projects").send().status, 200);
    s.host.revoke_token(row.id.as_str()).unwrap();
    assert_eq!(s.with_token(&token, "GET", "/api/v1/projects").send().code(), "invalid_token");
}

#[test]
fn the_hosts_network_is_a_right_of_its_own() {
    let s = Server::start();
    let project = s.project("p");
    let path = format!("/api/v1/projects/{project}/containers");
    let body = r#"{"name":"open","network":"host"}"#;
    // The token that reaches everything has it no more than one of this project.
    for token in [s.token.clone(), s.scoped(&project, false)] {
        let a = s.with_token(&token, "POST", &path).body(body).send();
        assert_eq!((a.status, a.code().as_str()), (403, "host_network_denied"), "{}", a.text());
        assert_eq!(s.with_token(&token, "POST", &path).body(r#"{"network":"none"}"#).send().status, 201);
    }
    let project_id = project.parse().unwrap();
    let (_, allowed) = s.host.create_token("network", Some(vec![project_id]), hoody_state::model::Rights::FullAndHostNetwork).unwrap();
    let made = s.with_token(&allowed, "POST", &path).body(body).send().data();
    let id = made["id"].as_str().unwrap();
    s.wait_status(id, "running");
    // A copy of it would be another such container.
    for (verb, body) in [("copy", format!(r#"{{"target_project_id":"{project}"}}"#)), ("fork", r#"{"count":1}"#.to_owned())] {
        let path = format!("/api/v1/containers/{id}/{verb}");
        assert_eq!(s.call("POST", &path, &body).code(), "host_network_denied", "{verb}");
        assert_eq!(s.with_token(&allowed, "POST", &path).body(&body).send().status, 201, "{verb}");
    }
    if nix::unistd::geteuid().is_root() {
        assert_eq!(s.bare("POST", &path).over_unix().body(r#"{"name":"by-root","network":"host"}"#).send().status, 201);
    }
}

#[test]
fn a_server_without_the_hosts_network_gives_it_to_nobody() {
    let settings = hoody_state::host::Settings { host_network: hoody_state::host::HostNetwork::Never, ..Default::default() };
    let w = crate::errors::world_with(settings, hoody_state_http::limits::Limits::default());
    let project = w.s.project("p");
    let (_, allowed) = w.s.host.create_token("network", None, hoody_state::model::Rights::FullAndHostNetwork).unwrap();
    let path = format!("/api/v1/projects/{project}/containers");
    assert_eq!(w.s.with_token(&allowed, "POST", &path).body(r#"{"network":"host"}"#).send().code(), "host_network_denied");
}
