//! The server in this process on a UNIX socket, and a client as small as can be.

use hoody_state::Host;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A server on a thread of its own; ends when dropped.
pub struct Served {
    pub socket: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub fn new(host: Host, socket: &Path) -> Self {
        Self::with(host, socket, hoody_state_http::Options::default())
    }

    pub fn with(host: Host, socket: &Path, options: hoody_state_http::Options) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let path = socket.to_path_buf();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(options.blocking_threads()).build().unwrap();
            runtime.block_on(async {
                let unix = hoody_state_http::unix::bind(&path).unwrap();
                ready.send(()).unwrap();
                let api = hoody_state_http::Api::new(host, options);
                hoody_state_http::serve::serve(&api, None, None, Some(unix), async {
                    let _ = stopped.await;
                })
                .await;
            });
        });
        is_ready.recv().unwrap();
        Served { socket: socket.to_path_buf(), stop: Some(stop), thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client(BufReader::new(UnixStream::connect(&self.socket).unwrap()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// One connection, kept open.
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Sends a request and reads its answer: the status and the JSON.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&str>) -> (u16, serde_json::Value) {
        let body = body.unwrap_or("");
        let head = format!("{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let l = line.trim().to_ascii_lowercase();
            if l.is_empty() {
                break;
            }
            if let Some(n) = l.strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// The same, which must go well.
    pub fn good(&mut self, method: &str, path: &str, body: Option<&str>) -> serde_json::Value {
        let (status, answer) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    }
}
