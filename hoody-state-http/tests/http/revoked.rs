//! A token that is revoked, or whose rights change, ends what is open in its name.

use crate::support::{Server, Stream, read_chunk, read_head};
use hoody_state::model::Rights;
use std::io::BufReader;
use std::time::{Duration, Instant};

/// A second to notice, and what a loaded machine takes.
const SOON: Duration = Duration::from_secs(3);

type Open = BufReader<Box<dyn Stream>>;

fn token(s: &Server, name: &str, rights: Rights) -> (String, String) {
    let (row, secret) = s.host.create_token(name, None, rights).unwrap();
    (row.id.to_string(), secret)
}

fn open(s: &Server, token: &str, path: &str, accept: &str) -> Open {
    let mut reader = s.with_token(token, "GET", path).header("Accept", accept).open();
    assert_eq!(read_head(&mut reader).unwrap().0, 200, "{path}");
    reader
}

/// Reads until the connection ends, which must be soon; whether the last chunk was there.
fn end_of(mut reader: Open) -> bool {
    let began = Instant::now();
    let complete = loop {
        let mut peek = String::new();
        std::io::BufRead::read_line(&mut reader, &mut peek).unwrap();
        match usize::from_str_radix(peek.trim(), 16) {
            Ok(0) => break true,
            Ok(n) => {
                let mut rest = vec![0; n + 2];
                if std::io::Read::read_exact(&mut reader, &mut rest).is_err() {
                    break false;
                }
            }
            Err(_) => break false,
        }
    };
    assert!(began.elapsed() < SOON, "it went on for {:?}", began.elapsed());
    complete
}

#[test]
fn logs_and_events_of_a_revoked_token_break_off_and_others_go_on() {
    let s = Server::start();
    let project = s.project("web");
    let id = s.container(&project, "dev");
    let (row, secret) = token(&s, "short", Rights::ReadOnly);
    let logs = open(&s, &secret, &format!("/api/v1/containers/{id}/logs?follow=true"), "*/*");
    let events = open(&s, &secret, "/api/v1/events", "text/event-stream");
    let mut others = open(&s, &s.token, "/api/v1/events", "text/event-stream");
    read_chunk(&mut others).unwrap();
    s.host.revoke_token(&row).unwrap();
    assert!(!end_of(logs), "a log that was cut must not look complete");
    assert!(!end_of(events), "nor a stream of events");
    s.project("another");
    assert!(String::from_utf8(read_chunk(&mut others).unwrap()).unwrap().contains("project.created"));
}

#[test]
fn a_request_that_waits_is_answered_401_once_its_token_is_revoked() {
    let s = Server::start();
    let project = s.project("web");
    let id = s.container(&project, "dev");
    let (row, secret) = token(&s, "short", Rights::Full);
    let host = s.host.clone();
    let revoke = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        host.revoke_token(&row).unwrap();
    });
    let began = Instant::now();
    let answer = s.with_token(&secret, "POST", &format!("/api/v1/containers/{id}/exec")).body(r#"{"command":["sleep","20"]}"#).send();
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    revoke.join().unwrap();
}

#[test]
fn socket_io_takes_no_replication_token_and_ends_with_a_revoked_one() {
    let s = Server::start();
    let path = "/api/v1/events/?EIO=4&transport=polling";
    let session = |token: &str| {
        let hello = s.bare("GET", path).send().text();
        let sid = serde_json::from_str::<serde_json::Value>(&hello[1..]).unwrap()["sid"].as_str().unwrap().to_owned();
        assert_eq!(s.bare("POST", &format!("{path}&sid={sid}")).body(&format!(r#"40{{"token":"{token}"}}"#)).send().status, 200);
        // After the ping: the answer to the connect packet.
        let polls = std::iter::repeat_with(|| s.bare("GET", &format!("{path}&sid={sid}")).send().text()).take(10);
        let first = polls.flat_map(|p| p.split('\u{1e}').map(str::to_owned).collect::<Vec<_>>()).find(|p| p.starts_with('4')).unwrap();
        (sid, first)
    };
    let (_, replication) = token(&s, "peer", Rights::Replication);
    let (_, refused) = session(&replication);
    assert!(refused.starts_with("44") && refused.contains("for another server"), "{refused}");

    let (row, secret) = token(&s, "short", Rights::Full);
    let (sid, first) = session(&secret);
    assert!(first.starts_with("40{"), "{first}");
    s.host.revoke_token(&row).unwrap();
    let began = Instant::now();
    loop {
        let polled = s.bare("GET", &format!("{path}&sid={sid}")).send();
        // 41: the server has disconnected it.
        if polled.text().contains("41") || polled.status == 400 {
            break;
        }
        assert!(began.elapsed() < SOON, "{}", polled.text());
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
