//! `snapshot …`

use crate::args::{Filter, OneSnapshot, Snapshot};
use crate::confirm::confirm;
use crate::container::path;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::{object, segment};
use crate::output::{Column, bytes, fields, rows, table, text, time};
use crate::wait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

const COLUMNS: [Column; 8] = [
    ("NAME", |s| text(&s["name"])),
    ("ALIAS", |s| s["replaced_alias"].as_str().map_or_else(|| text(&s["alias"]), |was| crate::output::plain(&format!("(was {was})")))),
    ("CREATED", |s| time(&s["created_at"])),
    ("EXPIRES", |s| time(&s["expires_at"])),
    ("SIZE", |s| bytes(&s["size"])),
    ("TRIGGER", |s| text(&s["trigger"])),
    ("PARENT", |s| text(&s["parent"])),
    ("PINNED", |s| text(&s["pinned"])),
];

fn of(cx: &Context<'_>, one: &OneSnapshot, rest: &str) -> Outcome<String> {
    path(cx, &one.container, &format!("/snapshots/{}{rest}", segment(&one.snapshot)))
}

/// The snapshot in an answer, which may be the answer itself.
fn inner(data: &Value) -> &Value {
    data.get("snapshot").filter(|s| s.is_object()).unwrap_or(data)
}

/// Whether it keeps what a restore, a promotion or a reset has overwritten, and nobody gave it a name.
fn is_undo(s: &Value) -> bool {
    s["trigger"] == "restore" && s["alias"].is_null() && s["pinned"].is_null()
}

