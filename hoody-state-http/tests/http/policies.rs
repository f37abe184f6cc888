//! Snapshot policies over HTTP: inheritance, preview, what is refused, and who may do it.

use crate::support::Server;
use serde_json::{Value, json};

const DAILY: &str =
    r#"{"timezone":"Europe/Berlin","schedules":[{"name":"daily","cron":"0 3 * * *","keep":{"daily":7,"monthly":12},"spread":"10m"}],"on":{"stop":true}}"#;

#[test]
fn the_nearest_policy_applies_as_a_whole() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    let (of_server, of_project, of_container) =
        ("/api/v1/snapshot-policy".to_owned(), format!("/api/v1/projects/{p}/snapshot-policy"), format!("/api/v1/containers/{c}/snapshot-policy"));
    assert_eq!(s.get(&of_container).data(), json!({ "policy": null, "inherited_from": null, "next_runs": [], "warnings": [] }));

    let set = s.call("PUT", &of_server, r#"{"schedules":[{"name":"weekly","cron":"@weekly","keep":{"weekly":4},"max_age":"2w"}]}"#).data();
    assert_eq!((set["inherited_from"].as_str(), set["policy"]["timezone"].as_str()), (Some("server"), Some("UTC")));
    assert!(set["warnings"][0].as_str().unwrap().contains("max_age (14d)"), "{set:#}");
    assert_eq!(s.get(&of_project).data()["inherited_from"], "server");
    assert_eq!(s.get(&of_container).data()["next_runs"][0]["schedule"], "weekly");

    let set = s.call("PUT", &format!("{of_project}/"), DAILY).data();
    assert_eq!(
        set["policy"],
        json!({
            "timezone": "Europe/Berlin",
            "schedules": [{ "name": "daily", "cron": "0 3 * * *", "keep": { "daily": 7, "monthly": 12 }, "spread": "10m", "only_if_changed": false, "while": "any" }],
            "on": { "stop": true }
        })
    );
    let shown = s.get(&of_container).data();
    assert_eq!((shown["inherited_from"].as_str(), shown["policy"] == set["policy"]), (Some("project"), true));
    // The start in the spread is the container's own: between 3:00 and 3:10 in Berlin.
    let at = shown["next_runs"][0]["at"].as_str().unwrap();
    assert!(["T01:0", "T02:0"].iter().any(|hour| at.contains(hour)), "{at}");

    let off = s.call("PUT", &of_container, "{}").data();
    assert_eq!((off["inherited_from"].as_str(), &off["next_runs"]), (Some("container"), &json!([])));
    assert_eq!(s.call("DELETE", &of_container, "").data()["inherited_from"], "project");
    assert_eq!(s.call("DELETE", &of_project, "").data()["inherited_from"], "server");
    assert_eq!(s.call("DELETE", &of_server, "").data()["policy"], Value::Null);
    assert_eq!(s.call("DELETE", &of_server, "").status, 200, "what is gone already is no error");
}

