//! `events`: prints events as they happen, over server-sent events.

use crate::args::EventsArgs;
use crate::context::Context;
use crate::failure::{Outcome, exit};
use crate::http::segment;
use crate::output::{line, text, time};
use crate::resolve;
use crate::wait::Backoff;
use serde_json::Value;
use std::io::{BufRead, BufReader};

/// Collects the lines of one event.
#[derive(Debug, Default)]
pub struct Parser {
    id: Option<String>,
    data: String,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub id: Option<String>,
    pub data: String,
}

impl Parser {
    /// Takes one line; an empty one ends an event.
    pub fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then(|| Message { id: self.id.clone(), data: data.trim_end_matches('\n').to_owned() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

/// Prints events until the process is ended. After a lost connection it reconnects and continues after the last event.
pub fn run(cx: &mut Context<'_>, a: &EventsArgs) -> Outcome {
    let mut query = vec![];
    if let Some(c) = &a.container {
        query.push(format!("resource_id={}", resolve::container(cx, c)?));
    }
    query.extend(a.event_type.iter().map(|t| format!("event_type={}", segment(t))));
    let path = format!("/events{}{}", if query.is_empty() { "" } else { "?" }, query.join("&"));
    let mut left = a.count;
    let mut last: Option<String> = None;
    let mut stream = cx.client.stream(&path, "text/event-stream", None)?;
    loop {
        let mut parser = Parser { id: last.clone(), data: String::new() };
        for read in BufReader::new(stream.into_body().into_reader()).lines() {
            // The connection is lost: reconnect below.
            let Ok(text) = read else { break };
            let Some(message) = parser.line(text.trim_end_matches('\r')) else { continue };
            last = message.id.or(last);
            print(cx, &message.data)?;
            left = left.map(|n| n.saturating_sub(1));
            if left == Some(0) {
                return Ok(());
            }
        }
        let mut backoff = Backoff::new(600);
        stream = loop {
            match cx.client.stream(&path, "text/event-stream", last.as_deref()) {
                Err(f) if f.exit == exit::UNREACHABLE && backoff.pause() => {}
                answer => break answer?,
            }
        };
        // A server that ends the stream at once must not be asked without a pause.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn print(cx: &mut Context<'_>, data: &str) -> Outcome {
    let shown = match serde_json::from_str::<Value>(data) {
        Ok(v) if cx.json => format!("{v}\n"),
        Ok(v) => {
            let first = |keys: &[&str]| keys.iter().map(|k| &v[*k]).find(|v| !v.is_null()).cloned().unwrap_or_default();
            let when = time(&first(&["created_at", "timestamp"]));
            let kind = text(&first(&["event_type", "event", "type"]));
            line(&format!("{when}  {kind:<28}  {} {}", text(&v["resource_type"]), text(&v["resource_id"])))
        }
        Err(_) => line(data),
    };
    cx.out.write_all(shown.as_bytes())?;
    Ok(cx.out.flush()?)
}
