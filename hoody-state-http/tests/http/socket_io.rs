//! The published live stream, packet by packet as the SDK's client sends them.

use crate::support::Server;

const PATH: &str = "/api/v1/events/?EIO=4&transport=polling";

/// Opens a session without any header, as the clients do; its id.
fn open(s: &Server) -> String {
    let hello = s.bare("GET", &format!("{PATH}&t=abc")).send();
    assert_eq!(hello.status, 200, "{}", hello.text());
    let packet: serde_json::Value = serde_json::from_str(hello.text().strip_prefix('0').unwrap()).unwrap();
    assert_eq!(packet["upgrades"], serde_json::json!([]), "polling is all there is");
    packet["sid"].as_str().unwrap().to_owned()
}

fn send(s: &Server, sid: &str, packet: &str) -> u16 {
    s.bare("POST", &format!("{PATH}&sid={sid}")).body(packet).send().status
}

/// Polls until a packet begins so.
fn receive(s: &Server, sid: &str, begin: &str) -> String {
    for _ in 0..20 {
        let text = s.bare("GET", &format!("{PATH}&sid={sid}")).send().text();
        if let Some(p) = text.split('\u{1e}').find(|p| p.starts_with(begin)) {
            return p.to_owned();
        }
    }
    panic!("no packet {begin}");
}

fn connect(s: &Server, token: &str) -> String {
    let sid = open(s);
    assert_eq!(send(s, &sid, &format!(r#"40{{"token":"{token}"}}"#)), 200);
    sid
}

#[test]
fn events_come_as_messages() {
    let s = Server::start();
    let project = s.project("web");
    let sid = connect(&s, &s.token);
    receive(&s, &sid, "40{");
    let id = s.container(&project, "dev");
    let mut seen = Vec::new();
    while !seen.iter().any(|e: &serde_json::Value| e["event"] == "container.running") {
        let text = s.bare("GET", &format!("{PATH}&sid={sid}")).send().text();
        for p in text.split('\u{1e}').filter_map(|p| p.strip_prefix("42")) {
            let p: serde_json::Value = serde_json::from_str(p).unwrap();
            assert_eq!(p[0], "message");
            seen.push(p[1].clone());
        }
    }
    let e = seen.iter().find(|e| e["event"] == "container.running").unwrap();
    assert_eq!((&e["type"], &e["data"]["container"]["id"], &e["data"]["resource_type"]), (&"event".into(), &id.as_str().into(), &"container".into()));
    assert!(e["eventId"].as_str().unwrap().len() == 24 && e["timestamp"].as_str().unwrap().ends_with('Z'), "{e}");
}

#[test]
fn a_token_sees_its_own_projects_and_a_bad_one_nothing() {
    let s = Server::start();
    let (mine, other) = (s.project("mine"), s.project("other"));
    let sid = connect(&s, "nonsense");
    assert!(receive(&s, &sid, "44").contains("token"), "a connect error says why");
    let sid = open(&s);
    assert_eq!(send(&s, &sid, "40"), 200);
    receive(&s, &sid, "44");
    let sid = connect(&s, &s.scoped(&mine, true));
    receive(&s, &sid, "40{");
    s.container(&other, "hidden");
    s.container(&mine, "shown");
    let first = receive(&s, &sid, "42");
    assert!(first.contains("shown") && !first.contains("hidden"), "{first}");
}

#[test]
fn a_lost_session_is_400_and_rubbish_harms_nothing() {
    let s = Server::start();
    let lost = s.bare("GET", &format!("{PATH}&sid=AAAAAAAAAAAAAAAA")).send();
    assert_eq!(lost.status, 400);
    assert!(lost.text().contains("Session ID unknown"), "{}", lost.text());
    for path in ["/api/v1/events/?EIO=3&transport=polling", "/api/v1/events/?EIO=4", "/api/v1/events?EIO=4&transport=websocket"] {
        assert_eq!(s.bare("GET", path).send().status, 400, "{path}");
    }
    let sid = open(&s);
    for packet in ["", "x", "42[", "40{\"token\":", "4", "\u{1e}\u{1e}", "6", "451-[\"x\",{\"_placeholder\":true,\"num\":0}]"] {
        send(&s, &sid, packet);
    }
    let sid = open(&s);
    assert_eq!(s.bare("POST", &format!("{PATH}&sid={sid}")).bytes(&vec![b'4'; 1 << 20]).send().status, 413);
    // The list still asks for its token in the header.
    assert_eq!(s.bare("GET", "/api/v1/events/").send().status, 401);
    assert_eq!(s.get("/api/v1/events/").status, 200);
}