/// The list as text. Of the snapshots that restores have kept only the newest is shown, unless all are wanted.
fn list(mut snapshots: Vec<Value>, all: bool) -> String {
    let made = |s: &Value| s["created_at"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let newest = snapshots.iter().filter(|s| is_undo(s)).max_by_key(|s| made(s)).map(|s| s["name"].clone());
    let before = snapshots.len();
    snapshots.retain(|s| all || !is_undo(s) || Some(&s["name"]) == newest.as_ref());
    let text = table(&snapshots, &COLUMNS);
    match before - snapshots.len() {
        0 => text,
        1 => format!("{text}(and 1 older snapshot that a restore has kept: --all)\n"),
        n => format!("{text}(and {n} older snapshots that restores have kept: --all)\n"),
    }
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Snapshot) -> Outcome {
    match command {
        Snapshot::List { container, filter, all } => {
            let query = query(&filter);
            let data = cx.client.get(&format!("{}{query}", path(cx, &container, "/snapshots")?))?;
            // Who asks for some of them wants to see these.
            cx.print(&data, |d| list(rows(d, "snapshots"), all || !query.is_empty()))
        }
        Snapshot::Create { container, alias, expiry, expires_in, description, labels, replace, keep_replaced } => {
            let labels: Map<String, Value> = labels.into_iter().map(|(k, v)| (k, json!(v))).collect();
            let body = object([
                ("alias", alias.map(Value::from)),
                ("expiry", expiry.map(Value::from)),
                ("expires_in", expires_in.map(Value::from)),
                ("description", description.map(Value::from)),
                ("labels", (!labels.is_empty()).then_some(Value::Object(labels))),
                ("on_alias_conflict", replace.then(|| json!("replace"))),
                ("keep_replaced", keep_replaced.map(Value::from)),
            ]);
            let data = cx.client.post(&path(cx, &container, "/snapshots")?, &body)?;
            cx.print(&data, |d| table(std::slice::from_ref(inner(d)), &COLUMNS))
        }
        Snapshot::Show(one) => {
            let data = cx.client.get(&of(cx, &one, "")?)?;
            cx.print(&data, |d| fields(inner(d)))
        }
        Snapshot::Restore { one, keep_current, databases, no_start, wait } => {
            let path = of(cx, &one, "")?;
            confirm(cx, &format!("overwrite the container {} with its snapshot {}", one.container, one.snapshot))?;
            let body = object([
                ("keep_current", keep_current.map(Value::from)),
                ("databases", databases.map(Value::from)),
                ("start", no_start.then_some(json!(false))),
            ]);
            let data = cx.client.put(&path, &body)?;
            wait::operation(cx, &data, &wait)?;
            let undo =
                data["undo"].as_str().map(|u| format!("; the state before is kept as snapshot {u} (undo with `hoody-state snapshot undo {}`)", one.container));
            cx.say(&data, format!("restored {} to {}{}", one.container, one.snapshot, undo.unwrap_or_default()))
        }
        Snapshot::Undo { change, databases } => {
            let (container, path) = (&change.container, path(cx, &change.container, "/undo")?);
            confirm(cx, &format!("undo the last restore of the container {container}"))?;
            let body = databases.map(|d| json!({ "databases": d }));
            let data = cx.client.call("POST", &path, body.as_ref())?;
            wait::operation(cx, &data, &change.wait)?;
            cx.say(&data, format!("undid the last restore of {container}"))
        }
        Snapshot::Rename { one, alias, none: _ } => change(cx, &one, "PUT", "/alias", Some(&json!({ "alias": alias }))),
        Snapshot::Pin { one, reason } => change(cx, &one, "PUT", "/pin", Some(&json!({ "reason": reason }))),
        Snapshot::Unpin(one) => change(cx, &one, "DELETE", "/pin", None),
        Snapshot::Expire { one, when } => {
            if let Some(age) = when.expires_in {
                return change(cx, &one, "PUT", "/expiry", Some(&json!({ "expires_in": age })));
            }
            let at = match (when.days, when.at) {
                (Some(days), _) => Some(in_days(Timestamp::now(), days)?),
                (None, at) => at,
            };
            change(cx, &one, "PUT", "/expiry", Some(&json!({ "expires_at": at.map(hoody_state::clock::rfc3339::format) })))
        }
        Snapshot::Delete(one) => {
            let path = of(cx, &one, "")?;
            confirm(cx, &format!("delete the snapshot {} of {}", one.snapshot, one.container))?;
            let data = cx.client.delete(&path)?;
            cx.say(&data, format!("deleted {}", one.snapshot))
        }
    }
}

/// The query of a list.
fn query(filter: &Filter) -> String {
    let others = [("since", &filter.since), ("until", &filter.until), ("trigger", &filter.trigger), ("alias", &filter.alias)];
    let others = others.into_iter().filter_map(|(name, value)| value.as_ref().map(|v| (name, v)));
    let pairs: Vec<String> = filter.labels.iter().map(|l| ("label", l)).chain(others).map(|(name, value)| format!("{name}={}", segment(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn change(cx: &mut Context<'_>, one: &OneSnapshot, method: &str, rest: &str, body: Option<&Value>) -> Outcome {
    let data = cx.client.call(method, &of(cx, one, rest)?, body)?;
    cx.print(&data, |d| if inner(d).is_object() { fields(inner(d)) } else { String::new() })
}

fn in_days(now: Timestamp, days: u32) -> Outcome<Timestamp> {
    now.checked_add(SignedDuration::from_hours(24 * i64::from(days)))
        .map_err(|e| Failure::new(exit::USAGE, format!("{days} days from now is not a valid time: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_restores_have_kept_the_newest_is_in_the_list() {
        let undo = |n: u32| json!({ "name": format!("undo-{n}"), "trigger": "restore", "created_at": format!("2026-11-2{n}T10:00:00Z") });
        let mut snapshots: Vec<Value> = [2, 4, 1, 3].map(undo).into();
        snapshots.push(json!({ "name": "mine", "trigger": "manual", "created_at": "2026-11-20T10:00:00Z" }));
        snapshots.push(json!({ "name": "undo-0", "alias": "kept", "trigger": "restore", "created_at": "2026-11-20T10:00:00Z" }));
        let shown = list(snapshots.clone(), false);
        let names: Vec<&str> = shown.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(names, ["undo-4", "mine", "undo-0", "(and"], "{shown}");
        assert!(shown.ends_with("(and 3 older snapshots that restores have kept: --all)\n"), "{shown}");
        assert_eq!(list(snapshots, true).lines().count(), 7);
        assert_eq!(list(vec![undo(1)], false).lines().count(), 2);
    }
}
