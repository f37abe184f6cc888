//! What others can do to the real server: somebody on the network without a token, a token that is revoked by another process, a caller that goes away, a plain
//! user of the host.

use crate::server::Server;
use crate::world::{World, new_container};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A second to notice, and what a loaded machine takes.
const SOON: Duration = Duration::from_secs(4);

/// The same world, with the address that it listens at.
fn world(name: &str) -> (World, SocketAddr) {
    let mut server = Server::new(name);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    server.listen = free.to_string();
    // A directory that was there before, and that everybody may pass.
    std::fs::create_dir(server.run()).unwrap();
    std::fs::set_permissions(server.run(), std::fs::Permissions::from_mode(0o755)).unwrap();
    (World::with(server), free)
}

fn token(w: &World, args: &[&str]) -> String {
    let mut command = Command::new(hoody_state_workspace::programs::server());
    let out = command.arg("token").args(args).arg("--data").arg(w.server.dir.join("data")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Memory of the server, in MiB.
fn memory(w: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", w.server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Processes of the container whose command line says this.
fn processes(w: &World, id: &str, what: &str) -> usize {
    let out = w.must(&crate::server::Request::new("POST", format!("/containers/{id}/exec")).json(&json!({ "command": ["/bin/ps"] })));
    out["stdout"].as_str().unwrap().lines().filter(|l| l.contains(what)).count()
}

pub fn clients_without_a_token_neither_delay_root_nor_use_up_memory() {
    let (w, address) = world("outside-network");
    let before = memory(&w);
    let half_open: Vec<TcpStream> = (0..1200)
        .filter_map(|_| {
            let mut c = TcpStream::connect(address).ok()?;
            c.write_all(b"POST /api/v1/users/auth/login HTTP/1.1\r\nX-").ok()?;
            Some(c)
        })
        .collect();
    let began = Instant::now();
    w.get("/pool");
    assert!(began.elapsed() < Duration::from_secs(1), "root's socket took {:?}", began.elapsed());
    drop(half_open);
    for i in 0..5_000 {
        let mut c = connect(address);
        let _ = c.write_all(b"GET /api/v1/events/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = c.read_to_string(&mut answer);
        assert!(i < 20 || !answer.is_empty());
    }
    let bodies: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut c = connect(address);
            let head = "POST /api/v1/users/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n";
            let _ = c.write_all(head.as_bytes()).and_then(|()| c.write_all(&vec![b' '; 1_048_575]));
            c
        })
        .collect();
    let after = memory(&w);
    drop(bodies);
    println!("memory: {before} MiB before, {after} MiB after");
    assert!(after < before + 64, "{before} MiB before, {after} MiB after");
    w.end();
}

pub fn a_token_revoked_by_another_process_ends_what_is_open() {
    let (w, address) = world("outside-token");
    let id = w.create(&new_container("agent"));
    let secret = token(&w, &["create", "--name", "short"]);
    let mut streams: Vec<TcpStream> = [format!("/containers/{id}/logs?follow=true"), "/events".to_owned()]
        .iter()
        .map(|path| {
            let mut c = connect(address);
            write!(c, "GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {secret}\r\n\r\n").unwrap();
            let mut first = [0; 12];
            c.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            c
        })
        .collect();
    token(&w, &["revoke", "short"]);
    let began = Instant::now();
    for c in &mut streams {
        let _ = c.read_to_end(&mut Vec::new());
    }
    assert!(began.elapsed() < SOON, "open for {:?} after the end of its token", began.elapsed());
    w.end();
}

pub fn a_command_ends_with_its_caller() {
    let (w, address) = world("outside-exec");
    let id = w.create(&new_container("agent"));
    let secret = token(&w, &["create"]);
    let body = json!({ "command": ["/bin/sh", "-c", "sleep 4321 & setsid sleep 4321 & sleep 4321"], "timeout_ms": 600_000 }).to_string();
    let mut c = connect(address);
    write!(c, "POST /api/v1/containers/{id}/exec HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let began = Instant::now();
    while processes(&w, &id, "sleep 4321") < 3 {
        assert!(began.elapsed() < Duration::from_secs(10), "the command does not start");
    }
    drop(c);
    let began = Instant::now();
    while processes(&w, &id, "sleep 4321") > 0 {
        assert!(began.elapsed() < SOON, "it goes on without its caller");
    }
    w.end();
}

pub fn a_plain_user_of_the_host_reaches_nothing_of_run() {
    let (w, _) = world("outside-user");
    let id = w.create(&new_container("agent"));
    w.must(
        &crate::server::Request::new("POST", format!("/containers/{id}/exec")).json(
            &json!({ "command": ["/bin/sh", "-c", "umask 0; echo secret > /ramdisk/f; echo secret > /hoody/databases/f; echo secret > /hoody/storage/f"] }),
        ),
    );
    let run = w.server.run();
    // What is where, found by root.
    let found = Command::new("find").arg(&run).args(["-name", "f", "-size", "-2"]).output().unwrap();
    let mut files: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(files.len() >= 3, "{files:?}");
    for dir in ["ramdisks", "databases", "pool", "pool/containers", "pool/catalog", "oci/containers", "oci/state"] {
        assert!(run.join(dir).is_dir(), "{dir}");
        files.push(run.join(dir).to_string_lossy().into_owned());
    }
    let stranger = |program: &str, path: &str| Command::new(program).arg(path).uid(65_534).gid(65_534).output().unwrap().status.success();
    assert!(stranger("ls", run.to_str().unwrap()), "the test means nothing where it cannot pass at all: set TMPDIR to a place that everybody may pass");
    let reached: Vec<&String> = files.iter().filter(|f| stranger("cat", f) || stranger("ls", f)).collect();
    assert!(reached.is_empty(), "a plain user of the host reaches {reached:?}");
    for socket in ["api.sock", "databases.sock"] {
        assert_eq!(run.join(socket).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{socket}");
    }
    w.end();
}
