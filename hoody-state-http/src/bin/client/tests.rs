//! The client against a small server with fixed answers that records the requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::args::Cli;
use crate::failure::{Failure, Outcome, exit};
use crate::http::{DEFAULT_URL, Target, segment};
use crate::resolve::{Named, pick};
use crate::{confirm, events, output, run};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

mod changes;
mod space;

const ID: &str = "65f0c0ffee00000000000002";

#[derive(Debug, Clone)]
struct Asked {
    line: String,
    head: String,
    body: Vec<u8>,
}

type Answer = (u16, &'static str, String);

struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

fn ok(data: &Value) -> Answer {
    (200, "application/json", json!({ "statusCode": 200, "message": "ok", "data": data }).to_string())
}

fn refused(status: u16, code: &str) -> Answer {
    (status, "application/json", json!({ "statusCode": status, "error": "Some Phrase", "message": "it cannot be", "code": code }).to_string())
}

fn serve(stream: impl Read + Write, answer: &Answer, asked: &Mutex<Vec<Asked>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let lower = head.to_ascii_lowercase();
    if lower.contains("expect: 100-continue") {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    }
    assert!(!lower.contains("transfer-encoding"), "{lower}");
    let mut body = vec![];
    if let Some(n) = lower.lines().find_map(|l| l.strip_prefix("content-length: ")) {
        body.resize(n.trim().parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    }
    asked.lock().unwrap().push(Asked { line: head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned(), head: lower, body });
    let (status, kind, text) = answer;
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
    let _ = stream.get_mut().write_all(answer.as_bytes());
}

impl Fake {
    /// Answers so many calls, in this order.
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = asked.clone();
        std::thread::spawn(move || answers.iter().for_each(|a| serve(listener.accept().unwrap().0, a, &seen)));
        Fake { url, asked }
    }

    fn call(&self, args: &[&str]) -> (Outcome<u8>, String) {
        let mut out = vec![];
        let all = ["hoody-state", "--url", &self.url, "--token", "hdy_secret"].into_iter().chain(args.iter().copied());
        let result = run(Cli::try_parse_from(all).unwrap(), &mut out, false);
        (result, String::from_utf8(out).unwrap())
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.line).collect()
    }
}

