//! The server as a process, and a client of its socket.

use hoody_state_workspace::programs;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// An answer that came whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub data: Value,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Request { method, path: path.into(), body: Vec::new() }
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self
    }

    /// Sends it; nothing if the server was gone before the whole answer had come: whether it was done is then in doubt.
    pub fn send(&self, socket: &Path, key: Option<&str>) -> Option<Answer> {
        let mut s = UnixStream::connect(socket).ok()?;
        s.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let kind = if self.method == "PUT" && self.path.starts_with("/images/") { "application/x-tar" } else { "application/json" };
        let key = key.map_or(String::new(), |k| format!("Idempotency-Key: {k}\r\n"));
        let head = format!(
            "{} /api/v1{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n{key}Content-Length: {}\r\n\r\n",
            self.method,
            self.path,
            self.body.len()
        );
        // A server that has answered already need not read the rest.
        let _ = s.write_all(head.as_bytes()).and_then(|()| s.write_all(&self.body));
        let mut all = Vec::new();
        s.read_to_end(&mut all).ok()?;
        parse(&all)
    }
}

fn parse(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?;
    let body = &all[end + 4..];
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>().unwrap()))?;
    if body.len() < length {
        return None;
    }
    Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, data: serde_json::from_slice(body).unwrap_or(Value::Null) })
}

/// One server's directories, and its process while it runs.
pub struct Server {
    pub dir: PathBuf,
    /// Where it listens.
    pub listen: String,
    /// The network namespace that it lives in, by its file.
    pub namespace: Option<PathBuf>,
    /// What is done to each of its commands before it is started.
    pub prepare: Option<fn(&mut Command)>,
    child: Option<Child>,
}

impl Server {
    pub fn new(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it mounts BTRFS and runs containers");
        for (tool, package) in [("runc", "runc"), ("btrfs", "btrfs-progs"), ("mkfs.btrfs", "btrfs-progs")] {
            let there = std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(tool).exists()));
            assert!(there, "this test needs {tool}: apt-get install {package}");
        }
        assert!(Path::new("/bin/busybox").exists(), "this test needs a static busybox: apt-get install busybox-static");
        Server { dir: hoody_state_workspace::scratch(name), listen: "127.0.0.1:0".into(), namespace: None, prepare: None, child: None }
    }

    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn pool(&self) -> PathBuf {
        self.run().join("pool")
    }

    pub fn socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// The file by which steps are counted and the server killed at one.
    pub fn arm(&self) -> PathBuf {
        self.dir.join("arm")
    }

    fn command(&self, what: &str) -> Command {
        let program = programs::server();
        let mut c = match &self.namespace {
            // The network alone: mounts stay the machine's.
            Some(ns) => {
                let mut c = Command::new("nsenter");
                c.arg(format!("--net={}", ns.display())).arg(program);
                c
            }
            None => Command::new(program),
        };
        if let Some(prepare) = self.prepare {
            prepare(&mut c);
        }
        c.arg(what).arg("--data").arg(self.dir.join("data")).arg("--run").arg(self.run());
        c
    }

    /// Starts it and does not wait. Its log is added to a file.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut c = self.command("serve");
        c.args(["--listen", &self.listen, "--pool-size", "2GiB", "--databases"])
            .arg(programs::daemon())
            .env("HOODY_STATE_CRASH", format!("@{}", self.arm().display()));
        self.child = Some(c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self) {
        self.spawn();
        let mut line = String::new();
        let out = self.child.as_mut().unwrap().stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        if !line.starts_with("listening on ") {
            let status = self.child.take().unwrap().wait().unwrap();
            panic!("the server does not start ({status}):\n{}", self.log_tail());
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.as_mut().is_none_or(|c| c.try_wait().unwrap().is_some())
    }

    /// SIGKILL, and it is gone.
    pub fn kill(&mut self) {
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            c.wait().unwrap();
        }
    }

    /// TERM, and it is gone in time.
    pub fn end(&mut self) {
        let Some(mut c) = self.child.take() else { return };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(c.id().cast_signed()), nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = c.wait().unwrap();
        assert!(status.success(), "the server ended with {status}:\n{}", self.log_tail());
    }

    /// `unmount`, killed after so long; true if it had ended by then.
    pub fn unmount_killed_after(&self, time: Duration) -> bool {
        let mut c = self.command("unmount").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = std::time::Instant::now() + time;
        let mut ended = false;
        while !ended && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
            ended = c.try_wait().unwrap().is_some();
        }
        let _ = c.kill();
        c.wait().unwrap();
        ended
    }

    pub fn check(&self) -> Output {
        self.command("check").env("HOODY_STATE_LOG", "error").output().unwrap()
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// What a reboot would take down, and the directories. For the orderly end of a test, and for `Drop`.
    pub fn take_down(&mut self) -> Result<(), String> {
        self.kill();
        if !self.dir.exists() {
            return Ok(());
        }
        let out = self.command("unmount").output().unwrap();
        if !out.status.success() {
            return Err(format!("unmount: {}", String::from_utf8_lossy(&out.stderr)));
        }
        let left = crate::leftovers::of_machine(&self.dir);
        if std::thread::panicking() {
            println!("the server's log ended with:\n{}", self.log_tail());
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
        if left.is_empty() { Ok(()) } else { Err(format!("left after unmount: {left:?}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(e) = self.take_down() {
            println!("{e}");
        }
    }
}
