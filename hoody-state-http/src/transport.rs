//! Requests to other servers over HTTP, with pinned certificates.
//!
//! A peer is authenticated by its certificate: the given one, one signed by the given authority, or else by a public authority. This server is authenticated
//! by its token. Redirects are not followed and proxies are not used, so a token is sent only to the given address. If a peer stops sending, the call or
//! the stream ends.

use hoody_state::transfer::{Answer, PeerAddress, Request, StreamRequest, Transport};
use hoody_state::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A stream that sends nothing for this long is treated as broken.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest answer that is not a stream, in bytes.
const LARGEST_ANSWER: u64 = 64 << 20;

/// The transport over HTTP and TLS.
#[derive(Debug, Default)]
pub struct HttpTransport {
    /// One for each peer, so that successive calls share a connection.
    agents: Mutex<HashMap<(String, Option<String>), Agent>>,
}

#[derive(Deserialize)]
struct Good {
    data: Answer,
}

#[derive(Deserialize)]
struct Bad {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    data: Option<serde_json::Value>,
}

impl HttpTransport {
    /// A transport without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn agent(&self, peer: &PeerAddress) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.url.clone(), peer.ca.clone());
        if let Some(a) = agents.get(&key) {
            return Ok(a.clone());
        }
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if let Some(pem) = &peer.ca {
            let bad = || Error::new(Code::ValidationError, format!("ca: the certificate of {} is not readable as PEM", peer.name));
            let certificates: Result<Vec<_>> = parse_pem(pem.as_bytes())
                .map(|item| match item {
                    Ok(PemItem::Certificate(c)) => Ok(c),
                    _ => Err(bad()),
                })
                .collect();
            let certificates = certificates?;
            if certificates.is_empty() {
                return Err(bad());
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .user_agent("hoody-state")
            .build();
        let agent = Agent::new_with_config(config);
        // Agents of removed peers are dropped with the rest.
        if agents.len() >= 64 {
            agents.clear();
        }
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn post<T: Serialize>(&self, peer: &PeerAddress, path: &str, body: &T, timeout: Option<Duration>) -> Result<Response<ureq::Body>> {
        let json = serde_json::to_vec(body).map_err(|e| Error::internal(e.to_string()))?;
        let request = self
            .agent(peer)?
            .post(format!("{}/api/v1/replication/{path}", peer.url))
            .header("Authorization", format!("Bearer {}", peer.token))
            .header("Content-Type", "application/json");
        let sent = request
            .config()
            .timeout_global(timeout)
            .timeout_recv_response(Some(timeout.unwrap_or(SILENCE)))
            .timeout_per_read(Some(timeout.unwrap_or(SILENCE)))
            .build()
            .send(&json[..]);
        let response = sent.map_err(|e| unreachable(peer, &e))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(peer, response)) }
    }
}

impl Transport for HttpTransport {
    fn call(&self, peer: &PeerAddress, request: &Request, timeout: Duration) -> Result<Answer> {
        let mut response = self.post(peer, "call", request, Some(timeout))?;
        let bytes = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(|e| unreachable(peer, &e))?;
        let good: Good = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(Code::PeerRefused, format!("the server at {} is not a hoody-state server of this version: {e}", peer.url)))?;
        Ok(good.data)
    }

    fn stream(&self, peer: &PeerAddress, request: &StreamRequest) -> Result<Box<dyn Read + Send>> {
        let response = self.post(peer, "stream", request, None)?;
        Ok(Box::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }
}

fn unreachable(peer: &PeerAddress, e: &ureq::Error) -> Error {
    let hint = match e {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => ": its certificate does not match the given `ca`, or is for another host name",
        _ => "",
    };
    Error::new(Code::PeerUnreachable, format!("server {} at {} does not answer: {e}{hint}", peer.name, peer.url))
}

/// The error that a peer answered with, with the same code if this version knows it.
fn refusal(peer: &PeerAddress, mut response: Response<ureq::Body>) -> Error {
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().unwrap_or_default();
    let Ok(bad) = serde_json::from_slice::<Bad>(&text) else {
        return Error::new(Code::PeerRefused, format!("server {} at {} answered {status}, but not in the form of a hoody-state server", peer.name, peer.url));
    };
    // The message is stored and logged here, so its length is limited.
    let message: String = bad.message.chars().take(2_000).collect();
    let error = Error::new(code_of(status, &bad.code), format!("server {}: {message}", peer.name));
    match bad.data {
        Some(data) if text.len() < 16 << 10 => error.with_data(data),
        _ => error,
    }
}

/// The code for an answer with this status and this code word.
fn code_of(status: u16, word: &str) -> Code {
    match (status, word.parse()) {
        // The token is valid, but the other server does not allow the request.
        (403, Ok(Code::HostNetworkDenied)) => Code::HostNetworkDenied,
        (401 | 403, _) => Code::PeerRefused,
        (500, _) => Code::PeerFailed,
        (_, Ok(code)) if code.in_api() => code,
        _ => Code::PeerRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_error_keeps_its_code_where_that_means_the_same_here() {
        for (status, word, code) in [
            (409, "operation_in_progress", Code::OperationInProgress),
            (404, "snapshot_not_found", Code::SnapshotNotFound),
            (403, "host_network_denied", Code::HostNetworkDenied),
            (403, "insufficient_permissions", Code::PeerRefused),
            (401, "invalid_token", Code::PeerRefused),
            (500, "io", Code::PeerFailed),
            (500, "a_word_of_another_version", Code::PeerFailed),
            (409, "a_word_of_another_version", Code::PeerRefused),
            (400, "crashed", Code::PeerRefused),
        ] {
            assert_eq!(code_of(status, word), code, "{status} {word}");
        }
    }
}
