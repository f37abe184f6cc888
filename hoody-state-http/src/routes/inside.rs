//! Commands in a running container, and its console.

use super::Routes;
use crate::app::{App, Shared};
use crate::auth::Identity;
use crate::envelope::{ApiError, Envelope, Reply, ok};
use crate::extract::{Id, Input, Query, invalid};
use crate::slots::{Holder, Slot};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hoody_state::Code;
use hoody_state::id::ContainerId;
use hoody_state::model::{DatabasesChoice, ExecDiff, ExecRecord, ExecSnapshot, OperationError, Restored, Snapshot, Status};
use hoody_state::runtime::{Cancel, ExecSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::routes;

/// How many bytes of stdout and of stderr are kept.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Below the time limit of the published clients.
const EXEC_TIMEOUT_MS: u64 = 25_000;
const EXEC_TIMEOUT_MAX_MS: u64 = 3_600_000;
/// How often a console is read while somebody follows it.
const FOLLOW: Duration = Duration::from_millis(250);

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(exec)).routes(routes!(logs))
}

/// A command to run.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ExecInput {
    /// The program and its arguments. No shell reads them.
    command: Vec<String>,
    /// Added to the container's environment.
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    /// Working directory. Default: `/`.
    #[serde(default)]
    cwd: Option<String>,
    /// Standard input of the command.
    #[serde(default)]
    stdin: Option<String>,
    /// The command is killed after this time, in milliseconds. Default 25,000, at most 3,600,000.
    #[serde(default)]
    timeout_ms: Option<i64>,
    /// `before`: a snapshot is taken first. `on_failure_undo`: it is also restored if the command fails, and the container boots from it.
    #[serde(default)]
    snapshot: Option<ExecSnapshot>,
    /// `revert` or `keep`: what an undo does with databases that other containers use too.
    #[serde(default)]
    databases: Option<DatabasesChoice>,
    /// `true`: the answer lists what changed in the container's files while the command ran, as it was before an undo.
    #[serde(default)]
    diff: bool,
}

/// The result of a command. Bytes that are not UTF-8 are shown as U+FFFD.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ExecAnswer {
    /// The exit code, or 128 plus the number of the signal that killed it.
    exit_code: i32,
    /// Standard output, at most 1 MiB.
    stdout: String,
    /// Standard error, at most 1 MiB.
    stderr: String,
    /// Whether a part of either was dropped.
    truncated: bool,
    /// Whether it was killed because its time was over.
    timed_out: bool,
    /// The snapshot that was taken before it, if one was asked for. It is deleted after a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Snapshot>,
    /// What changed in the container's files while it ran, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<ExecDiff>,
    /// Why `diff` is missing although it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_error: Option<OperationError>,
    /// The restore of that snapshot, if the command failed and was to be undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    undone: Option<Restored>,
}

/// Runs a command in a running container and waits until it ends.
#[utoipa::path(post, path = "/containers/{id}/exec", tag = "containers", operation_id = "exec", request_body = ExecInput, params(("id" = String, Path)),
    responses((status = 200, description = "The command has ended, with any exit code", body = Envelope<ExecAnswer>)))]
pub async fn exec(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<ExecInput>) -> Reply<ExecAnswer> {
    let (caller, body) = (input.caller, input.body);
    if body.command.first().is_none_or(String::is_empty) {
        return Err(invalid("command", "it must name a program").into());
    }
    if body.command.iter().chain(&body.cwd).any(|s| s.contains('\0')) {
        return Err(invalid("command", "it must not hold NUL").into());
    }
    let timeout_ms = match body.timeout_ms {
        None => EXEC_TIMEOUT_MS,
        Some(ms) => u64::try_from(ms)
            .ok()
            .filter(|ms| (1..=EXEC_TIMEOUT_MAX_MS).contains(ms))
            .ok_or_else(|| invalid("timeout_ms", format!("{ms} is out of range: 1 to {EXEC_TIMEOUT_MAX_MS}")))?,
    };
    let project = app.look(who.clone(), id.clone(), |host, id| Ok(host.container(id)?.project_id)).await?;
    let slot = app.counted.commands.take_now(&Holder::of(&who, project.as_str()), Code::ExecLimit)?;
    let cancel = Cancel::new()?;
    let spec = ExecSpec {
        command: body.command,
        env: body.env.unwrap_or_default(),
        cwd: body.cwd,
        stdin: body.stdin.unwrap_or_default().into_bytes(),
        timeout: Some(Duration::from_millis(timeout_ms)),
        output_limit: OUTPUT_LIMIT,
        cancel: Some(cancel.clone()),
    };
    // When the client disconnects or its token is revoked, this is dropped, and the command is killed: nobody would read its output.
    let _killed = OnDrop(cancel);
    let record = ExecRecord { snapshot: body.snapshot, databases: body.databases, diff: body.diff };
    let done = app.in_slot(slot, move |host| host.exec_recorded(&caller, &id, &spec, &record)).await.map_err(ApiError::on_snapshot)?;
    let output = done.output;
    let (diff, diff_error) = match done.diff.transpose() {
        Ok(diff) => (diff, None),
        Err(e) => (None, Some(OperationError { code: e.code().to_string(), message: e.message().to_owned() })),
    };
    let answer = ExecAnswer {
        exit_code: output.exit_code,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        truncated: output.truncated,
        timed_out: output.timed_out,
        snapshot: done.snapshot,
        diff,
        diff_error,
        undone: done.undone,
    };
    ok("Command ended", answer)
}

