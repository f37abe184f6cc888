//! `policy …`

use crate::args::{NewPolicy, Policy, PolicyEvent, PolicyTarget};
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::object;
use crate::output::{Column, bytes, line, rows, table, text, time};
use crate::resolve;
use hoody_state::model::AutomaticEvent;
use serde_json::{Map, Value, json};
use std::io::Read;

/// The largest file of a policy, in bytes: what the server takes.
const MOST: u64 = 1 << 20;

const SCHEDULES: [Column; 6] = [
    ("SCHEDULE", |s| text(&s["name"])),
    ("CRON", |s| text(&s["cron"])),
    ("KEEPS", |s| counts(&s["keep"])),
    ("MAX AGE", |s| text(&s["max_age"])),
    ("CONDITIONS", conditions),
    ("NEXT RUN", |s| time(&s["next"])),
];
const KEPT: [Column; 4] =
    [("SNAPSHOT", |s| text(&s["snapshot"])), ("TAKEN", |s| time(&s["created_at"])), ("SCHEDULE", |s| text(&s["schedule"])), ("KEPT BY", reasons)];
const REMOVED: [Column; 4] = [
    ("SNAPSHOT", |s| text(&s["snapshot"])),
    ("TAKEN", |s| time(&s["created_at"])),
    ("SCHEDULE", |s| text(&s["schedule"])),
    ("FREES", |s| bytes(&s["frees_bytes"])),
];
const RUNS: [Column; 2] = [("SCHEDULE", |r| text(&r["schedule"])), ("NEXT RUN", |r| time(&r["at"]))];
const DAYS: [Column; 6] = [
    ("DAY", |d| text(&d["date"])),
    ("TAKEN", |d| text(&d["taken"])),
    ("REMOVED", |d| text(&d["removed"])),
    ("OF SCHEDULES", |d| rows(d, "snapshots").len().to_string()),
    ("OLDEST", |d| rows(d, "snapshots").last().map_or_else(|| "-".to_owned(), |s| time(&s["taken_at"]))),
    ("OTHERS", |d| text(&d["others"])),
];

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Policy) -> Outcome {
    match command {
        Policy::Show { target } => {
            let data = cx.client.get(&path(cx, &target)?)?;
            cx.print(&data, shown)
        }
        Policy::Set { target, what } => {
            let policy = policy_of(what)?.ok_or_else(|| Failure::new(exit::USAGE, "say what to keep (--daily 7), or give --file, --on or --none"))?;
            let data = cx.client.put(&path(cx, &target)?, &policy)?;
            cx.print(&data, shown)
        }
        Policy::Delete { target } => {
            let path = path(cx, &target)?;
            let (name, now) = (name_of(&target), cx.client.get(&path)?);
            if now["inherited_from"] != level_of(&target) {
                return cx.print(&now, |d| format!("{}{}", line(&format!("{name} has no policy of its own: nothing to delete; what applies:")), shown(d)));
            }
            confirm(cx, &format!("delete the snapshot policy of {name}"))?;
            let data = cx.client.delete(&path)?;
            cx.print(&data, |d| format!("{}{}", line(&format!("deleted the policy of {name}; now applies:")), shown(d)))
        }
        Policy::Preview { container, what, days } => {
            let id = resolve::container(cx, &container)?;
            let body = object([("policy", policy_of(what)?), ("simulate_days", days.map(Value::from))]);
            let data = cx.client.post(&format!("/containers/{id}/snapshot-policy/preview"), &body)?;
            cx.print(&data, preview)
        }
    }
}

fn path(cx: &Context<'_>, target: &PolicyTarget) -> Outcome<String> {
    Ok(match target {
        PolicyTarget { container: Some(c), .. } => format!("/containers/{}/snapshot-policy", resolve::container(cx, c)?),
        PolicyTarget { project: Some(p), .. } => format!("/projects/{}/snapshot-policy", resolve::project(cx, p)?),
        PolicyTarget { .. } => "/snapshot-policy".to_owned(),
    })
}

