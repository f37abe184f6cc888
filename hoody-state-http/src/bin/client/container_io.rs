//! `container exec` and `container logs`.

use crate::container::path;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::style::Style;
use hoody_state::model::{DiffLine, ExecDiff};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Read, Write};

/// A command to run.
pub struct Exec {
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub interactive: bool,
    pub timeout_ms: u64,
    /// `before` or `on_failure_undo`.
    pub snapshot: Option<&'static str>,
    pub diff: bool,
    pub databases: Option<String>,
    pub command: Vec<String>,
}

/// Runs a command in a container and prints its output. Returns its exit code.
pub fn exec(cx: &mut Context<'_>, container: &str, e: &Exec) -> Outcome<u8> {
    let path = path(cx, container, "/exec")?;
    let mut body = Map::from_iter([("command".to_owned(), json!(e.command))]);
    if !e.env.is_empty() {
        body.insert("env".to_owned(), e.env.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>().into());
    }
    if let Some(cwd) = &e.cwd {
        body.insert("cwd".to_owned(), json!(cwd));
    }
    body.insert("timeout_ms".to_owned(), json!(e.timeout_ms));
    body.extend(e.snapshot.map(|s| ("snapshot".to_owned(), json!(s))));
    body.extend(e.diff.then(|| ("diff".to_owned(), json!(true))));
    body.extend(e.databases.as_ref().map(|d| ("databases".to_owned(), json!(d))));
    if e.interactive {
        let mut input = String::new();
        std::io::stdin().lock().read_to_string(&mut input).map_err(|e| Failure::other(format!("cannot read standard input as text: {e}")))?;
        body.insert("stdin".to_owned(), json!(input));
    }
    let data = cx.client.call_within("POST", &path, Some(&Value::Object(body)), None)?;
    if cx.json {
        cx.print(&data, |_| String::new())?;
    } else {
        cx.out.write_all(data["stdout"].as_str().unwrap_or_default().as_bytes())?;
        cx.out.flush()?;
        let mut err = std::io::stderr();
        err.write_all(data["stderr"].as_str().unwrap_or_default().as_bytes())?;
        if data["truncated"].as_bool() == Some(true) {
            writeln!(err, "(the output was too long for the server and was cut)")?;
        }
        if data["timed_out"].as_bool() == Some(true) {
            writeln!(err, "(the command was killed after {} ms: see --timeout-ms)", e.timeout_ms)?;
        }
    }
    if !cx.json && e.diff {
        let style = if std::io::stderr().is_terminal() { cx.style } else { Style::default() };
        match serde_json::from_value::<ExecDiff>(data["diff"].clone()) {
            Ok(d) => {
                d.records.into_iter().map(DiffLine::Record).chain([DiffLine::Summary(d.summary)]).for_each(|l| eprint!("{}", crate::diff::shown(&l, style)))
            }
            Err(_) => eprintln!("(what changed cannot be shown: {})", data["diff_error"]["message"].as_str().unwrap_or("the server does not say why")),
        }
    }
    if !cx.json
        && let Some(name) = data["snapshot"]["name"].as_str()
    {
        match data["undone"]["undo"].as_str() {
            Some(kept) => eprintln!("(the command failed, and {container} is as it was before; what the command left is kept as {kept})"),
            None => eprintln!("(the state before the command is kept as {name} for a day)"),
        }
    }
    // A command that was killed by a signal has no exit code.
    Ok(data["exit_code"].as_i64().map_or(1, |c| u8::try_from(c).unwrap_or(1)))
}

/// Prints the console output of a container's init.
pub fn logs(cx: &mut Context<'_>, container: &str, follow: bool, tail: Option<u64>) -> Outcome {
    let mut query = vec![];
    query.extend(tail.map(|n| format!("tail={n}")));
    query.extend(follow.then(|| "follow=true".to_owned()));
    let mark = if query.is_empty() { "" } else { "?" };
    let path = format!("{}{mark}{}", path(cx, container, "/logs")?, query.join("&"));
    let answer = cx.client.stream(&path, "text/plain, */*", None)?;
    let is_json = answer.headers().get("content-type").and_then(|v| v.to_str().ok()).is_some_and(|t| t.starts_with("application/json"));
    let mut reader = answer.into_body().into_reader();
    if is_json {
        let answer: Value = serde_json::from_reader(reader).map_err(|e| Failure::other(format!("the log is not valid JSON: {e}")))?;
        let data = &answer["data"];
        return cx.print(data, |d| d.as_str().or_else(|| d["logs"].as_str()).map_or_else(|| format!("{d:#}\n"), str::to_owned));
    }
    let mut buffer = [0u8; 16 << 10];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| Failure::other(format!("the connection was lost while the log was read: {e}")))?;
        if n == 0 {
            return Ok(());
        }
        cx.out.write_all(&buffer[..n])?;
        cx.out.flush()?;
    }
}
