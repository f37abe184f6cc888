//! The OpenAPI document: committed, true, complete.

use crate::support::Server;
use hoody_state_http::error_map;
use serde_json::Value;
use std::path::Path;

fn served(s: &Server) -> String {
    s.bare("GET", "/openapi.json").send().text()
}

#[test]
fn the_committed_document_is_the_served_one() {
    let s = Server::start();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, served(&s)).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == served(&s), "docs/openapi.json is out of date: run the tests with UPDATE_OPENAPI=1 and commit it");
    assert_eq!(s.bare("GET", "/api/v1/openapi.json").send().text(), committed);
}

#[test]
fn every_route_in_the_document_answers_and_lists_its_errors() {
    let s = Server::start();
    let document: Value = serde_json::from_str(&served(&s)).unwrap();
    let mut operation_ids = Vec::new();
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch"] {
            let Some(operation) = item.get(method) else { continue };
            routes += 1;
            operation_ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let id = if path.contains("/operations/") { "65f0c0ffee00000000000000000000ff" } else { "65f0c0ffee000000000000ff" };
            let url = path.replace("{id}", id).replace("{operation}", "start").replace("{name}", "no-such-one").replace("{key}", "K");
            for url in [url.clone(), format!("{url}/")] {
                let a = s.request(&method.to_uppercase(), &url).send();
                let code = if a.status >= 400 { a.code() } else { String::new() };
                assert!(code != "route_not_found" && code != "method_not_allowed", "{method} {url}: {}", a.text());
            }
            if path.starts_with("/api/v1/") {
                for status in ["401", "500"] {
                    assert!(operation["responses"].get(status).is_some(), "{method} {path} lacks {status}");
                }
            }
        }
    }
    assert!(routes > 50, "{routes}");
    let all = operation_ids.len();
    operation_ids.sort();
    operation_ids.dedup();
    assert_eq!(operation_ids.len(), all, "operation ids must be unique");
}

#[test]
fn every_code_stands_in_the_document() {
    let s = Server::start();
    let document: Value = serde_json::from_str(&served(&s)).unwrap();
    let description = document["components"]["schemas"]["ErrorBody"]["properties"]["code"]["description"].as_str().unwrap();
    for code in error_map::documented() {
        assert!(description.contains(&format!("`{code}`")), "{code}");
    }
}
