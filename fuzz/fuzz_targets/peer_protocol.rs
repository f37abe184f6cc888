//! What one server says to another: any JSON as a request of one that holds a token, and as an answer.
//!
//! The holder's server is known by nobody, so that whatever it asks for must be refused: the host is the same afterwards.
#![no_main]

use hoody_state::Host;
use hoody_state::model::{EventFilter, Token};
use hoody_state::transfer::{Answer, Request, StreamRequest};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;

fn read<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let value = serde_json::from_slice::<T>(data).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(written, serde_json::to_vec(&again).expect("what was read can be written"));
    Some(value)
}

/// A host, the token of another server, and how many events there were.
fn host() -> &'static (Host, Token, u64) {
    static HOST: OnceLock<(Host, Token, u64)> = OnceLock::new();
    HOST.get_or_init(|| {
        let host = Host::in_memory().expect("a host in memory");
        let peer = "65f0c0ffee000000000000aa".parse().expect("an id");
        let (token, _) = host.create_peer_token("peer", None, &peer).expect("a token");
        let events = events(&host);
        (host, token, events)
    })
}

fn events(host: &Host) -> u64 {
    host.events(&EventFilter { limit: 100, ..EventFilter::default() }).expect("events").1
}

fuzz_target!(|data: &[u8]| {
    let (host, token, before) = host();
    read::<Answer>(data);
    if let Some(request) = read::<Request>(data) {
        let hello = matches!(request, Request::Hello { .. });
        assert!(host.answer_peer(token, request).is_err() || hello, "a server that is not known was answered");
    }
    if let Some(request) = read::<StreamRequest>(data) {
        assert!(host.offer_stream(token, &request).is_err(), "a server that is not known was sent something");
    }
    assert_eq!(events(host), *before, "a refused request has changed something");
});