fn name_of(target: &PolicyTarget) -> String {
    let project = || target.project.as_ref().map(|p| format!("the project {p}"));
    target.container.clone().or_else(project).unwrap_or_else(|| "the server".to_owned())
}

/// What the server calls the place of a policy.
fn level_of(target: &PolicyTarget) -> &'static str {
    match target {
        PolicyTarget { container: Some(_), .. } => "container",
        PolicyTarget { project: Some(_), .. } => "project",
        PolicyTarget { .. } => "server",
    }
}

/// The policy that the arguments describe; none if they describe none.
fn policy_of(what: NewPolicy) -> Outcome<Option<Value>> {
    if let Some(file) = &what.file {
        return read(file).map(Some);
    }
    if what.none {
        return Ok(Some(json!({ "schedules": [], "on": {} })));
    }
    let tiers = [
        ("last", what.last, None),
        ("hourly", what.hourly, Some("@hourly")),
        ("daily", what.daily, Some("@daily")),
        ("weekly", what.weekly, Some("@weekly")),
        ("monthly", what.monthly, Some("@monthly")),
        ("yearly", what.yearly, Some("@yearly")),
    ];
    let keep: Map<String, Value> = tiers.iter().filter_map(|(tier, n, _)| n.map(|n| ((*tier).to_owned(), n.into()))).collect();
    let on: Map<String, Value> = what.on.iter().map(|event| (event_name(*event).to_owned(), true.into())).collect();
    let of_schedule = what.cron.is_some() || what.max_age.is_some() || what.spread.is_some() || what.while_running || what.only_if_changed;
    if keep.is_empty() && of_schedule {
        return Err(Failure::new(exit::USAGE, "say what to keep of the schedule's snapshots, such as --daily 7"));
    }
    if keep.is_empty() && on.is_empty() {
        return match what.timezone {
            Some(_) => Err(Failure::new(exit::USAGE, "say what to keep, such as --daily 7")),
            None => Ok(None),
        };
    }
    let mut schedules = Vec::new();
    if !keep.is_empty() {
        let shortest = tiers.iter().filter(|(_, n, _)| n.is_some_and(|n| n > 0)).find_map(|(.., cron)| *cron);
        let cron = what.cron.or_else(|| shortest.map(str::to_owned));
        let cron =
            cron.ok_or_else(|| Failure::new(exit::USAGE, "say when to take snapshots: give --cron, or a number of hours, days, weeks, months or years"))?;
        // Always the same name: a schedule goes on with the snapshots that it took before it was changed.
        schedules.push(object([
            ("name", Some("auto".into())),
            ("cron", Some(cron.into())),
            ("keep", Some(keep.into())),
            ("max_age", what.max_age.map(Value::from)),
            ("spread", what.spread.map(Value::from)),
            ("while", what.while_running.then(|| "running".into())),
            ("only_if_changed", what.only_if_changed.then(|| true.into())),
        ]));
    }
    Ok(Some(object([("timezone", what.timezone.map(Value::from)), ("schedules", Some(schedules.into())), ("on", Some(on.into()))])))
}

fn event_name(event: PolicyEvent) -> &'static str {
    match event {
        PolicyEvent::Stop => "stop",
        PolicyEvent::Oom => "oom",
        PolicyEvent::Restore => "restore",
        PolicyEvent::ExecFailure => "exec_failure",
        PolicyEvent::BeforeDelete => "before_delete",
    }
}

fn read(file: &std::path::Path) -> Outcome<Value> {
    let shown = file.display();
    let mut reader: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(|e| Failure::other(format!("cannot open {shown}: {e}")))?)
    };
    let mut content = String::new();
    reader.by_ref().take(MOST + 1).read_to_string(&mut content).map_err(|e| Failure::other(format!("cannot read {shown} as text: {e}")))?;
    if content.len() as u64 > MOST {
        return Err(Failure::other(format!("{shown} is larger than {MOST} bytes: it is not a policy")));
    }
    match serde_json::from_str(&content) {
        Ok(policy @ Value::Object(_)) => Ok(policy),
        Ok(_) => Err(Failure::other(format!("{shown} is not a policy: it must be a JSON object"))),
        Err(e) => Err(Failure::other(format!("{shown} is not JSON: {e}"))),
    }
}

