//! A server over a memory host on real sockets, and a client small enough to send what no real client would.

use hoody_state::host::Host;
use hoody_state::id::ProjectId;
use hoody_state_http::limits::Limits;
use hoody_state_http::{Api, Options, serve, unix};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

pub struct Server {
    pub host: Host,
    pub address: SocketAddr,
    pub socket: PathBuf,
    /// Reaches everything.
    pub token: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Server {
        Server::over(Host::in_memory().unwrap())
    }

    pub fn over(host: Host) -> Server {
        Server::with(host, Limits::default())
    }

    pub fn limited(limits: Limits) -> Server {
        Server::with(Host::in_memory().unwrap(), limits)
    }

    pub fn with(host: Host, limits: Limits) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let (token, stop) = (host.create_token("all", None, hoody_state::model::Rights::Full).unwrap().1, oneshot::channel::<()>());
        let (ready, address) = std::sync::mpsc::channel();
        let (api, path) = (Api::new(host.clone(), Options { metrics: true, limits }), socket.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let unix = unix::bind(&path).unwrap();
                ready.send(tcp.local_addr().unwrap()).unwrap();
                serve::serve(&api, Some(tcp), None, Some(unix), async {
                    let _ = stop.1.await;
                })
                .await;
            });
        });
        Server { host, address: address.recv().unwrap(), socket, token, stop: Some(stop.0), thread: Some(thread), _dir: dir }
    }

    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.request(method, path).body(body).send()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "")
    }

    /// A request with the token that reaches everything.
    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        let auth = format!("Bearer {}", self.token);
        self.bare(method, path).header("Authorization", &auth)
    }

    pub fn with_token(&self, token: &str, method: &str, path: &str) -> Request<'_> {
        self.bare(method, path).header("Authorization", &format!("Bearer {token}"))
    }

    pub fn bare(&self, method: &str, path: &str) -> Request<'_> {
        Request { server: self, unix: false, method: method.into(), path: path.into(), headers: String::new(), body: Vec::new() }
    }

    pub fn scoped(&self, project: &str, read_only: bool) -> String {
        let project: ProjectId = project.parse().unwrap();
        self.host
            .create_token(
                &format!("scoped-{project}-{read_only}"),
                Some(vec![project]),
                if read_only { hoody_state::model::Rights::ReadOnly } else { hoody_state::model::Rights::Full },
            )
            .unwrap()
            .1
    }

    pub fn project(&self, alias: &str) -> String {
        let answer = self.call("POST", "/api/v1/projects/", &format!(r#"{{"alias":"{alias}"}}"#));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.data()["id"].as_str().unwrap().to_owned()
    }

    /// A container that runs.
    pub fn container(&self, project: &str, name: &str) -> String {
        let answer =
            self.request("POST", &format!("/api/v1/projects/{project}/containers")).header("Prefer", "wait=20").body(&format!(r#"{{"name":"{name}"}}"#)).send();
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.data()["id"].as_str().unwrap().to_owned();
        self.wait_status(&id, "running");
        id
    }

    pub fn wait_status(&self, id: &str, status: &str) {
        for _ in 0..500 {
            if self.get(&format!("/api/v1/containers/{id}")).data()["status"] == status {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("container {id} is not {status} after 5 s");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

pub struct Request<'a> {
    server: &'a Server,
    unix: bool,
    method: String,
    path: String,
    headers: String,
    body: Vec<u8>,
}

impl Request<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn body(self, body: &str) -> Self {
        self.bytes(body.as_bytes())
    }

    pub fn bytes(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub fn over_unix(mut self) -> Self {
        self.unix = true;
        self
    }

    pub fn send(self) -> Answer {
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
            self.method,
            self.path,
            self.body.len(),
            self.headers
        );
        let mut stream = self.connect();
        // The server may answer and close before all is sent.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body));
        read_answer(&mut BufReader::new(stream))
    }

    /// Sends the head and hands the connection over, for streams.
    pub fn open(self) -> BufReader<Box<dyn Stream>> {
        let mut stream = self.connect();
        stream.write_all(format!("{} {} HTTP/1.1\r\nHost: test\r\n{}\r\n", self.method, self.path, self.headers).as_bytes()).unwrap();
        BufReader::new(stream)
    }

    fn connect(&self) -> Box<dyn Stream> {
        if self.unix {
            let s = UnixStream::connect(&self.server.socket).unwrap();
            s.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            return Box::new(s);
        }
        let s = TcpStream::connect(self.server.address).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Box::new(s)
    }
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {:?}", self.status, self.text()))
    }

    /// `data` of a good answer in the published shape.
    pub fn data(&self) -> Value {
        let v = self.json();
        assert!((200..300).contains(&self.status), "{v}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(v["statusCode"], self.status, "{v}");
        assert!(v["message"].is_string(), "{v}");
        let keys = v.as_object().unwrap();
        assert!(keys.len() == 3 && keys.contains_key("data"), "{v}");
        v["data"].clone()
    }

    /// `code` of an error in the published shape.
    pub fn code(&self) -> String {
        let v = self.json();
        assert!(self.status >= 400, "{v}");
        assert!(self.header("content-type").unwrap_or_default().contains("application/json"));
        assert_eq!(v["statusCode"], self.status, "{v}");
        assert!(v["error"].is_string() && v["message"].as_str().is_some_and(|m| !m.is_empty()), "{v}");
        v["code"].as_str().unwrap().to_owned()
    }
}

pub fn read_head(reader: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((status, headers))
}

pub fn read_answer(reader: &mut impl BufRead) -> Answer {
    let (status, headers) = read_head(reader).expect("the server closed without an answer");
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let length = headers.iter().find(|(n, _)| n == "content-length").map(|(_, v)| v.parse().unwrap());
    let mut body = Vec::new();
    match length {
        Some(n) => {
            body = vec![0; n];
            reader.read_exact(&mut body).unwrap();
        }
        None if chunked => {
            while let Some(chunk) = read_chunk(reader) {
                body.extend(chunk);
            }
        }
        None => {
            reader.read_to_end(&mut body).unwrap();
        }
    }
    Answer { status, headers, body }
}

/// The next chunk; nothing at the end.
pub fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let n = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut chunk = vec![0; n + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(n);
    (n > 0).then_some(chunk)
}
