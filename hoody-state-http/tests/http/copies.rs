//! Copies as a client meets them, on one server and between two over real sockets.

use crate::support::Server;
use hoody_state::Code;
use hoody_state::HostBuilder;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::ServerId;
use hoody_state::model::Server as Name;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state_http::transport::HttpTransport;
use serde_json::Value;
use std::sync::Arc;

pub fn server(name: &str) -> (Server, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let freezer = Arc::new(MemoryFreezer::new());
    let runtime = Arc::new(MemoryRuntime::with_freezer(freezer.clone()));
    let builder = HostBuilder::new(None, store.clone(), freezer, runtime).unwrap();
    let builder = builder.server(Name { id: ServerId::generate(), name: name.into() }).transport(Arc::new(HttpTransport::new()));
    let s = Server::over(builder.open().unwrap());
    assert_eq!(s.request("PUT", "/api/v1/images/debian/13").bytes(&crate::shapes::tar()).send().status, 201);
    (s, store)
}

/// Two servers that know each other by address and token.
pub fn pair() -> [(Server, Arc<MemoryStore>); 2] {
    let both = [server("one"), server("two")];
    for (a, b) in [(0, 1), (1, 0)] {
        let token = both[b].0.host.create_token("peer", None, hoody_state::model::Rights::Replication).unwrap().1;
        let url = format!("http://{}", both[b].0.address);
        let answer = both[a].0.call("POST", "/api/v1/peers", &format!(r#"{{"url":"{url}","token":"{token}"}}"#));
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(!answer.text().contains(&token) && !both[a].0.get("/api/v1/peers").text().contains(&token));
    }
    both
}

fn id(v: &Value) -> String {
    v["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_copy_has_the_published_shape_and_takes_what_the_cli_sends() {
    let s = Server::start();
    let (p, q) = (s.project("one"), s.project("two"));
    let c = s.container(&p, "box");
    s.call("POST", &format!("/api/v1/containers/{c}/snapshots"), r#"{"alias":"a"}"#).data();
    // As the published CLI has it.
    let body =
        format!(r#"{{"target_project_id":"{q}","name":"copy-1","source_snapshot":"a","copy_firewall_rules":false,"copy_network_rules":false,"kvm":false}}"#);
    let a = s.call("POST", &format!("/api/v1/containers/{c}/copy"), &body);
    assert_eq!(a.status, 201, "{}", a.text());
    let copy = a.data();
    assert!(["copying", "running"].contains(&copy["status"].as_str().unwrap()));
    assert_eq!((copy["source_container_id"].as_str(), copy["project_id"].as_str(), copy["name"].as_str()), (Some(&*c), Some(&*q), Some("copy-1")));
    s.wait_status(&id(&copy), "running");
    assert_eq!(s.get(&format!("/api/v1/containers/{}/snapshots", id(&copy))).data()["snapshot_count"], 1);
    let a = s.request("POST", &format!("/api/v1/containers/{}/sync", id(&copy))).header("Content-Type", "application/json").send();
    let v = a.data();
    assert_eq!((a.status, v["container_id"].as_str(), v["source_container_id"].as_str()), (200, Some(&*id(&copy)), Some(&*c)));
    assert!(v["operation_id"].as_str().is_some());
    s.wait_status(&id(&copy), "running");
    let forked = s.call("POST", &format!("/api/v1/containers/{c}/fork"), r#"{"count":3,"source_snapshot":"a","name_prefix":"try"}"#);
    assert_eq!((forked.status, forked.data()["results"].as_array().unwrap().len()), (201, 3));
}

#[test]
fn a_token_of_one_project_copies_within_it_alone() {
    let s = Server::start();
    let (p, q) = (s.project("one"), s.project("two"));
    let c = s.container(&p, "box");
    let token = s.scoped(&p, false);
    let copy = |target: &str, more: &str| {
        s.with_token(&token, "POST", &format!("/api/v1/containers/{c}/copy")).body(&format!(r#"{{"target_project_id":"{target}"{more}}}"#)).send()
    };
    assert_eq!(copy(&q, "").code(), "project_not_found");
    assert_eq!(copy(&p, r#","target_server_id":"65f0c0ffee000000000000ff""#).code(), "insufficient_permissions");
    assert_eq!(copy(&p, "").status, 201);
    let other = s.scoped(&q, false);
    let a = s.with_token(&other, "POST", &format!("/api/v1/containers/{c}/copy")).body(&format!(r#"{{"target_project_id":"{q}"}}"#)).send();
    assert_eq!(a.code(), "source_container_not_found", "{}", a.text());
    for path in ["/api/v1/peers", "/api/v1/replication/call"] {
        assert_eq!(s.with_token(&token, if path.ends_with("call") { "POST" } else { "GET" }, path).send().code(), "insufficient_permissions");
    }
}

#[test]
fn a_replication_token_is_good_for_replication_and_nothing_else() {
    let s = Server::start();
    let token = s.host.create_token("peer", None, hoody_state::model::Rights::Replication).unwrap().1;
    for (method, path) in
        [("GET", "/api/v1/projects"), ("GET", "/api/v1/peers"), ("DELETE", "/api/v1/projects/65f0c0ffee000000000000ff"), ("GET", "/api/v1/events")]
    {
        assert_eq!(s.with_token(&token, method, path).send().code(), "insufficient_permissions", "{path}");
    }
    let hello = s.with_token(&token, "POST", "/api/v1/replication/call").body(r#"{"call":"hello"}"#).send();
    assert_eq!(hello.data()["server"]["id"].as_str(), Some(s.host.server().id.as_str()));
    assert_eq!(s.bare("POST", "/api/v1/replication/call").body(r#"{"call":"hello"}"#).send().code(), "missing_token");
    for rubbish in ["", "{}", r#"{"call":"explode"}"#, r#"{"call":"copy"}"#, "[1]", "x"] {
        assert_eq!(s.with_token(&token, "POST", "/api/v1/replication/call").body(rubbish).send().code(), "validation_error", "{rubbish}");
    }
    let none = r#"{"container":"65f0c0ffee000000000000ff","copy":"65f0c0ffee000000000000fe","snapshot":"x","databases":false,"base":null}"#;
    assert_eq!(s.with_token(&token, "POST", "/api/v1/replication/stream").body(none).send().code(), "token_not_bound");
    let hello = r#"{"call":"hello","from":"65f0c0ffee000000000000aa"}"#;
    assert_eq!(s.with_token(&token, "POST", "/api/v1/replication/call").body(hello).send().status, 200);
    assert_eq!(s.with_token(&token, "POST", "/api/v1/replication/stream").body(none).send().code(), "container_not_found");
    let traversal = none.replace("\"x\"", "\"../../live\"");
    assert_eq!(s.with_token(&token, "POST", "/api/v1/replication/stream").body(&traversal).send().code(), "validation_error");
}

#[test]
fn two_servers_copy_sync_and_move_over_http() {
    let [(one, a), (two, b)] = pair();
    assert_eq!(one.get("/api/v1/servers").data().as_array().unwrap().len(), 2);
    let p = one.project("web");
    let c = one.container(&p, "box");
    let live = |id: &str| hoody_state::snapshot::Volume::Live(id.parse().unwrap());
    a.write(&live(&c), "state", b"first").unwrap();
    let target = two.host.server().id;
    let body = format!(r#"{{"target_project_id":"{p}","target_server_id":"{target}","name":"standby"}}"#);
    let made = one.call("POST", &format!("/api/v1/containers/{c}/copy"), &body);
    assert_eq!(made.status, 201, "{}", made.text());
    let copy = id(&made.data());
    assert_eq!(made.data()["server_name"], "two");
    // The unmodified clients poll where they ordered it.
    one.wait_status(&copy, "running");
    two.wait_status(&copy, "running");
    assert_eq!(b.read(&live(&copy), "state").unwrap().unwrap(), b"first");

    a.write(&live(&c), "state", b"second").unwrap();
    let synced = two.request("POST", &format!("/api/v1/containers/{copy}/sync")).header("Prefer", "wait=20").send().data();
    assert_eq!((synced["changed"].as_bool(), b.read(&live(&copy), "state").unwrap().unwrap()), (Some(true), b"second".to_vec()));
    let operation = two.get(&format!("/api/v1/operations/{}", synced["operation_id"].as_str().unwrap())).data();
    assert_eq!((operation["kind"].as_str(), operation["status"].as_str()), (Some("container.sync"), Some("succeeded")));

    let body = format!(r#"{{"target_server_id":"{target}","name":"moved"}}"#);
    let moved = one.request("POST", &format!("/api/v1/containers/{c}/move")).header("Prefer", "wait=20").body(&body).send();
    assert_eq!(moved.status, 200, "{}", moved.text());
    assert!(moved.data()["downtime_ms"].as_u64().is_some(), "{}", moved.text());
    one.wait_status(&c, "stopped");
    two.wait_status(moved.data()["target_container_id"].as_str().unwrap(), "running");
    for s in [&one, &two] {
        assert!(s.host.check(false).unwrap().is_empty());
    }
    // Gone there, it is gone here.
    two.call("DELETE", &format!("/api/v1/containers/{copy}"), "").data();
    for _ in 0..500 {
        if two.get(&format!("/api/v1/containers/{copy}")).status == 404 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(one.get(&format!("/api/v1/containers/{copy}")).code(), "container_not_found");
}

/// Over TLS, with the certificate that the other server made for itself pinned; another's is refused.
#[test]
fn a_peer_is_trusted_by_the_certificate_that_was_given() {
    use hoody_state::transfer::{PeerAddress, Request, Transport};
    use hoody_state_http::tls::Identity;
    let dir = tempfile::tempdir().unwrap();
    let [right, wrong] = ["right", "wrong"].map(|n| Identity::own(&dir.path().join(n)));
    for i in [&right, &wrong] {
        i.make(&["localhost".into(), "127.0.0.1".into()]).unwrap();
    }
    let host = hoody_state::Host::in_memory().unwrap();
    let token = host.create_token("peer", None, hoody_state::model::Rights::Replication).unwrap().1;
    let (ready, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let acceptor = right.acceptor().unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(tcp.local_addr().unwrap()).unwrap();
            let api = hoody_state_http::Api::new(host, Default::default());
            hoody_state_http::serve::serve(&api, Some(tcp), Some(acceptor), None, async {
                let _ = stopped.await;
            })
            .await;
        });
    });
    let port = address.recv().unwrap().port();
    let transport = HttpTransport::new();
    let ask = |url: String, ca: Option<String>| {
        let peer = PeerAddress { name: "it".into(), url, token: token.clone(), ca };
        transport.call(&peer, &Request::Hello { from: None }, std::time::Duration::from_secs(5)).map(drop).map_err(|e| e.code())
    };
    assert_eq!(ask(format!("https://127.0.0.1:{port}"), Some(right.pem().unwrap())), Ok(()));
    assert_eq!(ask(format!("https://localhost:{port}"), Some(right.pem().unwrap())), Ok(()));
    assert_eq!(ask(format!("https://127.0.0.1:{port}"), Some(wrong.pem().unwrap())), Err(Code::PeerUnreachable));
    assert_eq!(ask(format!("https://127.0.0.1:{port}"), None), Err(Code::PeerUnreachable), "no public authority signed it");
    assert_eq!(ask(format!("http://127.0.0.1:{port}"), None), Err(Code::PeerUnreachable), "nothing is said in the clear");
    assert_eq!(ask(format!("https://127.0.0.1:{port}"), Some("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----".into())), Err(Code::ValidationError));
    drop(stop);
    thread.join().unwrap();
}