/// The policy that applies.
fn shown(data: &Value) -> String {
    let policy = &data["policy"];
    if policy.is_null() {
        return line("no snapshot policy applies: nothing is taken automatically");
    }
    let mut out = line(&format!("policy of the {}, times in {}", text(&data["inherited_from"]), text(&policy["timezone"])));
    let next = rows(data, "next_runs");
    let mut schedules = rows(policy, "schedules");
    for schedule in &mut schedules {
        let run = next.iter().find(|r| r["schedule"] == schedule["name"]).map_or(Value::Null, |r| r["at"].clone());
        schedule["next"] = run;
    }
    if !schedules.is_empty() {
        out.push('\n');
        out.push_str(&table(&schedules, &SCHEDULES));
    }
    let on: Vec<String> = policy["on"].as_object().into_iter().flatten().filter(|(_, v)| **v != json!(false)).map(event_text).collect();
    if !on.is_empty() {
        out.push_str(&format!("\nat events\n{}", on.concat()));
    }
    if schedules.is_empty() && on.is_empty() {
        out.push_str(&line("it takes no snapshots, and switches inherited policies off"));
    }
    out + &warnings(data)
}

/// What an event does, with the limits that the server takes where the policy says none.
fn event_text((event, value): (&String, &Value)) -> String {
    let defaults = AutomaticEvent::ALL.into_iter().find(|e| e.as_str() == event).map(AutomaticEvent::defaults).unwrap_or_default();
    let age = value["max_age"].as_str().map(str::to_owned).or_else(|| defaults.max_age.map(|a| a.to_string()));
    let most = value["keep"].as_u64().or_else(|| defaults.keep.map(u64::from));
    let what = match event.as_str() {
        "before_delete" => "deleted containers: in the trash",
        "restore" => "undo snapshots: kept",
        _ => "a snapshot: kept",
    };
    let age = age.map_or_else(|| " as long as the server says".to_owned(), |a| format!(" for {a}"));
    let most = most.map_or_else(String::new, |n| if event == "before_delete" { format!(", the newest {n} of a project") } else { format!(", the newest {n}") });
    line(&format!("  {event}  {what}{age}{most}"))
}

fn conditions(schedule: &Value) -> String {
    let running = (schedule["while"] == "running").then(|| "while it runs".to_owned());
    let changed = (schedule["only_if_changed"] == true).then(|| "if it changed".to_owned());
    let spread = schedule["spread"].as_str().map(|s| format!("spread over {s}"));
    let all: Vec<String> = [running, changed, spread].into_iter().flatten().collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// `7 daily, 12 monthly`
fn counts(keep: &Value) -> String {
    let order = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];
    let all: Vec<String> = order.iter().filter_map(|tier| keep[tier].as_u64().filter(|n| *n > 0).map(|n| format!("{n} {tier}"))).collect();
    all.join(", ")
}

/// `daily 2026-11-29 (1), weekly 2026-W48 (1)`, and what protects it.
fn reasons(snapshot: &Value) -> String {
    let mut all: Vec<String> = rows(snapshot, "reasons")
        .iter()
        .map(|r| {
            let oldest = if r["oldest"] == true { ", the oldest" } else { "" };
            format!("{} {} ({}{oldest})", text(&r["tier"]), text(&r["bucket"]), text(&r["nth"]))
        })
        .collect();
    all.extend(snapshot["protected_by"].as_str().map(|p| {
        match p {
            "future" => "ignored: dated in the future",
            "incomplete" => "not complete yet",
            "pinned" => "pinned",
            "manual" => "not taken by a schedule",
            "undo" => "undo snapshot, until it expires",
            "event" => "taken at an event, until it expires",
            "other_schedule" => "of a schedule that the policy does not have",
            "base" => "a sync or copy needs it",
            "newest" => "the newest",
            other => other,
        }
        .to_owned()
    }));
    all.join(", ")
}

