//! The OpenAPI document: committed, true, complete.

use crate::support::Server;
use hoody_state::Code;
use hoody_state_http::{error_map, exit};
use serde_json::Value;
use std::fmt::Write as _;
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
            let url =
                path.replace("{id}", id).replace("{operation}", "start").replace("{name}", "no-such-one").replace("{path}", "etc/hosts").replace("{key}", "K");
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

/// `docs/errors.md`, made from the table of codes.
fn page() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
        This page is generated from the table in `hoody-state/src/error/table.rs`: run `make openapi` after a change there.\n\n\
        An error has a code, which is a stable word for programs, and a message for people. Compare codes, never messages. New versions may add codes. \
        *Again* says whether the same request may succeed if it is sent again unchanged.\n\n\
        ## Codes of the HTTP API\n\n\
        *Exit* is the exit code of the client `hoody-state`. *error* is the word in the field `error` of the answer, where that is not the phrase of the status.\n\n\
        | code | status | error | again | exit | what it means, and what to do |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let again = |code: Code| if code.retryable() { "yes" } else { "no" };
    for code in error_map::documented() {
        let word = error_map::word(code).map_or_else(String::new, |w| format!("`{w}`"));
        let (status, exit) = (error_map::status(code), exit::client::of(code));
        let _ = writeln!(page, "| `{code}` | {status} | {word} | {} | {exit} | {} |", again(code), code.sentence());
    }
    page += "\n## Codes of the programs and of the library\n\n\
        The server's program and its tools, the databases' daemon and the library use these too. A request meets few of them; it then has the status given here. \
        *Exit* is the exit code of the server's program `hoody-state-http`.\n\n\
        | code | status | again | exit | what it means, and what to do |\n| --- | --- | --- | --- | --- |\n";
    let mut others: Vec<Code> = Code::ALL.iter().copied().filter(|c| !c.in_api()).collect();
    others.sort_by_key(|c| c.as_str());
    for code in others {
        let _ = writeln!(page, "| `{code}` | {} | {} | {} | {} |", error_map::status(code), again(code), exit::server(code), code.sentence());
    }
    page
}

#[test]
fn the_page_of_error_codes_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page(), "docs/errors.md is out of date: run `make openapi` and commit it");
}
