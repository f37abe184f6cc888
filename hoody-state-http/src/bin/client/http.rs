//! Calls to the server.

use crate::failure::{Failure, Outcome, exit};
use crate::transport::{Broken, Dial, Upload};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Request, Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body, SendBody};

/// The default address of a server.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7878";
/// Longer than a server ever takes to answer: it holds an answer for at most 25 s.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The largest JSON answer that is read.
const LARGEST_ANSWER: u64 = 256 << 20;

/// How to reach the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Url(String),
    Socket(PathBuf),
}

impl Target {
    /// An option wins over the environment, where the socket wins over the URL. `local` gives the sockets to use if there is neither.
    pub fn choose(url: Option<&str>, socket: Option<&Path>, env: impl Fn(&str) -> Option<String>, local: impl FnOnce() -> Vec<PathBuf>) -> Outcome<Self> {
        let env = |name| env(name).filter(|v| !v.is_empty());
        let url = match (url, socket) {
            (_, Some(socket)) => return Ok(Target::Socket(socket.to_owned())),
            (Some(url), None) => url.to_owned(),
            (None, None) => match env("HOODY_STATE_SOCKET") {
                Some(socket) => return Ok(Target::Socket(socket.into())),
                None => match env("HOODY_STATE_URL") {
                    Some(url) => url,
                    None => match local().as_slice() {
                        [] => DEFAULT_URL.to_owned(),
                        [one] => return Ok(Target::Socket(one.clone())),
                        several => {
                            let list: Vec<String> = several.iter().map(|p| format!("  --socket {}", p.display())).collect();
                            return Err(Failure::new(exit::USAGE, format!("several servers are running on this machine; choose one:\n{}", list.join("\n"))));
                        }
                    },
                },
            },
        };
        let url = url.trim_end_matches('/');
        if ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
            return Ok(Target::Url(url.to_owned()));
        }
        Err(Failure::new(exit::USAGE, format!("{url:?} is not the address of a server: write http://HOST:PORT or https://HOST:PORT")))
    }
}

/// In a container: its own socket, by the link to it, and where it is whatever becomes of the link.
const OWN_SOCKETS: [&str; 2] = ["/run/hoody.sock", "/hoody/api/hoody.sock"];

/// The sockets of the servers on this machine that use the default run directory; without any, the socket of the container that this program runs in. Empty for
/// other users than root: the servers would refuse them.
pub fn local_sockets() -> Vec<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let answers = |p: &PathBuf| UnixStream::connect(p).is_ok();
    let servers = std::fs::read_dir("/run/hoody-state").into_iter().flatten();
    let mut sockets: Vec<PathBuf> = servers.flatten().map(|e| e.path().join("api.sock")).filter(answers).collect();
    if sockets.is_empty() {
        sockets.extend(OWN_SOCKETS.map(PathBuf::from).into_iter().find(answers));
    }
    sockets.sort();
    sockets
}

/// A connection to one server.
pub struct Client {
    agent: Agent,
    base: String,
    shown: String,
    authorization: Option<String>,
    broken: Broken,
}

