//! `promote` and `reset`

use crate::args::{Prefer, Promote, Reset, ResetTo};
use crate::confirm::confirm;
use crate::container::path;
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::{object, segment};
use crate::resolve;
use crate::wait;
use serde_json::{Value, json};

pub fn promote(cx: &mut Context<'_>, a: Promote) -> Outcome {
    let url = path(cx, &a.fork, "/promote")?;
    let into = a.into.as_deref().map(|c| resolve::container(cx, c)).transpose()?;
    let row = cx.client.get(&path(cx, &a.fork, "")?)?;
    let fork = row["name"].as_str().unwrap_or(&a.fork).to_owned();
    let target = match into.as_deref().or(row["source_container_id"].as_str()) {
        Some(id) => name_of(cx, id),
        // It is no fork, and the server says so.
        None => "the container that it came from".into(),
    };
    let prefer = a.prefer.map(|p| match p {
        Prefer::Fork => "fork",
        Prefer::Target => "target",
    });
    confirm(cx, &format!("put the changes of the fork {fork} into {target}, which boots afresh if it runs"))?;
    let body = object([("into", into.map(Value::from)), ("prefer", prefer.map(Value::from))]);
    let data = cx.client.post(&url, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let target = data["target_id"].as_str().map_or(target, |id| name_of(cx, id));
    let kept = data["undo"].as_str().map_or_else(String::new, |u| format!("; what {target} was is kept as {u}"));
    let message = match (data["changes"].as_u64(), data["conflict_count"].as_u64()) {
        (Some(_), _) if data["undo"].is_null() => format!("nothing of {fork} was to be taken over into {target}"),
        (Some(n), Some(0)) => format!("{} of {fork} in {target}{kept}", counted(n, "change is", "changes are")),
        (Some(n), Some(c)) => {
            let (changes, conflicts) = (counted(n, "change is", "changes are"), counted(c, "conflict was", "conflicts were"));
            format!("{changes} of {fork} in {target}, {conflicts} resolved{kept}")
        }
        _ if a.wait.no_wait => format!("the changes of {fork} are being taken over into {target}"),
        _ => format!("the changes of {fork} are in {target}"),
    };
    cx.say(&data, message)
}

/// The name of a container; its id if it is not known.
fn name_of(cx: &Context<'_>, id: &str) -> String {
    let row = cx.client.get(&format!("/containers/{}", segment(id))).unwrap_or_default();
    row["name"].as_str().unwrap_or(id).to_owned()
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
