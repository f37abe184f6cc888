//! Waiting for operations that run in the background.

use crate::args::Wait;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::segment;
use crate::output::text;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Pauses between two polls: short at first, then longer.
pub struct Backoff {
    next: Duration,
    end: Instant,
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(2);

    pub fn new(timeout_s: u64) -> Self {
        let now = Instant::now();
        let end = now.checked_add(Duration::from_secs(timeout_s)).unwrap_or(now + Duration::from_secs(86_400 * 365));
        Backoff { next: Duration::from_millis(50), end }
    }

    /// Sleeps. Returns false when the time is over.
    pub fn pause(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.next.min(left));
        self.next = (self.next * 3 / 2).min(Self::LONGEST);
        true
    }
}

fn too_long(what: &str, wait: &Wait) -> Failure {
    Failure::other(format!("{what} has not finished after {} s. It continues in the background: see `hoody-state operation list`", wait.timeout_s))
}

/// Waits for the operation that an answer names, if any. An operation that the server does not know any more has ended.
pub fn operation(cx: &Context<'_>, answer: &Value, wait: &Wait) -> Outcome {
    operation_with(cx, answer, wait, |_| ())
}

/// The same; `seen` gets the operation each time that it was looked at.
pub fn operation_with(cx: &Context<'_>, answer: &Value, wait: &Wait, mut seen: impl FnMut(&Value)) -> Outcome {
    let Some(id) = answer.get("operation_id").and_then(Value::as_str).filter(|_| !wait.no_wait) else { return Ok(()) };
    let mut backoff = Backoff::new(wait.timeout_s);
    loop {
        let op = match cx.client.get(&format!("/operations/{}", segment(id))) {
            Err(f) if f.exit == exit::NOT_FOUND => return Ok(()),
            answer => answer?,
        };
        seen(&op);
        match op["status"].as_str() {
            Some("running") => {}
            Some("failed") => {
                let code = op.pointer("/error/code").and_then(Value::as_str).map(str::to_owned);
                let exit = code.as_deref().and_then(|word| word.parse().ok()).map_or(exit::OTHER, exit::of);
                let message = op.pointer("/error/message").map_or_else(|| format!("the operation {id} failed"), text);
                return Err(Failure { exit, message, code });
            }
            Some("cancelled") => return Err(Failure::other(format!("the operation {id} was cancelled"))),
            _ => return Ok(()),
        }
        if !backoff.pause() {
            return Err(too_long(&format!("the operation {id}"), wait));
        }
    }
}

/// Waits until a container that was deleted does not exist any more: then its name is free, and it is in the trash or deleted for good.
pub fn gone(cx: &Context<'_>, id: &str, name: &str, wait: &Wait) -> Outcome {
    if wait.no_wait {
        return Ok(());
    }
    let mut backoff = Backoff::new(wait.timeout_s);
    loop {
        match cx.client.get(&format!("/containers/{}", segment(id))) {
            Ok(_) => {}
            Err(f) if f.exit == exit::NOT_FOUND => return Ok(()),
            // Without the right to look at it there is nothing to wait for.
            Err(f) if f.exit == exit::DENIED => return Ok(()),
            Err(f) => return Err(f),
        }
        if !backoff.pause() {
            return Err(too_long(&format!("the deletion of {name}"), wait));
        }
    }
}

/// Waits until a container is no longer being created or copied. It fails if the container could not be started.
pub fn running(cx: &Context<'_>, created: Value, wait: &Wait) -> Outcome<Value> {
    let Some(id) = created["id"].as_str().map(str::to_owned).filter(|_| !wait.no_wait) else { return Ok(created) };
    let mut now = created;
    let mut backoff = Backoff::new(wait.timeout_s);
    loop {
        match now["status"].as_str() {
            Some("creating" | "copying" | "claiming") => {}
            Some("failed") => {
                let why = now.get("status_message").filter(|m| m.is_string()).map_or_else(String::new, |m| format!(": {}", text(m)));
                return Err(Failure::other(format!("the container {} could not be started{why}", text(&now["name"]))));
            }
            _ => return Ok(now),
        }
        if !backoff.pause() {
            return Err(too_long(&format!("the container {}", text(&now["name"])), wait));
        }
        now = cx.client.get(&format!("/containers/{}", segment(&id)))?;
    }
}
