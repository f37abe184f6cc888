//! The socket of a container, `/run/hoody.sock`, used and attacked from inside.

use super::{attempt, container, eventually};
use hoody_state::id::ContainerId;
use hoody_state::model::{ContainerUpdate, ForkRequest, NewSnapshot, PageRequest, PolicyTarget, Verb};
use hoody_state::{Caller, Code, Host};
use hoody_state_http::Options;
use hoody_state_http::limits::Limits;
use hoody_state_workspace::http::Served;
use hoody_state_workspace::{RealHost, assert_clean, at_rest, programs, project, snapshot};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A host whose containers may have sockets, with a server.
struct Scene {
    served: Option<Served>,
    real: RealHost,
    options: Options,
}

impl Scene {
    /// One that lets containers ask as often as they like.
    fn new(name: &str) -> Self {
        let limits = Limits { container_burst: 100_000, container_rate: 100_000, ..Limits::default() };
        Self::with(name, Options { limits, ..Options::default() })
    }

    fn with(name: &str, options: Options) -> Self {
        let real = RealHost::configured(name, |c| {
            c.databases = Some(programs::daemon().into());
            c.api_sockets = true;
        });
        let mut scene = Scene { served: None, real, options };
        scene.serve();
        scene
    }

    fn serve(&mut self) {
        self.served = Some(Served::with(self.real.host().clone(), &self.real.dir.join("api.sock"), self.options.clone()));
    }

    fn restart(&mut self) {
        self.served = None;
        self.real.stop();
        self.real.start();
        self.serve();
    }

    /// A container with a socket, and the program that asks it.
    fn inside(&self, project: &hoody_state::id::ProjectId, name: &str) -> ContainerId {
        let c = container(&self.real, project, name, |n| n.api_socket = Some(true));
        let program = self.real.dir.join("ask");
        if !program.exists() {
            let source = program.with_extension("c");
            std::fs::write(&source, include_str!("ask.c")).unwrap();
            let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status().expect("this test needs a C compiler");
            assert!(built.success());
        }
        std::fs::copy(&program, self.real.live(&c).join("bin/ask")).unwrap();
        c
    }

    fn host(&self) -> &Host {
        self.real.host()
    }

    /// What a program in the container gets: the status, the headers and the body.
    fn raw(&self, c: &ContainerId, rest: &str) -> (u16, String, Value) {
        let out = attempt(&self.real, c, &format!("ask /run/hoody.sock {rest}"));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }

    fn ask(&self, c: &ContainerId, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { format!("'{body}'") };
        let (status, _, answer) = self.raw(c, &format!("{method} '{path}' {body}"));
        (status, answer)
    }