struct OnDrop(Cancel);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Which part of the console to show.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// Only this many of the last lines. Default: all that is kept.
    tail: Option<i64>,
    /// Keep sending new output until the container ends.
    #[serde(default)]
    follow: bool,
}

/// Shows the console output of init as plain text.
#[utoipa::path(get, path = "/containers/{id}/logs", tag = "containers", operation_id = "container_logs", params(("id" = String, Path), LogsQuery),
    responses((status = 200, description = "The console output", body = String, content_type = "text/plain")))]
pub async fn logs(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, Query(q): Query<LogsQuery>) -> Result<Response, ApiError> {
    let tail = q.tail.map(|n| usize::try_from(n).map_err(|_| invalid("tail", format!("{n} is out of range: at least 0")))).transpose()?;
    let (project, seen) = app.look(who.clone(), id.clone(), |host, id| Ok((host.container(id)?.project_id, host.console(id, None)?))).await?;
    let first = last_lines(&seen, tail).to_vec();
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    if !q.follow {
        return Ok((kind, first).into_response());
    }
    let slot = app.counted.followers.take_now(&Holder::of(&who, project.as_str()), Code::StreamLimit)?;
    let follower = Follower { app, id, seen, first: Some(first), _slot: slot };
    let body = stream::unfold(follower, |mut f| async move { f.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), f)) });
    Ok((kind, Body::from_stream(body)).into_response())
}

fn last_lines(text: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return text };
    if lines == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let start = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(lines - 1).map_or(0, |(i, _)| i + 1);
    &text[start..]
}

/// The output after `seen`. The console is bounded: when it is full its beginning is dropped, so the end of `seen` is searched in it.
fn news<'a>(seen: &[u8], now: &'a [u8]) -> &'a [u8] {
    if let Some(rest) = now.strip_prefix(seen) {
        return rest;
    }
    &now[overlap(now, seen)..]
}

/// The length of the longest prefix of `a` that is a suffix of `b` (Knuth, Morris and Pratt: linear for any text).
fn overlap(a: &[u8], b: &[u8]) -> usize {
    let mut borders: Vec<usize> = vec![0; a.len()];
    let step = |borders: &[usize], mut n: usize, byte: u8| {
        while n > 0 && (n == a.len() || a[n] != byte) {
            n = borders[n - 1];
        }
        if a.get(n) == Some(&byte) { n + 1 } else { 0 }
    };
    for i in 1..a.len() {
        borders[i] = step(&borders, borders[i - 1], a[i]);
    }
    b.iter().fold(0, |n, byte| step(&borders, n, *byte))
}

struct Follower {
    app: Arc<App>,
    id: ContainerId,
    seen: Vec<u8>,
    first: Option<Vec<u8>>,
    _slot: Slot,
}

impl Follower {
    /// The next piece of output; `None` when the container or the server ends.
    async fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(first) = self.first.take().filter(|f| !f.is_empty()) {
            return Some(first);
        }
        let mut closing = self.app.closing();
        loop {
            let id = self.id.clone();
            // The status first: everything that init wrote before it ended is then in the console.
            let (alive, now) = self
                .app
                .read(move |host| {
                    let alive = matches!(host.container(&id)?.status, Status::Creating | Status::Running | Status::Paused);
                    Ok((alive, host.console(&id, None)?))
                })
                .await
                .ok()?;
            let new = news(&self.seen, &now).to_vec();
            self.seen = now;
            if !new.is_empty() {
                return Some(new);
            }
            if !alive {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW) => {}
                _ = closing.wait_for(|c| *c) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_with_and_without_an_end() {
        let text = b"a\nb\nc\n";
        assert_eq!(last_lines(text, Some(2)), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb", Some(1)), b"b");
        assert_eq!(last_lines(text, Some(9)), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(b"", Some(3)), b"");
        assert_eq!(last_lines(text, None), text);
    }

    #[test]
    fn news_are_what_follows_what_was_seen_even_when_the_beginning_is_gone() {
        assert_eq!(news(b"ab", b"abc"), b"c");
        assert_eq!(news(b"", b"abc"), b"abc");
        assert_eq!(news(b"abcd", b"cdef"), b"ef");
        assert_eq!(news(b"abcd", b"xyz"), b"xyz");
        assert_eq!(news(b"ab", b"ab"), b"");
        assert_eq!(news(b"xaaab", b"aabaabc"), b"aabc");
        assert_eq!(overlap(b"aaa", b"aaaa"), 3);
        assert_eq!(overlap(b"", b"aaaa"), 0);
    }
}
