//! `container …`

use crate::args::{Change, Container, CreateContainer};
use crate::confirm::confirm;
use crate::container_io;
use crate::context::Context;
use crate::copies;
use crate::failure::Outcome;
use crate::http::{object, segment};
use crate::output::{Column, bytes, fields, table, text, time};
use crate::resolve::{self, all_rows};
use crate::trash;
use crate::usage;
use crate::wait;
use serde_json::{Map, Value, json};

pub const COLUMNS: [Column; 7] = [
    ("ID", |c| text(&c["id"])),
    ("PROJECT", |c| text(&c["project_alias"])),
    ("NAME", |c| text(&c["name"])),
    ("STATUS", |c| text(&c["status"])),
    ("IMAGE", |c| text(&c["container_image"])),
    ("SNAPSHOTS", |c| text(&c["snapshot_count"])),
    ("CREATED", |c| time(&c["created_at"])),
];

/// Runs the command. The exit code is that of a command run in the container, else 0.
pub fn run(cx: &mut Context<'_>, command: Container) -> Outcome<u8> {
    match command {
        Container::List { project } => {
            let path = match project {
                Some(p) => format!("/projects/{}/containers", resolve::project(cx, &p)?),
                None => "/containers/".to_owned(),
            };
            let rows = Value::Array(all_rows(cx, &path, "containers")?);
            cx.print(&rows, |d| table(d.as_array().map_or(&[], Vec::as_slice), &COLUMNS))?;
        }
        Container::Create(a) => create(cx, *a)?,
        Container::Update { container, disk: limit, api_socket } => {
            let given = [("disk", limit.as_deref().map(disk)), ("api_socket", api_socket.map(Value::from))];
            let body: Map<String, Value> = given.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
            let data = cx.client.call("PATCH", &path(cx, &container, "")?, Some(&Value::Object(body.clone())))?;
            cx.say(&data, format!("{container}: {}", updated(&data, &body)))?;
        }
        Container::Show { container } => {
            let data = cx.client.get(&path(cx, &container, "")?)?;
            cx.print(&data, fields)?;
        }
        Container::Start(c) => lifecycle(cx, &c, "start", &Value::Null)?,
        Container::Stop { change, force, grace } => {
            let body = grace.map_or(Value::Null, |s| json!({ "timeout": s }));
            lifecycle(cx, &change, if force { "force-stop" } else { "stop" }, &body)?;
        }
        Container::Restart(c) => lifecycle(cx, &c, "restart", &Value::Null)?,
        Container::Pause(c) => lifecycle(cx, &c, "pause", &Value::Null)?,
        Container::Resume(c) => lifecycle(cx, &c, "resume", &Value::Null)?,
        Container::Delete(c) => {
            let (name, id) = (&c.change.container, resolve::container(cx, &c.change.container)?);
            confirm(cx, &format!("delete the container {name} and all its snapshots"))?;
            let data = cx.client.delete(&format!("/containers/{id}{}", if c.permanently { "?trash=false" } else { "" }))?;
            wait::operation(cx, &data, &c.change.wait)?;
            wait::gone(cx, &id, name, &c.change.wait)?;
            let end = trash::end_of(cx, &id, c.change.wait.no_wait);
            cx.say(&data, format!("{name}: {}", end.sentence(&id, "")))?;
        }
        Container::Copy(a) => copies::copy(cx, a)?,
        Container::Fork(a) => copies::fork(cx, a)?,
        Container::Sync(a) => copies::sync(cx, a)?,
        Container::Move(a) => copies::relocate(cx, a)?,
        Container::Logs { container, follow, tail } => container_io::logs(cx, &container, follow, tail)?,
        Container::Exec { container, env, cwd, interactive, timeout_ms, snapshot, undo_on_failure, diff, databases, command } => {
            let snapshot = if undo_on_failure { Some("on_failure_undo") } else { snapshot.then_some("before") };
            return container_io::exec(cx, &container, &container_io::Exec { env, cwd, interactive, timeout_ms, snapshot, diff, databases, command });
        }
        Container::Stats { container } => {
            let data = cx.client.get(&path(cx, &container, "/stats")?)?;
            cx.print(&data, stats)?;
        }
        Container::Usage { container, wait } => {
            let data = cx.client.get_measured(&path(cx, &container, "/usage")?, wait)?;
            cx.print(&data, usage::shown)?;
        }
        Container::Env { container, set, unset } => env(cx, &container, &set, &unset)?,
    }
    Ok(0)
}

