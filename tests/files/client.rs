//! A host with one container, its server, and a client that sees headers and broken answers.

use hoody_state::Caller;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::NewSnapshot;
use hoody_state_workspace::http::Served;
use hoody_state_workspace::{RealHost, container, project};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

pub struct Stage {
    pub served: Served,
    pub real: RealHost,
    pub project: ProjectId,
    pub id: ContainerId,
    /// Where the container's live volume can be looked at from outside.
    pub live: PathBuf,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether all of the body came.
    pub complete: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{} {e}: {}", self.status, self.text()))
    }

    pub fn data(&self) -> serde_json::Value {
        assert!((200..300).contains(&self.status), "{}", self.text());
        self.json()["data"].clone()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Reads the head of an answer.
pub fn head(from: &mut impl BufRead) -> (u16, BTreeMap<String, String>) {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        from.read_line(&mut line).unwrap();
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return (status, headers),
        };
    }
}

fn chunked(from: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut piece = vec![0; size + 2];
        if from.read_exact(&mut piece).is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
        body.extend(&piece[..size]);
    }
}

/// Reads the rest of an answer.
pub fn rest(from: &mut impl BufRead, method: &str, status: u16, headers: &BTreeMap<String, String>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if method == "HEAD" || status == 304 {
        return (body, true);
    }
    if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        let complete = chunked(from, &mut body);
        return (body, complete);
    }
    let length: u64 = headers["content-length"].parse().unwrap();
    // Whether it breaks off shows in its length.
    let _ = from.take(length).read_to_end(&mut body);
    let complete = body.len() as u64 == length;
    (body, complete)
}

impl Stage {
    pub fn new(name: &str) -> Self {
        Self::over(RealHost::new(name))
    }

    pub fn over(real: RealHost) -> Self {
        let project = project(real.host(), "files");
        let id = container(real.host(), &project, "box").unwrap();
        let served = Served::new(real.host().clone(), &real.dir.join("files.sock"));
        let live = real.live(&id);
        Stage { served, real, project, id, live }
    }

    pub fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(&self.served.socket).unwrap())
    }

    /// Sends the head of a request.
    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> BufReader<UnixStream> {
        let mut stream = self.connect();
        let mut head = format!("{method} /api/v1{url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.get_mut().write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // A server that refuses a body closes the connection.
        let _ = stream.get_mut().write_all(body);
        stream
    }

    pub fn request(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.send(method, url, headers, body);
        let (status, headers) = head(&mut stream);
        let (body, complete) = rest(&mut stream, method, status, &headers);
        Answer { status, headers, body, complete }
    }

    /// The URL of a path in a state.
    pub fn url(&self, state: &str, path: &str) -> String {
        format!("/containers/{}/snapshots/{state}/files{path}", self.id)
    }

    pub fn get(&self, state: &str, path: &str) -> Answer {
        self.request("GET", &self.url(state, path), &[], b"")
    }

    pub fn get_with(&self, state: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", &self.url(state, path), headers, b"")
    }

    pub fn snapshot(&self, alias: &str) {
        self.real.host().create_snapshot(&Caller::default(), &self.id, NewSnapshot { alias: Some(alias.into()), ..Default::default() }).unwrap();
    }
}
