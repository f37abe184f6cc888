//! `hoody-state-http serve` in a guest, and what the test asks of it.

use crate::disk::Cache;
use crate::guest::{Agent, Machine};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

pub const RUN: &str = "/run/hoody";
pub const POOL: &str = "/run/hoody/pool";
const DATA: &str = "/mnt/disk/data";
const SOCKET: &str = "/run/hoody/api.sock";
const PROGRAM: &str = "/mnt/shared/hoody-state-http";
const DAEMON: &str = "/mnt/shared/hoody-state-fuse";
/// A guest has one slow processor, and a start after a power cut recovers first.
const START: Duration = Duration::from_secs(90);

/// Where a server keeps its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In an image file on an ext4 file system, as `serve` does by itself.
    Image,
    /// On a disk of its own.
    Device,
}

/// An answer that came whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// Sends a request to the server; nothing if no whole answer came: whether it was done is then in doubt.
pub fn send(method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = Agent::connect()?.unix(SOCKET)?;
    let kind = if path.starts_with("/images/") { "application/x-tar" } else { "application/json" };
    let head =
        format!("{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?;
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>().unwrap()))?;
    let body = &all[end + 4..];
    (body.len() >= length)
        .then(|| Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: serde_json::from_slice(body).unwrap_or(Value::Null) })
}

/// Sends what must succeed; its data.
pub fn must(method: &str, path: &str, body: &Value) -> Value {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = send(method, path, &bytes).unwrap_or_else(|| panic!("{method} {path}: no answer"));
        if answer.is_busy() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        return answer.body["data"].clone();
    }
}

pub fn get(path: &str) -> Value {
    must("GET", path, &Value::Null)
}

impl Answer {
    /// Another operation has the container: the request can be sent again.
    pub fn is_busy(&self) -> bool {
        self.status == 409 && self.body["code"].as_str().is_some_and(|c| c.ends_with("operation_in_progress") || c == "operation_state_conflict")
    }
}

/// A machine with a server on it.
pub struct Host {
    pub machine: Machine,
    pub storage: Storage,
}

impl Host {
    /// A new machine, switched on, that has never served.
    pub fn new(name: &str, storage: Storage) -> Self {
        let mut machine = Machine::new(name, 6 << 30);
        machine.boot();
        Agent::connect().unwrap().sh("mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt/disk && mkdir -p /mnt/disk/alone && sync");
        let mut host = Host { machine, storage };
        host.serve();
        host
    }

    /// Starts the server of a machine that is on, and waits until it serves. The same command line serves a new pool and one that a power cut has left.
    pub fn serve(&mut self) {
        self.spawn();
        self.await_ready();
    }

    pub fn spawn(&self) -> u64 {
        let mut command = vec![PROGRAM, "serve", "--data", DATA, "--run", RUN, "--databases", DAEMON];
        command.extend(match self.storage {
            Storage::Image => ["--pool-size", "3GiB"],
            Storage::Device => ["--device", "/dev/nbd1"],
        });
        Agent::connect().unwrap().spawn(&command, "/dev/console").expect("the server is started")
    }

    pub fn await_ready(&self) {
        let end = Instant::now() + START;
        while send("GET", "/pool", b"").is_none() {
            assert!(Instant::now() < end, "the server does not serve within {START:?}:");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Switches the machine on after a power cut and mounts its disk, as the host's boot would.
    pub fn boot(&mut self) {
        self.machine.boot();
        Agent::connect().unwrap().sh("mount /dev/nbd0 /mnt/disk");
    }

    pub fn cut(&mut self, cache: Cache) -> String {
        self.machine.cut(cache)
    }

    pub fn import(&self, name: &str) {
        let image = self.machine.dir.join("image.tar");
        hoody_state_workspace::worker::make_image(std::path::Path::new(env!("CARGO_BIN_EXE_guest-agent")), "/guest-agent", &image);
        let answer = send("PUT", &format!("/images/{name}"), &std::fs::read(&image).unwrap()).expect("the import is answered");
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// Runs the server's program with another command on this pool.
    pub fn command(&self, what: &str) -> (Option<i64>, String, String) {
        let mut words = vec!["env", "HOODY_STATE_LOG=error", PROGRAM, what, "--data", DATA, "--run", RUN];
        if self.storage == Storage::Device {
            words.extend(["--device", "/dev/nbd1"]);
        }
        Agent::connect().unwrap().run(&words).expect("the guest is on")
    }

    /// `check` finds nothing.
    pub fn check(&self) {
        let (code, out, err) = self.command("check");
        assert!(code == Some(0) && out.is_empty() && err.is_empty(), "check ended with {code:?}: {out}{err}");
    }

    /// Waits until no operation is under way.
    pub fn settle(&self) {
        let end = Instant::now() + START;
        loop {
            let operations = get("/operations?limit=100");
            let open: Vec<&Value> = operations["operations"].as_array().unwrap().iter().filter(|o| o["finished_at"].is_null()).collect();
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "operations are still under way after {START:?}: {open:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a container is in this state.
    pub fn await_status(&self, id: &str, wanted: &str) {
        let end = Instant::now() + START;
        loop {
            let status = get(&format!("/containers/{id}"))["status"].as_str().unwrap().to_owned();
            if status == wanted {
                return;
            }
            assert!(Instant::now() < end, "container {id} is {status} and not {wanted} after {START:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a line of shell in a container: exit code and standard output.
    pub fn exec(&self, id: &str, line: &str) -> (i64, String) {
        let out = must("POST", &format!("/containers/{id}/exec"), &json!({ "command": ["/bin/sh", "-c", line] }));
        (out["exit_code"].as_i64().unwrap(), format!("{}{}", out["stdout"].as_str().unwrap(), out["stderr"].as_str().unwrap()))
    }
}