fn containers() -> Value {
    json!({ "containers": [
        { "id": ID, "name": "dev", "project_alias": "web", "status": "running", "container_image": "debian/13", "snapshot_count": 2, "created_at": "2026-11-23T10:00:00.000Z" },
        { "id": "65f0c0ffee00000000000003", "name": "dev", "project_alias": "api", "status": "stopped" },
        { "id": "65f0c0ffee00000000000004", "name": "only", "project_alias": "api", "status": "stopped" },
    ], "pagination": { "total": 3, "page": 1, "limit": 100, "totalPages": 1 } })
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
    let good: [&[&str]; 9] = [
        &["container", "exec", "dev", "-e", "A=b=c", "--", "ls", "-l"],
        &["container", "create", "--project", "p", "--cpu", "0.5", "--", "/bin/sh", "-c", "x"],
        &["container", "logs", "-f", "-n", "5", "dev"],
        &["snapshot", "expire", "dev", "s", "--in", "7"],
        &["snapshot", "rename", "dev", "s", "--none"],
        &["-o", "json", "project", "list"],
        &["project", "delete", "p", "--yes"],
        &["image", "import", "debian/13", "-"],
        &["completions", "bash"],
    ];
    for args in good {
        Cli::try_parse_from(["hoody-state"].iter().chain(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }
    let bad: [&[&str]; 9] = [
        &[],
        &["container"],
        &["container", "exec", "dev"],
        &["container", "exec", "dev", "ls"],
        &["container", "env", "dev", "novalue"],
        &["snapshot", "expire", "dev", "s"],
        &["snapshot", "expire", "dev", "s", "--in", "7", "--never"],
        &["snapshot", "create", "dev", "--expiry", "0"],
        &["--url", "http://x", "--socket", "/y", "pool", "show"],
    ];
    for args in bad {
        assert_eq!(Cli::try_parse_from(["hoody-state"].iter().chain(args)).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn a_flag_wins_over_the_environment() {
    let env = |pairs: &'static [(&str, &str)]| move |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
    let both = env(&[("HOODY_STATE_URL", "http://env:1/"), ("HOODY_STATE_SOCKET", "/env")]);
    let one = || vec![PathBuf::from("/run/one/api.sock")];
    assert_eq!(Target::choose(None, None, env(&[]), Vec::new).unwrap(), Target::Url(DEFAULT_URL.into()));
    assert_eq!(Target::choose(None, None, env(&[("HOODY_STATE_URL", "http://env:1/")]), Vec::new).unwrap(), Target::Url("http://env:1".into()));
    assert_eq!(Target::choose(None, None, both, one).unwrap(), Target::Socket("/env".into()));
    assert_eq!(Target::choose(Some("http://flag"), None, both, one).unwrap(), Target::Url("http://flag".into()));
    assert_eq!(Target::choose(None, Some(Path::new("/flag")), both, one).unwrap(), Target::Socket("/flag".into()));
    for bad in ["ftp://x", "x:1", "http://", "https://"] {
        assert_eq!(Target::choose(Some(bad), None, env(&[]), Vec::new).unwrap_err().exit, exit::USAGE, "{bad}");
    }
    assert_eq!(Target::choose(None, None, env(&[]), one).unwrap(), Target::Socket("/run/one/api.sock".into()));
    assert_eq!(Target::choose(None, None, env(&[("HOODY_STATE_URL", "http://env:1")]), one).unwrap(), Target::Url("http://env:1".into()));
    let e = Target::choose(None, None, env(&[]), || vec!["/run/a/api.sock".into(), "/run/b/api.sock".into()]).unwrap_err();
    assert!(e.exit == exit::USAGE && e.message.contains("--socket /run/a/api.sock") && e.message.contains("/run/b/"), "{}", e.message);
}

#[test]
fn names_are_resolved_and_ambiguity_is_an_error() {
    let named = |id: &str, place: &str, name: &str| Named { id: id.into(), name: name.into(), place: place.into() };
    let all = [named("1", "web", "dev"), named("2", "api", "dev"), named("3", "a/b", "only")];
    assert_eq!(pick("container", "only", &all).unwrap(), "3");
    assert_eq!(pick("container", "api/dev", &all).unwrap(), "2");
    assert_eq!(pick("container", "a/b/only", &all).unwrap(), "3");
    assert_eq!(pick("container", ID, &[]).unwrap(), ID);
    assert_eq!(pick("container", "nope", &all).unwrap_err().exit, exit::NOT_FOUND);
    let e = pick("container", "dev", &all).unwrap_err();
    assert!(e.exit == exit::CONFLICT && e.message.contains("1  web/dev") && e.message.contains("2  api/dev"), "{e}");
    assert_eq!(segment("a b/ü.-"), "a%20b%2F%C3%BC.-");
    assert_eq!(segment(".."), "%2E%2E");
}

#[test]
fn lists_are_tables_or_json() {
    let fake = Fake::new(vec![ok(&containers()), ok(&containers())]);
    let (result, out) = fake.call(&["container", "list"]);
    assert_eq!(result, Ok(0));
    assert_eq!(out.lines().next().unwrap(), "ID                        PROJECT  NAME  STATUS   IMAGE      SNAPSHOTS  CREATED");
    assert!(out.contains("65f0c0ffee00000000000002  web      dev   running  debian/13  2          2026-11-23 10:00:00Z\n"), "{out}");
    let (_, out) = fake.call(&["container", "list", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[2]["name"], "only");
    let asked = fake.asked();
    assert_eq!(asked[0].line, "GET /api/v1/containers/?limit=100&page=1");
    assert!(asked[0].head.contains("authorization: bearer hdy_secret"));
}

#[test]
fn pages_are_all_read() {
    let page = |n: u64| ok(&json!({ "projects": [{ "id": n.to_string(), "alias": format!("p{n}") }], "pagination": { "total": 2 } }));
    let fake = Fake::new(vec![page(1), page(2)]);
    let (_, out) = fake.call(&["project", "list"]);
    assert!(out.contains("p1") && out.contains("p2"), "{out}");
    assert_eq!(fake.lines()[1], "GET /api/v1/projects/?limit=100&page=2");
}

#[test]
fn creating_waits_until_it_runs() {
    let state = |s: &str| ok(&json!({ "id": ID, "name": "dev", "status": s, "status_message": "no such image" }));
    let fake = Fake::new(vec![state("creating"), state("creating"), state("running")]);
    let args = ["container", "create", "dev", "--project", ID, "--env", "A=1", "--memory", "64", "--no-autostart", "--", "sh", "-c", "x"];
    let (result, out) = fake.call(&args);
    assert_eq!(result, Ok(0));
    assert!(out.contains("running"));
    let asked = fake.asked();
    assert_eq!((asked.len(), asked[0].line.as_str()), (3, format!("POST /api/v1/projects/{ID}/containers").as_str()));
    let body: Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!(body, json!({ "name": "dev", "environment_vars": { "A": "1" }, "memory": 64, "autostart": false, "command": ["sh", "-c", "x"] }));
    assert_eq!(asked[2].line, format!("GET /api/v1/containers/{ID}"));

    let fake = Fake::new(vec![state("creating"), state("failed")]);
    let e = fake.call(&["container", "create", "--project", ID]).0.unwrap_err();
    assert!(e.exit == exit::OTHER && e.message.contains("no such image"), "{e}");
    let fake = Fake::new(vec![state("creating")]);
    assert_eq!(fake.call(&["container", "create", "--project", ID, "--no-wait"]).0, Ok(0));
}

#[test]
fn operations_are_waited_for() {
    let operation = |v: Value| ok(&v);
    let fake = Fake::new(vec![
        ok(&json!({ "operation": "stop", "status": "running", "operation_id": "abc" })),
        operation(json!({ "status": "running" })),
        operation(json!({ "status": "succeeded" })),
        ok(&json!({ "status": "stopped" })),
    ]);
    let (result, out) = fake.call(&["container", "stop", ID, "--grace", "5"]);
    assert_eq!((result, out.as_str()), (Ok(0), format!("{ID}: stopped\n").as_str()));
    assert_eq!(fake.asked()[0].body, br#"{"timeout":5}"#);
    assert_eq!(fake.lines()[1..], ["GET /api/v1/operations/abc", "GET /api/v1/operations/abc", &format!("GET /api/v1/containers/{ID}")]);
    let fake = Fake::new(vec![
        ok(&json!({ "operation_id": "abc" })),
        operation(json!({ "status": "failed", "error": { "code": "pool_full", "message": "no room" } })),
    ]);
    let e = fake.call(&["container", "start", ID]).0.unwrap_err();
    assert_eq!((e.exit, e.to_string().as_str()), (exit::NO_SPACE, "error: no room [pool_full]"));
}

#[test]
fn errors_have_exit_codes() {
    let cases = [(404, 3), (409, 4), (429, 4), (401, 5), (403, 5), (507, 6), (400, 8), (413, 8), (422, 8), (500, 1), (503, 1)];
    for (status, want) in cases {
        let fake = Fake::new(vec![refused(status, "some_code")]);
        let e = fake.call(&["pool", "show"]).0.unwrap_err();
        assert_eq!((e.exit, e.to_string().as_str()), (want, "error: it cannot be [some_code]"), "{status}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cli = Cli::try_parse_from(["hoody-state", "--url", &format!("http://{gone}"), "pool", "show"]).unwrap();
    assert_eq!(run(cli, &mut vec![], false).unwrap_err().exit, exit::UNREACHABLE);
    let cli = Cli::try_parse_from(["hoody-state", "--socket", "/nowhere/socket", "pool", "show"]).unwrap();
    let e = run(cli, &mut vec![], false).unwrap_err();
    assert!(e.exit == exit::UNREACHABLE && e.message.contains("/nowhere/socket"), "{e}");
    assert_eq!(Failure::answered(502, b"<html>bad gateway</html>").message, "the server answered 502: <html>bad gateway</html>");
    assert_eq!(Failure::answered(409, br#"{"message":"m","error":"CONTAINER_OPERATION_IN_PROGRESS"}"#).code.unwrap(), "CONTAINER_OPERATION_IN_PROGRESS");
    let fake = Fake::new(vec![(200, "text/html", "<html>".into())]);
    assert_eq!(fake.call(&["pool", "show"]).0.unwrap_err().exit, exit::OTHER);
    let token = "a\nb";
    let cli = Cli::try_parse_from(["hoody-state", "--token", token, "pool", "show"]).unwrap();
    assert_eq!(run(cli, &mut vec![], false).unwrap_err().exit, exit::USAGE);
}

#[test]
fn nothing_is_destroyed_without_a_yes() {
    let calls: [&[&str]; 6] = [
        &["container", "delete", ID],
        &["project", "delete", ID],
        &["snapshot", "delete", ID, "s"],
        &["snapshot", "restore", ID, "s"],
        &["snapshot", "undo", ID],
        &["image", "delete", "debian/13"],
    ];
    for args in calls {
        // A container is asked for until it is gone.
        let mut answers = vec![ok(&Value::Null)];
        if args[0] == "container" {
            answers.extend([ok(&json!({ "status": "deleting" })), refused(404, "container_not_found")]);
        }
        let calls = answers.len();
        let fake = Fake::new(answers);
        let e = fake.call(args).0.unwrap_err();
        assert!(e.exit == exit::USAGE && e.message.contains("--yes"), "{args:?}: {e}");
        assert!(fake.asked().is_empty());
        let yes: Vec<&str> = args.iter().copied().chain(["--yes"]).collect();
        assert_eq!(fake.call(&yes).0, Ok(0), "{args:?}");
        assert_eq!(fake.asked().len(), calls);
    }
    assert!(confirm::is_yes(" Yes\n") && confirm::is_yes("y") && !confirm::is_yes("") && !confirm::is_yes("no") && !confirm::is_yes("yess"));
}

#[test]
fn snapshots_are_asked_for_as_the_wire_has_it() {
    let s = json!({ "container_id": ID, "snapshot": { "name": "a", "alias": "a b", "size": 40960, "created_at": "2026-11-23T10:05:00.000Z" } });
    let fake = Fake::new((0..7).map(|_| ok(&s)).collect());
    let calls: [&[&str]; 7] = [
        &["snapshot", "create", ID, "a b", "--expiry", "7", "--label", "k=v", "--replace"],
        &["snapshot", "restore", ID, "a b", "--keep-current", "old", "--databases", "keep", "--no-start", "-y"],
        &["snapshot", "rename", ID, "a", "new"],
        &["snapshot", "rename", ID, "a", "--none"],
        &["snapshot", "pin", ID, "a", "--reason", "release"],
        &["snapshot", "unpin", ID, "a"],
        &["snapshot", "expire", ID, "a", "--at", "2026-12-31T12:00:00Z"],
    ];
    for args in calls {
        assert_eq!(fake.call(args).0, Ok(0), "{args:?}");
    }
    let base = format!("/api/v1/containers/{ID}/snapshots");
    let want: [(String, Value); 7] = [
        (format!("POST {base}"), json!({ "alias": "a b", "expiry": 7, "labels": { "k": "v" }, "on_alias_conflict": "replace" })),
        (format!("PUT {base}/a%20b"), json!({ "keep_current": "old", "databases": "keep", "start": false })),
        (format!("PUT {base}/a/alias"), json!({ "alias": "new" })),
        (format!("PUT {base}/a/alias"), json!({ "alias": null })),
        (format!("PUT {base}/a/pin"), json!({ "reason": "release" })),
        (format!("DELETE {base}/a/pin"), Value::Null),
        (format!("PUT {base}/a/expiry"), json!({ "expires_at": "2026-12-31T12:00:00.000Z" })),
    ];
    for (asked, (line, body)) in fake.asked().iter().zip(want) {
        assert_eq!(asked.line, line);
        assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap_or_default(), body, "{line}");
    }
}

#[test]
fn exec_ends_with_the_commands_code_and_logs_are_passed_on() {
    let fake = Fake::new(vec![
        ok(&containers()),
        ok(&json!({ "exit_code": 42, "stdout": "out\n", "stderr": "", "truncated": false })),
        (200, "text/plain", "line 1\nline 2\n".into()),
        ok(&json!("from json\n")),
    ]);
    let (result, out) = fake.call(&["container", "exec", "only", "-w", "/tmp", "--timeout-ms", "100", "--", "ls", "-l"]);
    assert_eq!((result, out.as_str()), (Ok(42), "out\n"));
    assert_eq!(serde_json::from_slice::<Value>(&fake.asked()[1].body).unwrap(), json!({ "command": ["ls", "-l"], "cwd": "/tmp", "timeout_ms": 100 }));
    assert_eq!(fake.call(&["container", "logs", ID, "-f", "--tail", "2"]), (Ok(0), "line 1\nline 2\n".to_owned()));
    assert_eq!(fake.call(&["container", "logs", ID]).1, "from json\n");
    assert_eq!(fake.lines()[2], format!("GET /api/v1/containers/{ID}/logs?tail=2&follow=true"));
}

#[test]
fn environments_are_set_key_by_key() {
    let fake = Fake::new(vec![ok(&Value::Null), ok(&Value::Null), ok(&json!({ "environment_vars": { "A": "x\u{1b}[2J" } }))]);
    assert_eq!(fake.call(&["container", "env", ID, "A=1", "--unset", "B"]).1, "A=x\u{fffd}[2J\n");
    assert_eq!(fake.lines()[..2], [format!("PUT /api/v1/containers/{ID}/env/A"), format!("DELETE /api/v1/containers/{ID}/env/B")]);
}

#[test]
fn images_are_streamed() {
    let file = std::env::temp_dir().join(format!("hoody-client-{}.tar", std::process::id()));
    let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    std::fs::write(&file, &data).unwrap();
    let fake = Fake::new(vec![ok(&json!({ "name": "debian/13", "size": 1024 })), refused(401, "invalid_token")]);
    let (result, out) = fake.call(&["image", "import", "debian/13", file.to_str().unwrap()]);
    let refused = fake.call(&["image", "import", "debian/13", file.to_str().unwrap()]).0.unwrap_err();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(result, Ok(0));
    assert!(out.contains("1.0 KiB"), "{out}");
    assert_eq!(refused.exit, exit::DENIED);
    let asked = fake.asked();
    assert_eq!(asked[0].line, "PUT /api/v1/images/debian%2F13");
    assert!(asked[0].head.contains("content-length: 300000") && asked[0].body == data);
    assert_eq!(fake.call(&["image", "import", "x", "/nowhere.tar"]).0.unwrap_err().exit, exit::USAGE);
    assert!(fake.call(&["image", "import", "x", "/tmp"]).0.unwrap_err().message.contains("tar -C /tmp"));
}

#[test]
fn a_refusal_in_the_middle_of_an_upload_is_read() {
    let file = std::env::temp_dir().join(format!("hoody-client-mid-{}.tar", std::process::id()));
    std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
    for from_file in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut head = [0u8; 4096];
            let n = stream.read(&mut head).unwrap();
            assert!(n > 0);
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            stream.read_exact(&mut head).unwrap();
            let (_, kind, text) = refused(400, "image_path_unsafe");
            // In one piece: what Nagle's algorithm holds back is lost when this closes.
            let answer = format!("HTTP/1.1 400 X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let client = crate::http::Client::new(&Target::Url(url), None, None).unwrap();
        let e = if from_file {
            client.upload("/images/x", &mut std::fs::File::open(&file).unwrap(), Some(64 << 20)).unwrap_err()
        } else {
            // Without an end: only the refusal ends it.
            client.upload("/images/x", &mut std::io::repeat(1), None).unwrap_err()
        };
        server.join().unwrap();
        assert_eq!((e.exit, e.code.as_deref()), (exit::INVALID, Some("image_path_unsafe")), "{e}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn events_go_on_after_a_break() {
    let event = |n: u32| {
        let data =
            json!({ "created_at": "2026-11-23T10:00:00.000Z", "event_type": "container.running", "resource_type": "container", "resource_id": n.to_string() });
        format!(": beat\n\nid: {n}\ndata: {data}\n\n")
    };
    let fake = Fake::new(vec![(200, "text/event-stream", event(1) + &event(2)), (200, "text/event-stream", event(3))]);
    let (result, out) = fake.call(&["events", "--count", "3", "--type", "container.running"]);
    assert_eq!(result, Ok(0));
    assert_eq!(out.lines().collect::<Vec<_>>()[2], "2026-11-23 10:00:00Z  container.running             container 3");
    let asked = fake.asked();
    assert_eq!(asked[0].line, "GET /api/v1/events?event_type=container.running");
    assert!(asked[0].head.contains("accept: text/event-stream") && !asked[0].head.contains("last-event-id"));
    assert!(asked[1].head.contains("last-event-id: 2"), "{}", asked[1].head);
    let mut p = events::Parser::default();
    assert!(p.line("data:a").is_none() && p.line("data: b").is_none());
    assert_eq!(p.line("").unwrap().data, "a\nb");
}

#[test]
fn a_unix_socket_needs_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = asked.clone();
    let pool = json!({ "total": 1 << 30, "health": "ok", "reclaiming": [] });
    std::thread::spawn(move || serve(listener.accept().unwrap().0, &ok(&pool), &seen));
    let cli = Cli::try_parse_from(["hoody-state", "--socket", path.to_str().unwrap(), "pool", "show"]).unwrap();
    let mut out = vec![];
    assert_eq!(run(cli, &mut out, false), Ok(0));
    assert_eq!(String::from_utf8(out).unwrap(), "health      ok\nreclaiming  -\ntotal       1.0 GiB\n");
    assert_eq!(asked.lock().unwrap()[0].line, "GET /api/v1/pool");
}

#[test]
fn a_terminal_is_not_steered_by_what_is_shown() {
    let rows = [json!({ "a": "x\u{1b}[31m\n" })];
    assert_eq!(output::table(&rows, &[("A", |r| output::text(&r["a"]))]), "A\nx\u{fffd}[31m\u{fffd}\n");
    assert_eq!(output::fields(&json!({ "usage": { "size": 2048 }, "n": null })), "n      -\nusage\n  size  2.0 KiB\n");
}

#[test]
fn completions_need_no_server() {
    let mut out = vec![];
    let cli = Cli::try_parse_from(["hoody-state", "completions", "bash"]).unwrap();
    assert_eq!(run(cli, &mut out, false), Ok(0));
    assert!(String::from_utf8(out).unwrap().contains("snapshot"));
}

#[test]
fn the_address_of_a_peer_is_not_the_server_that_is_asked() {
    let cli = Cli::try_parse_from(["hoody-state", "--socket", "/s", "peer", "add", "https://other:1"]).unwrap();
    assert_eq!((cli.global.url, cli.global.socket.is_some()), (None, true));
    let crate::args::Noun::Peer(crate::args::Peer::Add { address, .. }) = cli.noun else { panic!("not peer add") };
    assert_eq!(address, "https://other:1");
}

/// A message of the server names fields of the API: what they are here is said beside it.
#[test]
fn what_the_api_calls_a_field_is_an_option_here() {
    let body = br#"{"statusCode":409,"error":"diff_needs_walk","message":"with walk=true both are read completely","code":"diff_needs_walk"}"#;
    let shown = crate::failure::Failure::answered(409, body).to_string();
    assert!(shown.starts_with("error: with walk=true both are read completely [diff_needs_walk]\n(here: `diff --walk`)"), "{shown}");
    let other = crate::failure::Failure::answered(404, br#"{"message":"no such file","code":"file_not_found"}"#).to_string();
    assert_eq!(other, "error: no such file [file_not_found]");
    // Each option that is named exists.
    let mut cli = <crate::args::Cli as clap::CommandFactory>::command();
    cli.build();
    let options = |command: &[&str]| {
        let found = command.iter().fold(&cli, |c, name| c.find_subcommand(name).unwrap());
        found.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect::<Vec<_>>()
    };
    for (command, option) in [
        (&["diff"][..], "walk"),
        (&["snapshot", "restore"], "databases"),
        (&["snapshot", "create"], "replace"),
        (&["promote"], "prefer"),
        (&["cp"], "recursive"),
    ] {
        assert!(options(command).iter().any(|o| o == option), "{command:?} --{option}");
    }
}
