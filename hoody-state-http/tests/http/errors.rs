//! Every documented code is produced.

use crate::support::{Answer, Server};
use hoody_state_http::error_map::CODES;
use std::collections::BTreeMap;

/// Codes that a sound memory host cannot be brought to: they are produced by the tests of the places named.
const ELSEWHERE: &[(&str, &str)] = &[];

struct Seen(BTreeMap<String, u16>);

impl Seen {
    fn expect(&mut self, code: &str, answer: &Answer) {
        assert_eq!(answer.code(), code, "{}", answer.text());
        self.0.insert(code.to_owned(), answer.status);
    }
}

#[test]
fn every_documented_code_is_produced_with_its_status() {
    let s = Server::start();
    let mut seen = Seen(BTreeMap::new());
    requests(&s, &mut seen);
    things(&s, &mut seen);
    snapshots(&s, &mut seen);
    for row in CODES {
        if ELSEWHERE.iter().any(|(code, _)| *code == row.code) {
            continue;
        }
        assert_eq!(seen.0.get(row.code), Some(&row.status), "{} is documented with {}", row.code, row.status);
    }
}

fn requests(s: &Server, seen: &mut Seen) {
    let id = "65f0c0ffee000000000000ff";
    seen.expect("missing_token", &s.bare("GET", "/api/v1/projects").send());
    seen.expect("invalid_token", &s.with_token("x", "GET", "/api/v1/projects").send());
    seen.expect("invalid_credentials", &s.bare("POST", "/api/v1/users/auth/login").body(r#"{"username":"a","password":"b"}"#).send());
    let reader = s.host.create_token("reader", None, true).unwrap().1;
    seen.expect("insufficient_permissions", &s.with_token(&reader, "POST", "/api/v1/projects").send());
    seen.expect("route_not_found", &s.get("/api/v1/nothing"));
    seen.expect("method_not_allowed", &s.call("DELETE", "/api/v1/projects", ""));
    seen.expect("validation_error", &s.call("POST", "/api/v1/projects", "{}"));
    seen.expect("invalid_id_format", &s.get("/api/v1/containers/x"));
    for query in ["page=0", "limit=0", "limit=101", "sort_order=up", "sort_by=nothing"] {
        seen.expect("invalid_page", &s.get(&format!("/api/v1/projects?{query}")));
    }
    for query in ["page=x", "limit=", "limit=1.5"] {
        seen.expect("validation_error", &s.get(&format!("/api/v1/containers?{query}")));
    }
    for query in ["limit=501", "limit=0", "offset=-1", "sort_by=id"] {
        seen.expect("invalid_page", &s.get(&format!("/api/v1/events?{query}")));
    }
    seen.expect("validation_error", &s.get("/api/v1/events?start_date=soon"));
    seen.expect("validation_error", &s.call("POST", "/api/v1/events/cleanup", r#"{"retention_days":366}"#));
    seen.expect("socket_io_unavailable", &s.get("/api/v1/events/?EIO=4&transport=polling&t=x"));
    seen.expect("invalid_idempotency_key", &s.request("POST", "/api/v1/projects").header("Idempotency-Key", "a b").send());
    seen.expect("request_too_large", &s.request("POST", "/api/v1/projects").bytes(&vec![b' '; (1 << 20) + 1]).send());
    seen.expect("project_not_found", &s.get(&format!("/api/v1/projects/{id}")));
    seen.expect("container_not_found", &s.get(&format!("/api/v1/containers/{id}")));
    seen.expect("operation_not_found", &s.get("/api/v1/operations/65f0c0ffee00000000000000000000ff"));
    seen.expect("event_not_found", &s.get(&format!("/api/v1/events/{id}")));
    seen.expect("unknown_server", &s.get(&format!("/api/v1/servers/{id}")));
    seen.expect("image_not_found", &s.get("/api/v1/images/nope"));
}

fn things(s: &Server, seen: &mut Seen) {
    let project = s.project("one");
    seen.expect("duplicate_alias", &s.call("POST", "/api/v1/projects", r#"{"alias":"one"}"#));
    seen.expect("invalid_alias_format", &s.call("POST", "/api/v1/projects", r#"{"alias":""}"#));
    seen.expect("invalid_color_format", &s.call("POST", "/api/v1/projects", r#"{"alias":"x","color":"red"}"#));
    seen.expect("invalid_quota_value", &s.call("POST", "/api/v1/projects", r#"{"alias":"x","max_containers":-1}"#));
    let containers = format!("/api/v1/projects/{project}/containers");
    let id = s.container(&project, "box");
    seen.expect("container_name_in_use", &s.call("POST", &containers, r#"{"name":"box"}"#));
    seen.expect("invalid_container_name", &s.call("POST", &containers, r#"{"name":"a b c"}"#));
    seen.expect("invalid_container_name", &s.call("POST", &containers, r#"{"name":"ab"}"#));
    seen.expect("image_not_found", &s.call("POST", &containers, r#"{"container_image":"nope"}"#));
    seen.expect("unknown_server", &s.call("POST", &containers, r#"{"server_id":"65f0c0ffee000000000000ff"}"#));
    let one = format!("/api/v1/containers/{id}");
    for timeout in ["0", "601", "-1"] {
        seen.expect("validation_error", &s.call("POST", &format!("{one}/stop"), &format!(r#"{{"timeout":{timeout}}}"#)));
    }
    seen.expect("operation_state_conflict", &s.call("POST", &format!("{one}/start"), ""));
    seen.expect("validation_error", &s.call("POST", &format!("{one}/exec"), r#"{"command":[]}"#));
    seen.expect("validation_error", &s.call("POST", &format!("{one}/exec"), "{}"));
    seen.expect("validation_error", &s.get(&format!("{one}/logs?tail=-1")));
    seen.expect("validation_error", &s.call("PUT", &format!("{one}/env"), r#"{"A":1}"#));
    seen.expect("validation_error", &s.call("PUT", &format!("{one}/env/A"), &format!(r#"{{"value":"{}"}}"#, "x".repeat(32769))));
    seen.expect("environment_variable_not_found", &s.call("DELETE", &format!("{one}/env/NOPE"), ""));
    s.call("PUT", &one, r#"{"ssh_public_key":"ssh-ed25519 AAAA"}"#).data();
    seen.expect("ssh_public_key_in_use", &s.call("POST", &containers, r#"{"name":"second","ssh_public_key":"ssh-ed25519 AAAA"}"#));
    s.call("PUT", &format!("/api/v1/projects/{project}"), r#"{"alias":"one","max_containers":1}"#).data();
    seen.expect("project_container_limit", &s.call("POST", &containers, "{}"));
    let keyed = |alias: &str| s.request("POST", "/api/v1/projects").header("Idempotency-Key", "k").body(&format!(r#"{{"alias":"{alias}"}}"#)).send();
    keyed("k1").data();
    seen.expect("idempotency_key_reused", &keyed("k2"));
    seen.expect("reserved_image_name", &s.call("PUT", "/api/v1/images/public", ""));
    seen.expect("invalid_image_name", &s.call("PUT", "/api/v1/images/a/../b", ""));
}

fn snapshots(s: &Server, seen: &mut Seen) {
    let project = s.project("snapshots");
    let id = s.container(&project, "box");
    let base = format!("/api/v1/containers/{id}/snapshots");
    seen.expect("snapshot_not_found", &s.get(&format!("{base}/nope")));
    seen.expect("snapshot_not_found", &s.call("PATCH", &format!("{base}/a%2Fb"), ""));
    for expiry in ["0", "0.5", "3651", "-1", "1e9"] {
        seen.expect("invalid_expiry", &s.call("POST", &base, &format!(r#"{{"alias":"x","expiry":{expiry}}}"#)));
    }
    assert_eq!(s.get(&base).data()["snapshot_count"], 0, "nothing was made");
    seen.expect("invalid_alias", &s.call("POST", &base, &format!(r#"{{"alias":"{}"}}"#, "x".repeat(101))));
    s.call("POST", &base, r#"{"alias":"x"}"#).data();
    seen.expect("alias_in_use", &s.call("POST", &base, r#"{"alias":"x"}"#));
    seen.expect("validation_error", &s.call("PUT", &format!("{base}/x/alias"), "{}"));
    seen.expect("validation_error", &s.call("PUT", &format!("{base}/x/expiry"), r#"{"expires_at":"soon"}"#));
    s.call("PUT", &format!("{base}/x/pin"), "{}").data();
    seen.expect("snapshot_pinned", &s.call("DELETE", &format!("{base}/x"), ""));
}