impl Client {
    /// `ca`: a file with the certificate of an https server or of the authority that signed it. Without it the public authorities are trusted.
    pub fn new(target: &Target, token: Option<&str>, ca: Option<&Path>) -> Outcome<Self> {
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if let Some(file) = ca {
            let unusable = |e: &dyn std::fmt::Display| Failure::new(exit::USAGE, format!("{} is not a certificate in PEM: {e}", file.display()));
            let pem = std::fs::read(file).map_err(|e| unusable(&e))?;
            let mut certificates = Vec::new();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(c) = item.map_err(|e| unusable(&e))? {
                    certificates.push(c);
                }
            }
            if certificates.is_empty() {
                return Err(unusable(&"it contains no certificate"));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        // Proxies of the environment are for the internet; ureq would use them for loopback too.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .tls_config(tls.build())
            .user_agent(concat!("hoody-state/", env!("CARGO_PKG_VERSION")))
            .build();
        let (socket, base, shown) = match target {
            Target::Url(url) => (None, url.clone(), url.clone()),
            Target::Socket(path) => (Some(path.clone()), "http://127.0.0.1".to_owned(), path.display().to_string()),
        };
        let broken = Broken::default();
        let agent = Agent::with_parts(config, Dial { socket, broken: broken.clone() }.chain(RustlsConnector::default()), DefaultResolver::default());
        if token.is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Failure::new(exit::USAGE, "the token contains characters that no token has: is there a line break or a blank in it?"));
        }
        Ok(Client { agent, base: format!("{base}/api/v1"), shown, authorization: token.map(|t| format!("Bearer {t}")), broken })
    }

    pub fn get(&self, path: &str) -> Outcome<Value> {
        self.call("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call("POST", path, Some(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call("PUT", path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Outcome<Value> {
        self.call("DELETE", path, None)
    }

    /// Makes a call and returns the `data` of the answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        self.call_within(method, path, body, Some(ANSWER_TIME))
    }

    /// GET of something that has to be measured: what is not known after `seconds` is missing in the answer.
    pub fn get_measured(&self, path: &str, seconds: u64) -> Outcome<Value> {
        let request = self.request("GET", path).header("Prefer", format!("wait={seconds}"));
        self.data(self.send(request.body(SendBody::none()), None, Some(ANSWER_TIME))?)
    }

    /// [`Client::call`] with another time limit, or none.
    pub fn call_within(&self, method: &str, path: &str, body: Option<&Value>, limit: Option<Duration>) -> Outcome<Value> {
        let request = self.request(method, path).header(header::CONTENT_TYPE, "application/json").header("Prefer", "wait=20");
        let text = body.map(Value::to_string).unwrap_or_default();
        let answer = if body.is_some() || matches!(method, "POST" | "PUT" | "PATCH") {
            // With an explicit length, 0 too: a body of unknown length would be sent in chunks.
            self.send(request.body(SendBody::from_reader(&mut text.as_bytes())), Some(text.len() as u64), limit)
        } else {
            self.send(request.body(SendBody::none()), None, limit)
        };
        self.data(answer?)
    }

    /// Uploads a stream, once the server has said that it accepts it.
    pub fn upload(&self, path: &str, reader: &mut dyn Read, length: Option<u64>) -> Outcome<Value> {
        let request = self.request("PUT", path).header(header::CONTENT_TYPE, "application/octet-stream").header(header::EXPECT, "100-continue");
        let mut reader = Upload { inner: reader, left: length, broken: self.broken.clone() };
        let answer = self.send(request.body(SendBody::from_reader(&mut reader)), length, None)?;
        self.data(answer)
    }

    /// Opens an answer that is read as it arrives. `accept` is the media type to ask for.
    pub fn stream(&self, path: &str, accept: &str, last_event: Option<&str>) -> Outcome<Response<Body>> {
        let mut request = self.request("GET", path).header(header::ACCEPT, accept);
        if let Some(id) = last_event {
            request = request.header("Last-Event-ID", id);
        }
        let answer = self.send(request.body(SendBody::none()), None, None)?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.data(answer).err().unwrap_or_else(|| Failure::other("the server sent no answer"))) }
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.authorization {
            Some(a) => request.header(header::AUTHORIZATION, a),
            None => request,
        }
    }

    fn send(&self, request: Result<Request<SendBody<'_>>, ureq::http::Error>, length: Option<u64>, limit: Option<Duration>) -> Outcome<Response<Body>> {
        let mut request = request.map_err(|e| Failure::new(exit::USAGE, format!("the request cannot be made: {e}")))?;
        if let Some(n) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, n.into());
        }
        let request = self.agent.configure_request(request).timeout_recv_response(limit).build();
        self.agent.run(request).map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, e: &ureq::Error) -> Failure {
        let hint = match e {
            ureq::Error::Timeout(_) => "it may still be working: see `hoody-state operation list`",
            _ => "is `hoody-state-http serve` running there? (--url, --socket)",
        };
        Failure::new(exit::UNREACHABLE, format!("cannot reach the server at {}: {e}; {hint}", self.shown))
    }

    fn data(&self, answer: Response<Body>) -> Outcome<Value> {
        let status = answer.status();
        let body = answer.into_body().into_with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(|e| self.unreachable(&e))?;
        if !status.is_success() {
            return Err(Failure::answered(status.as_u16(), &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        let mut json: Value =
            serde_json::from_slice(&body).map_err(|e| Failure::other(format!("{} did not answer with JSON ({e}): is it a hoody-state server?", self.shown)))?;
        Ok(json.get_mut("data").map(Value::take).unwrap_or_default())
    }
}

/// A JSON object of the fields that are given.
pub fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// What stays as it is in a segment of a path: the unreserved characters of RFC 3986.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as one segment of a path, or as a value of a query.
pub fn segment(s: &str) -> String {
    // `.` and `..` would be resolved as relative segments.
    if matches!(s, "." | "..") { s.replace('.', "%2E") } else { utf8_percent_encode(s, IN_SEGMENT).to_string() }
}