/// The path of a container given by id or name.
pub fn path(cx: &Context<'_>, container: &str, rest: &str) -> Outcome<String> {
    Ok(format!("/containers/{}{rest}", resolve::container(cx, container)?))
}

/// What the server says of the fields that were to be changed.
fn updated(answer: &Value, changed: &Map<String, Value>) -> String {
    let shown = changed.keys().map(|key| match (key.as_str(), &answer[key]) {
        ("disk", Value::Null) if answer.get("disk").is_some() => "no disk limit".to_owned(),
        ("disk", limit) => format!("disk {}", bytes(limit)),
        (_, value) => format!("{key} {}", if value.is_boolean() { value.to_string() } else { text(value) }),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A disk limit as the server takes it: a size, or null for none.
fn disk(limit: &str) -> Value {
    if limit == "none" { Value::Null } else { json!(limit) }
}

fn create(cx: &mut Context<'_>, a: CreateContainer) -> Outcome {
    let project = resolve::project(cx, &a.project)?;
    let env: Map<String, Value> = a.env.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let body = object([
        ("name", a.name.map(Value::from)),
        ("container_image", a.image.map(Value::from)),
        ("environment_vars", (!env.is_empty()).then_some(Value::Object(env))),
        ("memory", a.memory.map(Value::from)),
        ("disk", a.disk.as_deref().map(disk)),
        ("cpu", a.cpu.map(Value::from)),
        ("network", a.network.map(Value::from)),
        ("api_socket", a.api_socket.then_some(Value::Bool(true))),
        ("databases", a.databases.map(Value::from)),
        ("filesystem", a.filesystem.map(Value::from)),
        ("comment", a.comment.map(Value::from)),
        ("autostart", a.no_autostart.then_some(json!(false))),
        ("ramdisk", a.no_ramdisk.then_some(json!(false))),
        ("command", (!a.command.is_empty()).then(|| json!(a.command))),
    ]);
    let created = cx.client.post(&format!("/projects/{project}/containers"), &body)?;
    wait::operation(cx, &created, &a.wait)?;
    let created = wait::running(cx, created, &a.wait)?;
    cx.print(&created, |c| table(std::slice::from_ref(c), &COLUMNS))
}

fn lifecycle(cx: &mut Context<'_>, change: &Change, verb: &str, body: &Value) -> Outcome {
    let path = path(cx, &change.container, &format!("/{verb}"))?;
    let mut data = cx.client.call("POST", &path, Some(body).filter(|b| !b.is_null()))?;
    let mut status = text(&data["status"]);
    if data.get("operation_id").is_some_and(Value::is_string) && !change.wait.no_wait {
        wait::operation(cx, &data, &change.wait)?;
        let now = cx.client.get(path.trim_end_matches(&format!("/{verb}")))?;
        status = text(&now["status"]);
        data["status"] = now["status"].clone();
        data["status_message"] = now["status_message"].clone();
    }
    // If the container stopped right after its start, show why.
    let started = matches!(verb, "start" | "restart") && status == "stopped";
    let why = ["status_message", "message"].iter().filter_map(|k| data[k].as_str()).next().filter(|_| started);
    let why = why.map_or_else(String::new, |w| format!(" ({w})"));
    cx.say(&data, format!("{}: {status}{why}", change.container))
}

fn stats(d: &Value) -> String {
    let percent = |v: &Value| v.as_f64().map_or_else(|| "-".to_owned(), |p| format!("{p:.1} %"));
    let of = |v: &Value| if v.is_object() { format!("{} of {}", bytes(&v["usage"]), bytes(&v["total"])) } else { "-".to_owned() };
    let shown = json!({
        "status": d["status"], "processes": d["processes"], "started": time(&d["started_at"]),
        "cpu": percent(&d["cpu"]["usage_percent"]), "memory": of(&d["memory"]), "disk": of(&d["disk"]["root"]),
        "ramdisk": bytes(&d["ramdisk"]["usage"]["private"]),
    });
    fields(&shown)
}

fn env(cx: &mut Context<'_>, container: &str, set: &[(String, String)], unset: &[String]) -> Outcome {
    let path = path(cx, container, "/env")?;
    for (key, value) in set {
        cx.client.put(&format!("{path}/{}", segment(key)), &json!({ "value": value }))?;
    }
    for key in unset {
        cx.client.delete(&format!("{path}/{}", segment(key)))?;
    }
    let data = cx.client.get(&path)?;
    cx.print(&data, |d| {
        let vars = d["environment_vars"].as_object().cloned().unwrap_or_default();
        vars.iter().map(|(k, v)| crate::output::line(&format!("{k}={}", v.as_str().unwrap_or_default()))).collect()
    })
}
