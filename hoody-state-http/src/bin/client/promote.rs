//! `promote` and `reset`

use crate::args::{Prefer, Promote, Reset, ResetTo};
use crate::confirm::confirm;
use crate::container::path;
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::object;
use crate::resolve;
use crate::wait;
use serde_json::{Value, json};

pub fn promote(cx: &mut Context<'_>, a: Promote) -> Outcome {
    let url = path(cx, &a.fork, "/promote")?;
    let into = a.into.as_deref().map(|c| resolve::container(cx, c)).transpose()?;
    let prefer = a.prefer.map(|p| match p {
        Prefer::Fork => "fork",
        Prefer::Target => "target",
    });
    let target = a.into.clone().unwrap_or_else(|| "the container that it came from".into());
    confirm(cx, &format!("put the changes of {} into {target}, which boots afresh if it runs", a.fork))?;
    let body = object([("into", into.map(Value::from)), ("prefer", prefer.map(Value::from))]);
    let data = cx.client.post(&url, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let kept = data["undo"].as_str().map_or_else(String::new, |u| format!("; what it was is kept as {u}"));
    let message = match (data["changes"].as_u64(), data["conflict_count"].as_u64()) {
        (Some(_), _) if data["undo"].is_null() => format!("nothing of {} was to be taken over", a.fork),
        (Some(n), Some(0)) => format!("{} of {} in {target}{kept}", counted(n, "change is", "changes are"), a.fork),
        (Some(n), Some(c)) => {
            let (changes, conflicts) = (counted(n, "change is", "changes are"), counted(c, "conflict was", "conflicts were"));
            format!("{changes} of {} in {target}, {conflicts} resolved{kept}", a.fork)
        }
        _ if a.wait.no_wait => format!("the changes of {} are being taken over", a.fork),
        _ => format!("the changes of {} are in {target}", a.fork),
    };
    cx.say(&data, message)
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

pub fn reset(cx: &mut Context<'_>, a: Reset) -> Outcome {
    let url = path(cx, &a.fork, "/reset")?;
    let (to, what) = match a.to {
        ResetTo::BranchPoint => ("branch_point", "its branch point"),
        ResetTo::Source => ("source", "the present state of its source"),
    };
    confirm(cx, &format!("take {} back to {what}", a.fork))?;
    let body = object([("to", Some(json!(to))), ("start", a.no_start.then_some(json!(false)))]);
    let data = cx.client.post(&url, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let kept = data["undo"].as_str().map_or_else(String::new, |u| format!("; what it was is kept as {u}"));
    let message = if a.wait.no_wait && data["snapshot"].is_null() { "is being reset to" } else { "is back at" };
    cx.say(&data, format!("{} {message} {what}{kept}", a.fork))
}