    fn good(&self, c: &ContainerId, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(c, method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer["data"].clone()
    }

    fn code(&self, c: &ContainerId, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.ask(c, method, path, body);
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_container_checkpoints_itself() {
    let s = Scene::new("inside");
    let p = project(s.host(), "p");
    let c = s.inside(&p, "dev");
    assert_eq!(s.real.sh(&c, "readlink /run/hoody.sock; stat -c '%a %u %F' /hoody/api/hoody.sock"), "/hoody/api/hoody.sock\n600 0 socket\n");
    s.real.sh(&c, "mkdir -p /srv && echo good > /srv/config");
    let taken = s.good(&c, "POST", "/containers/self/snapshots", &json!({ "alias": "before", "labels": { "step": "1" } }));
    assert_eq!(taken["container_id"], c.as_str());
    s.real.sh(&c, "echo broken > /srv/config; echo new > /srv/other");
    let diff = s.good(&c, "GET", "/api/v1/containers/self/snapshots/before/diff/live?path=/srv", &Value::Null);
    assert_eq!(diff, Value::Null, "lines, not one answer");
    let (_, _, lines) = s.raw(&c, "GET '/containers/self/snapshots/before/diff/live?path=/srv'");
    let lines = lines.as_str().unwrap();
    assert!(lines.contains("\"/srv/config\"") && lines.contains("\"/srv/other\""), "{lines}");
    s.good(&c, "POST", "/containers/self/snapshots/before/restore-files", &json!({ "paths": ["/srv/config"] }));
    assert_eq!(s.real.sh(&c, "cat /srv/config /srv/other /hoody/snapshots/before/srv/config"), "good\nnew\ngood\n");
    let list = s.good(&c, "GET", &format!("/containers/{c}/snapshots"), &Value::Null);
    assert_eq!(list["snapshot_count"], 2, "and the undo snapshot: {list}");
    let at = "2040-01-01T00:00:00.000Z";
    let dated = s.good(&c, "PUT", "/containers/self/snapshots/before/expiry", &json!({ "expires_at": at }));
    assert_eq!(dated["snapshot"]["expires_at"], at);
    // A rolling slot of its own.
    for _ in 0..2 {
        s.good(&c, "POST", "/containers/self/snapshots", &json!({ "alias": "latest", "on_alias_conflict": "replace" }));
    }
    s.good(&c, "DELETE", "/containers/self/snapshots/latest", &Value::Null);
    assert_eq!(s.real.sh(&c, "ls /hoody/snapshots | grep -c latest || true"), "0\n");
    // It is the author in the timeline.
    let history = s.host().container_timeline(&c, &hoody_state::model::TimelineRequest { limit: 100, ..Default::default() }, None).unwrap();
    let by = format!("container:{c}");
    let authors: Vec<_> = history.nodes.iter().filter_map(|n| n.author.clone()).collect();
    assert!(authors.iter().filter(|a| **a == by).count() >= 2, "{authors:?}");
    assert_clean(s.host(), "after a container used its socket");
}

/// Everything that the socket has, asked of another container.
fn no_route_reaches(s: &Scene, c: &ContainerId, other: &ContainerId) {
    let expiry = json!({ "expires_at": "2040-01-01T00:00:00.000Z" });
    let at = format!("/containers/{other}");
    for (method, path, body) in [
        ("GET", String::new(), Value::Null),
        ("DELETE", String::new(), Value::Null),
        ("GET", "/snapshots".into(), Value::Null),
        ("POST", "/snapshots".into(), json!({})),
        ("GET", "/snapshots/theirs".into(), Value::Null),
        ("DELETE", "/snapshots/theirs".into(), Value::Null),
        ("PUT", "/snapshots/theirs/expiry".into(), expiry.clone()),
        ("GET", "/snapshots/theirs/diff/live".into(), Value::Null),
        ("POST", "/snapshots/theirs/restore-files".into(), json!({ "paths": ["/etc"] })),
        ("POST", "/fork".into(), json!({ "count": 1 })),
    ] {
        let (status, code) = s.code(c, method, &format!("{at}{path}"), &body);
        assert_eq!(status, 404, "{method} {path}: {code}");
    }
    let (status, code) = s.code(c, "GET", &format!("/containers/self/snapshots/golden/diff/theirs?container={other}"), &Value::Null);
    assert_eq!((status, code.as_str()), (404, "container_not_found"));
    let op = s.host().operations(&hoody_state::model::PageRequest::first()).unwrap().rows.into_iter().find(|o| o.resource_id == other.as_str()).unwrap();
    assert_eq!(s.code(c, "GET", &format!("/operations/{}", op.id), &Value::Null), (404, "operation_not_found".into()));
}

/// Everything that the server has, and the socket has not.
fn no_other_route_is_there(s: &Scene, c: &ContainerId, q: &hoody_state::id::ProjectId, foreign: &ContainerId) {
    for (method, path, body) in [
        ("GET", "/projects", Value::Null),
        ("GET", "/pool", Value::Null),
        ("GET", "/events", Value::Null),
        ("GET", "/images", Value::Null),
        ("GET", "/operations", Value::Null),
        ("GET", "/openapi.json", Value::Null),
        ("GET", "/metrics", Value::Null),
        ("GET", "/containers/self/env", Value::Null),
        ("GET", "/containers/self/timeline", Value::Null),
        ("GET", "/containers/self/snapshots/golden/files/etc", Value::Null),
        ("POST", "/containers/self/exec", json!({ "command": ["true"] })),
        ("POST", "/containers/self/stop", Value::Null),
        ("POST", "/containers/self/copy", json!({ "target_project_id": q })),
        ("POST", "/containers/self/undo", Value::Null),
        ("POST", "/containers/self/storage/shares", json!({ "source_path": "/etc", "mode": "readonly", "target_container_id": foreign })),
        ("PATCH", "/containers/self", json!({ "name": "other", "api_socket": true })),
        ("PUT", "/containers/self", json!({ "name": "other" })),
        ("DELETE", "/containers/self", Value::Null),
        ("PATCH", "/containers/self/snapshots/golden", json!({})),
        ("PUT", "/containers/self/snapshots/golden/pin", json!({ "reason": "x" })),
        ("PUT", "/containers/self/snapshots/golden/alias", json!({ "alias": "x" })),
        ("PUT", "/containers/self/snapshot-policy", json!({ "schedules": [], "on": {} })),
        ("GET", "/containers/self/../projects", Value::Null),
        ("GET", "//containers/self", Value::Null),
    ] {
        let (status, code) = s.code(c, method, path, &body);
        assert!(status == 404 || status == 400, "{method} {path}: {status} {code}");
    }
}

#[test]
fn a_container_reaches_itself_and_nothing_else_by_its_socket() {
    let s = Scene::new("inside-others");
    let (p, q) = (project(s.host(), "p"), project(s.host(), "q"));
    let (c, sister, foreign) = (s.inside(&p, "dev"), s.inside(&p, "sister"), s.inside(&q, "foreign"));
    for other in [&sister, &foreign] {
        snapshot(s.host(), other, "theirs").unwrap();
    }
    let golden = snapshot(s.host(), &c, "golden").unwrap();
    let before = s.host().snapshots(&c).unwrap();
    for other in [&sister, &foreign] {
        no_route_reaches(&s, &c, other);
    }
    no_other_route_is_there(&s, &c, &q, &foreign);
    let expiry = json!({ "expires_at": "2040-01-01T00:00:00.000Z" });
    assert_eq!(s.code(&c, "POST", "/containers/self/fork", &json!({ "count": 1, "source_snapshot": "theirs", "start": false })).0, 404);
    // What somebody else took of it: neither deleted, nor dated, nor replaced.
    let own = |code: (u16, String)| assert_eq!(code, (403, "snapshot_not_own".into()));
    own(s.code(&c, "DELETE", "/containers/self/snapshots/golden", &Value::Null));
    own(s.code(&c, "PUT", "/containers/self/snapshots/golden/expiry", &expiry));
    own(s.code(&c, "POST", "/containers/self/snapshots", &json!({ "alias": "golden", "on_alias_conflict": "replace" })));
    let rolling = json!({ "alias": "rolling", "on_alias_conflict": "replace", "keep_replaced": 1 });
    assert_eq!(s.code(&c, "POST", "/containers/self/snapshots", &rolling).0, 400, "what had the alias before may be another's");
    s.good(&c, "POST", "/containers/self/snapshots", &json!({ "alias": "mine" }));
    s.host().pin_snapshot(&Caller::default(), &c, "mine", Some("kept".into())).unwrap();
    assert_eq!(s.code(&c, "DELETE", "/containers/self/snapshots/mine", &Value::Null), (409, "snapshot_pinned".into()));
    let after = s.host().snapshots(&c).unwrap();
    assert_eq!(after.snapshots.iter().find(|x| x.name == golden.name), before.snapshots.first());
    // What it sees of itself.
    let all = s.good(&c, "GET", "/containers", &Value::Null);
    assert_eq!(all["containers"].as_array().unwrap().len(), 1);
    let fields: Vec<&String> = all["containers"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "is_self", "name", "source_container_id", "status", "status_message"]);
    // A user of the container, and a token that would be good elsewhere.
    let (status, head, _) = s.raw(&c, "GET /containers/self");
    assert_eq!(status, 200, "{head}");
    let refused = attempt(&s.real, &c, "AS_USER=1000 ask /run/hoody.sock GET /containers/self");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "cannot connect: Permission denied\n");
    // Not from the host either, as another user than root.
    let socket = s.real.config.run.join("api").join(c.as_str()).join("hoody.sock");
    let out = Command::new(s.real.dir.join("ask")).arg(&socket).args(["GET", "/containers/self"]).env("AS_USER", "65534").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "cannot connect: Permission denied\n");
    // Nor root of the host: the socket is the container's.
    let out = Command::new(s.real.dir.join("ask")).arg(&socket).args(["GET", "/containers/self"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "");
    // The directory cannot be written, so that nobody puts another server in its place.
    let said = attempt(&s.real, &c, "rm /hoody/api/hoody.sock; touch /hoody/api/x; mv /hoody/api/hoody.sock /hoody/api/y");
    assert_eq!(String::from_utf8_lossy(&said.stderr).matches("Read-only file system").count(), 3);
    assert_eq!(s.host().container(&sister).unwrap().snapshot_count, 1);
    assert_clean(s.host(), "after the attacks");
}

#[test]
fn copies_of_its_own_are_few_have_no_socket_and_are_its_own_to_delete() {
    let s = Scene::new("inside-forks");
    let p = project(s.host(), "p");
    let c = s.inside(&p, "dev");
    let me = Caller::default();
    let request = ForkRequest { count: Some(1), name_prefix: Some("theirs".into()), start: Some(false), ..Default::default() };
    let theirs = s.host().fork_container(&me, &c, &request).unwrap().results[0].container.clone().unwrap();
    at_rest(s.host());
    assert!(s.host().container(&theirs.id).unwrap().api_socket, "a fork that was made from outside is as its source");
    let forked = s.good(&c, "POST", "/containers/self/fork", &json!({ "count": 2, "name_prefix": "try", "start": false, "api_socket": true }));
    let made: Vec<ContainerId> = forked["results"].as_array().unwrap().iter().map(|r| r["container"]["id"].as_str().unwrap().parse().unwrap()).collect();
    at_rest(s.host());
    for id in &made {
        assert!(!s.host().container(id).unwrap().api_socket, "a container that forks itself does not hand on its socket");
        assert_eq!(s.good(&c, "GET", &format!("/containers/{id}"), &Value::Null)["source_container_id"], c.as_str());
        assert_eq!(s.code(&c, "GET", &format!("/containers/{id}/snapshots"), &Value::Null).0, 404, "no more than its state");
    }
    assert_eq!(s.good(&c, "GET", "/containers", &Value::Null)["containers"].as_array().unwrap().len(), 3);
    assert_eq!(s.code(&c, "POST", "/containers/self/fork", &json!({ "count": 7, "start": false })), (409, "fork_limit".into()));
    assert_eq!(s.code(&c, "POST", "/containers/self/fork", &json!({ "count": 4_294_967_295_u32, "start": false })).0, 409);
    assert_eq!(s.code(&c, "DELETE", &format!("/containers/{}", theirs.id), &Value::Null), (404, "container_not_found".into()), "this one is not of its making");
    let keeps: hoody_state::model::SnapshotPolicy = serde_json::from_value(json!({ "on": { "before_delete": { "max_age": "7d" } } })).unwrap();
    s.host().set_snapshot_policy(&me, &PolicyTarget::Project(p.clone()), &keeps).unwrap();
    s.good(&c, "DELETE", &format!("/containers/{}", made[0]), &Value::Null);
    at_rest(s.host());
    let trash = || s.host().trash(&PageRequest::first(), None).unwrap().containers.into_iter().map(|t| t.id).collect::<Vec<_>>();
    assert!(trash().is_empty(), "what a container deletes of its own takes no space in the trash");
    assert_eq!(s.host().container(&made[0]).unwrap_err().code(), Code::ContainerNotFound);
    assert!(s.host().container(&theirs.id).is_ok() && s.host().container(&made[1]).is_ok());
    assert_clean(s.host(), "after forks from inside");
}

#[test]
fn a_container_that_asks_too_much_is_slowed_down_and_others_are_not() {
    let s = Scene::with("inside-limits", Options::default());
    let p = project(s.host(), "p");
    let (c, calm) = (s.inside(&p, "dev"), s.inside(&p, "calm"));
    let loud = "i=0; while [ $i -lt 90 ]; do ask /run/hoody.sock GET /containers/self | head -1; i=$((i+1)); done | sort | uniq -c";
    let said = s.real.sh(&c, loud);
    assert!(said.contains("429"), "{said}");
    let (status, head, body) = s.raw(&c, "POST /containers/self/snapshots");
    assert_eq!((status, body["code"].as_str()), (429, Some("rate_limited")), "{body}");
    let wait: u64 = head.lines().find_map(|l| l.strip_prefix("retry-after: ")).unwrap().trim().parse().unwrap();
    assert!((1..=2).contains(&wait), "{head}");
    assert_eq!(s.raw(&calm, "GET /containers/self").0, 200, "its neighbour has its own measure");
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(s.raw(&c, "POST /containers/self/snapshots").0, 200, "after the wait it is let through");
    // Large bodies and many connections.
    std::thread::sleep(Duration::from_secs(2));
    let (status, _, body) = s.raw(&calm, "large 10000000");
    assert_eq!((status, body["code"].as_str()), (413, Some("request_too_large")), "{body}");
    assert_eq!(s.real.sh(&c, "ask /run/hoody.sock hold 20"), "12\n", "eight stay open");
    assert_eq!(s.raw(&calm, "GET /containers/self").0, 200);
    // Its own snapshots have an end.
    for n in 0..100 {
        let caller = Caller { author: Some(format!("container:{calm}")), inside: true, ..Caller::default() };
        s.host().create_snapshot(&caller, &calm, NewSnapshot { alias: Some(format!("s{n}")), ..Default::default() }).unwrap();
    }
    assert_eq!(s.code(&calm, "POST", "/containers/self/snapshots", &json!({})), (400, "container_snapshot_limit".into()));
    assert_eq!(s.code(&calm, "POST", "/containers/self/fork", &json!({ "count": 1 })), (400, "container_snapshot_limit".into()));
}

#[test]
fn the_socket_survives_the_server_and_follows_the_setting() {
    let mut s = Scene::new("inside-restart");
    let p = project(s.host(), "p");
    let me = Caller::default();
    let c = s.inside(&p, "dev");
    let without = container(&s.real, &p, "without", |_| {});
    assert_eq!(s.real.sh(&without, "ls -d /run/hoody.sock /hoody/api 2>/dev/null || echo none"), "none\n");
    let answers = |s: &Scene| s.raw(&c, "GET /containers/self").0;
    assert_eq!(answers(&s), 200);
    s.served = None;
    assert_eq!(answers(&s), 0, "nobody serves");
    s.restart();
    assert_eq!(answers(&s), 200, "the container was not touched");
    // Paused while the server starts again.
    s.host().lifecycle(&me, &c, Verb::Pause, None).unwrap();
    s.restart();
    s.host().lifecycle(&me, &c, Verb::Resume, None).unwrap();
    assert_eq!(answers(&s), 200);
    s.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    assert_eq!(answers(&s), 200, "after a restart of the container");
    snapshot(s.host(), &c, "back").unwrap();
    s.host().restore(&me, &c, "back", Default::default()).unwrap();
    assert_eq!(answers(&s), 200, "after a restore");
    // An init that empties /run.
    s.real.sh(&c, "rm -rf /run/*");
    assert!(s.real.sh(&c, "ask /hoody/api/hoody.sock GET /containers/self").starts_with("HTTP/1.1 200"));
    // It ends with the container, by whatever way that ends.
    let directory = s.real.config.run.join("api").join(c.as_str());
    s.host().lifecycle(&me, &c, Verb::Stop, Some(Duration::ZERO)).unwrap();
    eventually("the end of the socket", || !directory.exists());
    s.host().lifecycle(&me, &c, Verb::Start, None).unwrap();
    assert_eq!(answers(&s), 200, "the link is made again");
    let init = super::isolation::pid_of_init(&s.real, &c);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(init).unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the end of the socket", || !directory.exists());
    s.host().lifecycle(&me, &c, Verb::Start, None).unwrap();
    // Off at once, on from the next start.
    let set = |on| s.host().update_container(&me, &c, ContainerUpdate { api_socket: Some(on), ..Default::default() }).unwrap();
    set(false);
    assert_eq!(answers(&s), 0);
    set(true);
    assert_eq!(answers(&s), 0);
    s.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    assert_eq!(answers(&s), 200);
    set(false);
    s.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    assert_eq!(s.real.sh(&c, "ls -d /run/hoody.sock 2>/dev/null || echo none; grep -c /hoody/api /proc/mounts || true"), "none\n0\n");
    set(true);
    s.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    s.host().delete_container(&me, &c).unwrap();
    at_rest(s.host());
    eventually("the end of the socket", || !directory.exists());
    assert_clean(s.host(), "after the socket");
}

/// Copies a program of this machine into a container, with the libraries that it needs.
fn install(root: &Path, program: &Path) {
    let needs = Command::new("ldd").arg(program).output().expect("this test needs ldd");
    let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
    let libraries = needs.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from);
    for file in libraries {
        let to = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&file, &to).unwrap();
    }
    std::fs::copy(program, root.join("bin").join(program.file_name().unwrap())).unwrap();
}

#[test]
fn our_client_and_curl_work_inside_as_they_are() {
    let s = Scene::new("inside-cli");
    let p = project(s.host(), "p");
    let c = s.inside(&p, "dev");
    let root = s.real.live(&c);
    install(&root, programs::client());
    s.real.sh(&c, "mkdir -p /srv && echo good > /srv/config");
    let run = |line: &str| {
        let out = attempt(&s.real, &c, line);
        assert_eq!(out.exit_code, 0, "{line}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    run("hoody-state snapshot create self before");
    run("echo broken > /srv/config");
    assert!(run("hoody-state diff self:before /srv").contains("/srv/config"));
    run("hoody-state checkout self:before /srv/config --yes");
    assert_eq!(run("cat /srv/config"), "good\n");
    assert!(run("hoody-state snapshot list dev").contains("before"));
    assert!(run("hoody-state container fork self 1 --prefix try").contains("try-1"));
    assert!(run("hoody-state container list").contains("try-1"));
    run("hoody-state container delete try-1 --yes");
    let curl = Path::new("/usr/bin/curl");
    install(&root, curl);
    assert!(run("curl -s --unix-socket /run/hoody.sock http://localhost/containers/self/snapshots").contains("\"before\""));
}
