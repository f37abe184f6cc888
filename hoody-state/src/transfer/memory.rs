//! Several hosts in one process: for tests of what stands on top. Cuts, delays and damage on demand.

use crate::error::{Code, Error, Kind, Result};
use crate::model::Token;
use crate::transfer::{Answer, PeerAddress, Request, Responder, StreamRequest, Transport};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a network does to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends after so many bytes.
    Cut(u64),
    /// The byte at this place is another.
    Damage(u64),
    /// The request itself does not arrive.
    Unreachable,
    /// It arrives and is carried out, and the answer is lost.
    AnswerLost,
}

type Hook = dyn FnMut(&str, &str) -> Option<Fault> + Send;

#[derive(Default)]
struct Net {
    hosts: HashMap<String, Arc<dyn Responder>>,
    hook: Option<Box<Hook>>,
}

/// A network of hosts, by url. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNet(Arc<Mutex<Net>>);

impl fmt::Debug for MemoryNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network in memory")
    }
}

impl MemoryNet {
    /// A network without hosts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a host at `url`, in place of one that may have been there.
    pub fn add(&self, url: &str, host: impl Responder + 'static) {
        self.net(|n| drop(n.hosts.insert(url.to_owned(), Arc::new(host))));
    }

    /// Takes it away: nobody reaches it.
    pub fn remove(&self, url: &str) {
        self.net(|n| drop(n.hosts.remove(url)));
    }

    /// Asked of each request (its url, and a word for what it is) what shall happen to it.
    pub fn set_fault(&self, hook: impl FnMut(&str, &str) -> Option<Fault> + Send + 'static) {
        self.net(|n| n.hook = Some(Box::new(hook)));
    }

    fn net<T>(&self, f: impl FnOnce(&mut Net) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reach(&self, peer: &PeerAddress, what: &str) -> Result<(Arc<dyn Responder>, Token, Option<Fault>)> {
        let unreachable = || Error::new(Code::PeerUnreachable, format!("server {} at {} does not answer", peer.name, peer.url));
        let (host, fault) = self.net(|n| (n.hosts.get(&peer.url).cloned(), n.hook.as_mut().and_then(|h| h(&peer.url, what))));
        let host = host.filter(|_| fault != Some(Fault::Unreachable)).ok_or_else(unreachable)?;
        let Some(token) = host.authenticate(&peer.token)?.filter(|t| t.replication) else {
            return Err(Error::new(Code::PeerRefused, format!("server {} does not take the token", peer.name)));
        };
        Ok((host, token, fault))
    }
}

impl Transport for MemoryNet {
    fn call(&self, peer: &PeerAddress, request: &Request, _timeout: Duration) -> Result<Answer> {
        let word = serde_json::to_value(request).map_err(|e| Error::internal(e.to_string()))?["call"].as_str().unwrap_or_default().to_owned();
        let (host, token, fault) = self.reach(peer, &word)?;
        // Through JSON, as it would go.
        let again = serde_json::to_value(request).and_then(serde_json::from_value).map_err(|e| Error::internal(e.to_string()))?;
        let answer = host.answer(&token, again).map_err(as_over_http);
        if fault == Some(Fault::AnswerLost) {
            return Err(Error::new(Code::PeerUnreachable, format!("server {} did not answer", peer.name)));
        }
        serde_json::to_value(answer?).and_then(serde_json::from_value).map_err(|e| Error::internal(e.to_string()))
    }

    fn stream(&self, peer: &PeerAddress, request: &StreamRequest) -> Result<Box<dyn Read + Send>> {
        let (host, token, fault) = self.reach(peer, "stream")?;
        let (send, receive) = sync_channel(16);
        let ready = host.offer(&token, request).map_err(as_over_http)?;
        std::thread::spawn(move || {
            // A reader that has gone ends it.
            let _ = ready(&mut Out(send, fault, 0));
        });
        Ok(Box::new(In(receive, io::Cursor::new(Vec::new()))))
    }
}

/// A refusal of the token is known by its message alone, as over HTTP.
fn as_over_http(e: Error) -> Error {
    if e.kind() == Kind::Denied && e.code() != Code::HostNetworkDenied { Error::new(Code::PeerRefused, e.message().to_owned()) } else { e }
}

struct Out(SyncSender<Vec<u8>>, Option<Fault>, u64);

impl Write for Out {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut data = data.to_vec();
        let (from, to) = (self.2, self.2 + data.len() as u64);
        match self.1 {
            Some(Fault::Cut(at)) if to > at => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(Fault::Damage(at)) if (from..to).contains(&at) => data[usize::try_from(at - from).unwrap_or(0)] ^= 0x20,
            _ => {}
        }
        self.2 = to;
        let n = data.len();
        self.0.send(data).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct In(Receiver<Vec<u8>>, io::Cursor<Vec<u8>>);

impl Read for In {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.1.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            match self.0.recv() {
                Ok(more) => self.1 = io::Cursor::new(more),
                Err(_) => return Ok(0),
            }
        }
    }
}