fn preview(data: &Value) -> String {
    let (kept, removed): (Vec<Value>, Vec<Value>) = rows(data, "snapshots").into_iter().partition(|s| s["action"] == "keep");
    let mut out = format!("kept: {}\n", kept.len());
    if !kept.is_empty() {
        out.push_str(&table(&kept, &KEPT));
    }
    out.push_str(&format!("\nremoved: {}\n", removed.len()));
    if !removed.is_empty() {
        out.push_str(&table(&removed, &REMOVED));
    }
    let runs = rows(data, "next_runs");
    if !runs.is_empty() {
        out.push('\n');
        out.push_str(&table(&runs, &RUNS));
    }
    if let Some(days) = data["days"].as_array() {
        out.push('\n');
        out.push_str(&table(days, &DAYS));
    }
    out + &warnings(data)
}

fn warnings(data: &Value) -> String {
    let all: String = rows(data, "warnings").iter().map(|w| line(&format!("warning: {}", text(w)))).collect();
    if all.is_empty() { all } else { format!("\n{all}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_make_one_schedule_of_the_shortest_period() {
        let policy = |what: NewPolicy| policy_of(what).map_err(|e| e.message);
        let schedule = |what: NewPolicy| policy(what).unwrap().unwrap()["schedules"][0].clone();
        assert_eq!(
            schedule(NewPolicy { hourly: Some(24), daily: Some(7), last: Some(2), ..Default::default() }),
            json!({ "name": "auto", "cron": "@hourly", "keep": { "last": 2, "hourly": 24, "daily": 7 } })
        );
        assert_eq!(schedule(NewPolicy { monthly: Some(12), ..Default::default() })["cron"], "@monthly");
        assert_eq!(schedule(NewPolicy { last: Some(3), cron: Some("*/5 * * * *".into()), ..Default::default() })["cron"], "*/5 * * * *");
        assert!(policy(NewPolicy { last: Some(3), ..Default::default() }).unwrap_err().contains("--cron"));
        assert!(policy(NewPolicy { cron: Some("@daily".into()), ..Default::default() }).unwrap_err().contains("--daily 7"));
        assert!(policy(NewPolicy { timezone: Some("UTC".into()), ..Default::default() }).unwrap_err().contains("--daily 7"));
        assert_eq!(policy(NewPolicy::default()), Ok(None));
        assert_eq!(policy(NewPolicy { none: true, ..Default::default() }), Ok(Some(json!({ "schedules": [], "on": {} }))));
        let events = NewPolicy { on: vec![PolicyEvent::Stop, PolicyEvent::ExecFailure], ..Default::default() };
        assert_eq!(policy(events), Ok(Some(json!({ "schedules": [], "on": { "stop": true, "exec_failure": true } }))));
    }

    #[test]
    fn a_preview_is_two_tables() {
        let snapshot = |name: &str, action: &str, reasons: Value, protected: Value| {
            let taken = "2026-11-29T02:00:00.000Z";
            json!({ "snapshot": name, "created_at": taken, "schedule": "daily", "action": action, "reasons": reasons, "protected_by": protected })
        };
        let text = preview(&json!({
            "snapshots": [
                snapshot("a", "keep", json!([{ "tier": "daily", "bucket": "2026-11-29", "nth": 1 }, { "tier": "weekly", "bucket": "2026-W48", "nth": 2, "oldest": true }]), json!("newest")),
                snapshot("b", "remove", json!([]), Value::Null),
            ],
            "next_runs": [{ "schedule": "daily", "at": "2026-11-30T02:00:00.000Z" }],
            "warnings": ["mind this"],
        }));
        let expected = "kept: 1\n\
            SNAPSHOT  TAKEN                 SCHEDULE  KEPT BY\n\
            a         2026-11-29 02:00:00Z  daily     daily 2026-11-29 (1), weekly 2026-W48 (2, the oldest), the newest\n\
            \n\
            removed: 1\n\
            SNAPSHOT  TAKEN                 SCHEDULE  FREES\n\
            b         2026-11-29 02:00:00Z  daily     -\n\
            \n\
            SCHEDULE  NEXT RUN\n\
            daily     2026-11-30 02:00:00Z\n\
            \n\
            warning: mind this\n";
        assert_eq!(text, expected);
    }
}