#[test]
fn a_preview_says_why_each_snapshot_is_kept() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    let preview = format!("/api/v1/containers/{c}/snapshot-policy/preview");
    assert_eq!(s.call("POST", &preview, "").data(), json!({ "snapshots": [], "next_runs": [], "warnings": [] }));
    assert_eq!(s.call("POST", &format!("/api/v1/containers/{c}/snapshots"), r#"{"alias":"by-hand"}"#).status, 200);

    let body = format!(r#"{{"policy":{DAILY},"simulate_days":10}}"#);
    let shown = s.request("POST", &preview).body(&body).send().data();
    let snapshot = &shown["snapshots"][0];
    assert_eq!(
        (snapshot["snapshot"].as_str(), snapshot["action"].as_str(), snapshot["protected_by"].as_str(), &snapshot["reasons"]),
        (Some("by-hand"), Some("keep"), Some("manual"), &json!([]))
    );
    assert_eq!(shown["next_runs"][0]["schedule"], "daily");
    let days = shown["days"].as_array().unwrap();
    assert_eq!(days.len(), 10);
    let last = &days[9];
    assert_eq!((&last["others"], last["snapshots"].as_array().unwrap().len() >= 7), (&json!(1), true), "{last:#}");
    assert_eq!(last["snapshots"][0]["schedule"], "daily");
    // Nothing was set.
    assert_eq!(s.get(&format!("/api/v1/containers/{c}/snapshot-policy")).data()["policy"], Value::Null);
    assert_eq!(s.get(&format!("/api/v1/containers/{c}/snapshots")).data()["snapshot_count"], 1);
}

#[test]
fn a_policy_that_is_wrong_is_refused_and_its_field_named() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    let of_container = format!("/api/v1/containers/{c}/snapshot-policy");
    let schedule = |extra: &str| format!(r#"{{"schedules":[{{"name":"s",{extra}}}]}}"#);
    let cases = [
        (schedule(r#""cron":"@daily","keep":{}"#), "schedules[0].keep"),
        (schedule(r#""cron":"0 0 30 2 *","keep":{"last":1}"#), "schedules[0].cron"),
        (schedule(r#""cron":"@daily","keep":{"daily":1},"max_age":"7"}"#), "schedules[0].max_age"),
        (schedule(r#""cron":"@daily","keep":{"dayly":1}"#), "schedules[0].keep.dayly"),
        (schedule(r#""cron":"@daily","keep":{"daily":1},"alias_pattern":"{x}""#), "schedules[0].alias_pattern"),
        (schedule(r#""cron":"@daily","keep":{"daily":1},"while":"stopped""#), "schedules[0].while"),
        (r#"{"timezone":"Mars/Olympus"}"#.to_owned(), "timezone"),
        (r#"{"time_zone":"UTC"}"#.to_owned(), "time_zone"),
        (r#"{"on":{"stop":"yes"}}"#.to_owned(), "on.stop"),
        (r#"{"on":{"restore":{"max_age":"2d","keep":3}}}"#.to_owned(), "on.restore.keep"),
    ];
    for (body, field) in cases {
        for (method, path, body, field) in [
            ("PUT", of_container.clone(), body.clone(), field.to_owned()),
            ("PUT", "/api/v1/snapshot-policy".to_owned(), body.clone(), field.to_owned()),
            ("POST", format!("{of_container}/preview"), format!(r#"{{"policy":{body}}}"#), format!("policy.{field}")),
        ] {
            let a = s.call(method, &path, &body);
            assert_eq!((a.status, a.code().as_str()), (400, "validation_error"), "{body}: {}", a.text());
            assert_eq!(a.json()["data"]["field"], field, "{body}: {}", a.text());
        }
    }
    for days in ["0", "401", "-1", "1.5", "\"7\""] {
        let a = s.call("POST", &format!("{of_container}/preview"), &format!(r#"{{"simulate_days":{days}}}"#));
        assert_eq!((a.code().as_str(), a.json()["data"]["field"].as_str()), ("validation_error", Some("simulate_days")), "{days}");
    }
    assert_eq!(s.get(&of_container).data()["policy"], Value::Null, "what was refused changed nothing");
    let nobody = "65f0c0ffee000000000000aa";
    for (method, path) in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/preview")] {
        assert_eq!(s.call(method, &format!("/api/v1/containers/{nobody}/snapshot-policy{path}"), "{}").code(), "container_not_found", "{method}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(s.call(method, &format!("/api/v1/projects/{nobody}/snapshot-policy"), "{}").code(), "project_not_found", "{method}");
    }
}

#[test]
fn a_policy_is_switched_off_by_a_policy_and_not_by_an_empty_body() {
    let s = Server::start();
    let p = s.project("p");
    let c = s.container(&p, "agent");
    for place in [format!("/api/v1/containers/{c}"), format!("/api/v1/projects/{p}"), "/api/v1".to_owned()] {
        let place = format!("{place}/snapshot-policy");
        assert_eq!(s.call("PUT", &place, DAILY).status, 200);
        for empty in ["", " \n\t"] {
            let a = s.call("PUT", &place, empty);
            assert_eq!((a.status, a.code().as_str(), a.json()["data"]["field"].as_str()), (400, "validation_error", Some("body")), "{place}: {}", a.text());
            assert!(a.text().contains("schedules"), "it says what to send instead: {}", a.text());
        }
        assert_eq!(s.get(&place).data()["policy"]["schedules"][0]["name"], "daily", "{place}: what was refused changed nothing");
        for off in ["{}", r#"{"schedules":[]}"#] {
            assert_eq!(s.call("PUT", &place, off).data()["policy"], json!({ "timezone": "UTC", "schedules": [], "on": {} }), "{place}");
        }
    }
}

#[test]
fn a_token_reaches_the_policies_of_its_own_projects_alone() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let (my_container, other_container) = (s.container(&mine, "mine"), s.container(&other, "other"));
    let token = s.scoped(&mine, false);
    let call = |method: &str, path: &str| s.with_token(&token, method, path).body("{}").send();
    for (method, path) in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/preview")] {
        let hidden = call(method, &format!("/api/v1/containers/{other_container}/snapshot-policy{path}"));
        assert_eq!(hidden.code(), "container_not_found", "{method} {path}");
        assert_eq!(call(method, &format!("/api/v1/containers/{my_container}/snapshot-policy{path}")).status, 200, "{method} {path}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(call(method, &format!("/api/v1/projects/{other}/snapshot-policy")).code(), "project_not_found", "{method}");
        assert_eq!(call(method, &format!("/api/v1/projects/{mine}/snapshot-policy")).status, 200, "{method}");
        let of_server = call(method, "/api/v1/snapshot-policy");
        assert_eq!((of_server.status, of_server.code().as_str()), (403, "insufficient_permissions"), "{method}");
    }
    let read_only = s.scoped(&mine, true);
    for (method, path) in [("PUT", "containers"), ("DELETE", "containers")] {
        let refused = s.with_token(&read_only, method, &format!("/api/v1/{path}/{my_container}/snapshot-policy")).body("{}").send();
        assert_eq!(refused.code(), "insufficient_permissions", "{method}");
    }
    assert_eq!(s.with_token(&read_only, "GET", &format!("/api/v1/containers/{my_container}/snapshot-policy")).send().status, 200);
}
