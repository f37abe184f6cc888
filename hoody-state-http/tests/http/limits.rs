//! What is taken at once: connections, sessions, commands, streams, waits. Whoever takes much leaves room for the others.

use crate::errors::world_with;
use crate::support::{Answer, Server, read_head};
use hoody_state::host::Settings;
use hoody_state::model::Rights;
use hoody_state_http::limits::Limits;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A connection from another address of the loopback network.
fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let stream = RUNTIME.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Asks over a connection that is there; nothing if it is closed without an answer.
fn ask(stream: &TcpStream) -> Option<(u16, String)> {
    let mut writer = stream;
    let _ = writer.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    let mut reader = stream;
    reader.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text))
}

fn assert_refused(a: &Answer, code: &str) {
    assert_eq!((a.code().as_str(), a.header("retry-after")), (code, Some("1")), "{}", a.text());
}

#[test]
fn a_thousand_silent_connections_hold_up_neither_root_nor_the_network() {
    let s = Server::start();
    let silent: Vec<TcpStream> = (1..=8).flat_map(|host| std::iter::repeat_n(host, 200)).map(|host| connect_from(host, s.address)).collect();
    for mut c in &silent {
        // Half of a head, as slow clients of this sort send it.
        let _ = c.write_all(b"GET /healthz HTTP/1.1\r\nX-");
    }
    for over_unix in [true, false] {
        let began = Instant::now();
        let status = loop {
            let (status, retry) = if over_unix {
                (s.bare("GET", "/healthz").over_unix().send().status, false)
            } else {
                match ask(&connect_from(99, s.address)) {
                    Some((200, _)) => (200, false),
                    // They have not been idle for a second yet: the client must try again.
                    Some((503, text)) => (503, text.contains("too_many_connections") && text.contains("retry-after: 1")),
                    other => panic!("{other:?}"),
                }
            };
            if !retry {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(status, 200);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn an_address_has_its_share_of_connections() {
    let s = Server::limited(Limits { connections: 100, connections_per_address: 5, ..Limits::default() });
    let busy: Vec<TcpStream> = (0..5).map(|_| connect_from(7, s.address)).collect();
    let (status, text) = ask(&connect_from(7, s.address)).expect("the answer says why");
    assert!(status == 429 && text.contains("address_limit") && text.contains("retry-after: 1"), "{text}");
    assert_eq!(ask(&connect_from(8, s.address)).unwrap().0, 200, "another address is not concerned");
    // After a second of silence the oldest gives way.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&connect_from(7, s.address)).unwrap().0, 200);
    assert_eq!(ask(&busy[0]), None, "it was closed");
    assert_eq!(ask(&busy[4]).unwrap().0, 200, "the younger ones are still there");
    let figures = s.get("/api/v1/pool").data()["server"]["under_way"]["connections"].clone();
    assert_eq!((&figures["limit"], &figures["each"], &figures["refused"]), (&100.into(), &5.into(), &1.into()));
}

#[test]
fn sessions_without_a_token_are_few_and_short() {
    let limits = Limits { session_timeout: Duration::from_secs(1), pending_sessions: 6, pending_sessions_per_address: 4, ..Limits::default() };
    let s = Server::limited(limits);
    let path = "/api/v1/events/?EIO=4&transport=polling";
    let open_from = |host: u8| {
        let mut stream = connect_from(host, s.address);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (status, headers) = read_head(&mut BufReader::new(stream)).unwrap();
        (status, headers.iter().any(|(n, v)| n == "retry-after" && v == "1"))
    };
    for _ in 0..4 {
        assert_eq!(open_from(1).0, 200);
    }
    assert_refused(&s.bare("GET", path).send(), "address_limit");
    assert_eq!(open_from(2).0, 200);
    assert_eq!(open_from(2).0, 200);
    assert_eq!(open_from(3), (503, true), "and in all");
    // They are gone by themselves, whatever they sent.
    std::thread::sleep(Duration::from_millis(1500));
    for _ in 0..10 {
        let hello = s.bare("GET", path).send();
        assert_eq!(hello.status, 200, "{}", hello.text());
        let sid = serde_json::from_str::<serde_json::Value>(&hello.text()[1..]).unwrap()["sid"].as_str().unwrap().to_owned();
        assert_eq!(s.bare("POST", &format!("{path}&sid={sid}")).body(&format!(r#"40{{"token":"{}"}}"#, s.token)).send().status, 200);
        // One that has shown its token does not count any more.
        while !s.bare("GET", &format!("{path}&sid={sid}")).send().text().contains("40{") {}
    }
    let under_way = s.get("/api/v1/pool").data()["server"]["under_way"].clone();
    assert_eq!((&under_way["pending_sessions"]["used"], &under_way["streams"]["used"]), (&0.into(), &10.into()));
}

#[test]
fn commands_of_one_project_leave_room_for_the_others() {
    let s = Server::limited(Limits { commands: 6, commands_per_project: 4, ..Limits::default() });
    let (a, b) = (s.project("a"), s.project("b"));
    let (of_a, of_b) = (s.container(&a, "one"), s.container(&b, "two"));
    let exec = |id: &str, command: &str| s.call("POST", &format!("/api/v1/containers/{id}/exec"), &format!(r#"{{"command":{command}}}"#));
    std::thread::scope(|scope| {
        let long: Vec<_> = (0..4).map(|_| scope.spawn(|| exec(&of_a, r#"["sleep","3"]"#))).collect();
        let used = || s.get("/api/v1/pool").data()["server"]["under_way"]["commands"]["used"].as_u64().unwrap();
        while used() < 4 {}
        let began = Instant::now();
        assert_refused(&exec(&of_a, r#"["true"]"#), "exec_limit");
        assert_eq!(exec(&of_b, r#"["true"]"#).status, 200);
        assert_eq!(s.get(&format!("/api/v1/containers/{of_a}")).status, 200);
        assert_eq!(s.call("POST", &format!("/api/v1/containers/{of_a}/snapshots"), "").status, 200);
        if nix::unistd::geteuid().is_root() {
            let by_root = s.bare("POST", &format!("/api/v1/containers/{of_a}/exec")).over_unix().body(r#"{"command":["true"]}"#).send();
            assert_eq!(by_root.status, 200, "root has a reserve: {}", by_root.text());
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        long.into_iter().for_each(|l| assert_eq!(l.join().unwrap().status, 200));
        assert_eq!(exec(&of_a, r#"["true"]"#).status, 200);
    });
    let metrics = s.bare("GET", "/metrics").send().text();
    assert!(
        metrics.contains("hoody_state_under_way_limit{what=\"commands\"} 6") && metrics.contains("hoody_state_refused_total{what=\"commands\"} 1"),
        "{metrics}"
    );
}

#[test]
fn followers_and_event_streams_are_counted_and_given_back() {
    let s = Server::limited(Limits { followers: 4, followers_per_project: 2, streams: 4, streams_per_caller: 2, ..Limits::default() });
    let (a, b) = (s.project("a"), s.project("b"));
    let (of_a, of_b) = (s.container(&a, "one"), s.container(&b, "two"));
    let follow = |path: String| {
        let mut reader = s.request("GET", &path).header("Accept", "text/event-stream").open();
        assert_eq!(read_head(&mut reader).unwrap().0, 200, "{path}");
        reader
    };
    let logs = |id: &str| format!("/api/v1/containers/{id}/logs?follow=true");
    let open: Vec<_> = (0..2).flat_map(|_| [follow(logs(&of_a)), follow("/api/v1/events".into())]).collect();
    assert_refused(&s.get(&logs(&of_a)), "stream_limit");
    assert_refused(&s.request("GET", "/api/v1/events").header("Accept", "text/event-stream").send(), "stream_limit");
    drop(follow(logs(&of_b)));
    let other = s.host.create_token("other", None, Rights::Full).unwrap().1;
    let mut reader = s.with_token(&other, "GET", "/api/v1/events").header("Accept", "text/event-stream").open();
    assert_eq!(read_head(&mut reader).unwrap().0, 200, "another token has its own share");
    drop(open);
    let began = Instant::now();
    // A follower notices at its next look that nobody reads.
    while s.get("/api/v1/pool").data()["server"]["under_way"]["followers"]["used"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn waits_changes_and_uploads_of_one_token_leave_room_for_the_others() {
    let limits = Limits { waits: 2, waits_per_caller: 1, changes: 4, patience: Duration::from_millis(300), ..Limits::default() };
    let w = world_with(Settings::default(), limits);
    let s = &w.s;
    let project = s.project("p");
    let ids: Vec<String> = (0..3).map(|i| s.container(&project, &format!("box{i}"))).collect();
    let other = s.host.create_token("other", None, Rights::Full).unwrap().1;
    let snapshot = |token: &str, id: &str| s.with_token(token, "POST", &format!("/api/v1/containers/{id}/snapshots")).send();
    std::thread::scope(|scope| {
        w.faults.hold("snapshot.create");
        let held: Vec<_> = ids[..2].iter().map(|id| scope.spawn(|| snapshot(&s.token, id))).collect();
        w.faults.wait_held();
        while s.get("/api/v1/pool").data()["server"]["under_way"]["changes"]["used"] != 2 {}
        assert_refused(&snapshot(&s.token, &ids[2]), "server_busy");
        assert_eq!(s.with_token(&other, "PUT", &format!("/api/v1/containers/{}", ids[2])).body(r#"{"comment":"x"}"#).send().status, 200);

        let list = s.get("/api/v1/operations").data();
        let operation = list["operations"].as_array().unwrap().iter().find(|o| o["status"] == "running").unwrap()["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/operations/{operation}");
        let wait = |path: &str| s.request("GET", path).header("Prefer", "wait=20").send();
        let waiting = {
            let path = path.clone();
            scope.spawn(move || wait(&path))
        };
        while s.get("/api/v1/pool").data()["server"]["under_way"]["waits"]["used"] != 1 {}
        assert_refused(&wait(&path), "wait_limit");
        assert_eq!(s.get(&path).status, 200, "without a wait it is answered");
        w.faults.release();
        assert_eq!(waiting.join().unwrap().status, 200);
        held.into_iter().for_each(|h| assert_eq!(h.join().unwrap().status, 200));
    });
}

#[test]
fn uploads_are_counted() {
    let s = Server::start();
    let open: Vec<_> = (0..8)
        .map(|i| {
            let mut stream = TcpStream::connect(s.address).unwrap();
            write!(stream, "PUT /api/v1/images/up{i} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\n", s.token).unwrap();
            stream
        })
        .collect();
    let used = || s.get("/api/v1/pool").data()["server"]["under_way"]["uploads"]["used"].as_u64().unwrap();
    while used() < 8 {}
    assert_refused(&s.request("PUT", "/api/v1/images/one-more").bytes(&crate::shapes::tar()).send(), "upload_limit");
    drop(open);
    let began = Instant::now();
    while used() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "what broke off gives its place back");
    }
}

#[test]
fn a_command_whose_caller_goes_away_is_ended() {
    let s = Server::start();
    let project = s.project("p");
    let id = s.container(&project, "box");
    let used = || s.get("/api/v1/pool").data()["server"]["under_way"]["commands"]["used"].as_u64().unwrap();
    let body = r#"{"command":["sleep","60"],"timeout_ms":60000}"#;
    for close in ["", "Connection: close\r\n"] {
        let mut caller = TcpStream::connect(s.address).unwrap();
        let auth = format!("Authorization: Bearer {}\r\n{close}", s.token);
        write!(caller, "POST /api/v1/containers/{id}/exec HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        while used() == 0 {}
        drop(caller);
        let began = Instant::now();
        while used() > 0 {
            assert!(began.elapsed() < Duration::from_secs(5), "it runs on without its caller");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
