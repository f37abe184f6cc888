//! `container copy`, `fork`, `sync`, `move`, and `peer …`

use crate::args::{Copy, Fork, Move, Peer, Sync};
use crate::confirm::confirm;
use crate::container::{COLUMNS, path};
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::{object, segment};
use crate::output::{Column, line, rows, table, text, time};
use crate::resolve;
use crate::wait;
use serde_json::{Value, json};
use std::io::Read;

const PEERS: [Column; 5] = [
    ("NAME", |p| text(&p["name"])),
    ("SERVER", |p| text(&p["server_name"])),
    ("SERVER ID", |p| text(&p["server_id"])),
    ("URL", |p| text(&p["url"])),
    ("ADDED", |p| time(&p["created_at"])),
];

/// The id of a server, given by id or name.
fn server(cx: &Context<'_>, wanted: &str) -> Outcome<String> {
    let all: Vec<resolve::Named> = rows(&cx.client.get("/servers")?, "servers")
        .iter()
        .map(|s| resolve::Named { id: text(&s["server_id"]), name: text(&s["server"]["name"]), place: String::new() })
        .collect();
    resolve::pick("peer", wanted, &all)
}

pub fn copy(cx: &mut Context<'_>, a: Copy) -> Outcome {
    let source = path(cx, &a.container, "")?;
    let project = match &a.project {
        Some(p) => resolve::project(cx, p)?,
        None => text(&cx.client.get(&source)?["project_id"]),
    };
    let target = a.server.as_deref().map(|s| server(cx, s)).transpose()?;
    let body = object([
        ("target_project_id", Some(json!(project))),
        ("target_server_id", target.map(Value::from)),
        ("name", a.name.map(Value::from)),
        ("source_snapshot", a.snapshot.map(Value::from)),
        ("start", a.no_start.then_some(json!(false))),
        ("new_identity", a.same_identity.then_some(json!(false))),
        ("rate_limit", a.rate_limit.map(|r| json!(r.0))),
    ]);
    let copy = cx.client.post(&format!("{source}/copy"), &body)?;
    // The operation may run on another server, but this server knows the container.
    let copy = wait::running(cx, copy, &a.wait)?;
    cx.print(&copy, |c| table(std::slice::from_ref(c), &COLUMNS))
}

pub fn fork(cx: &mut Context<'_>, a: Fork) -> Outcome {
    let body = object([
        ("count", Some(json!(a.count))),
        ("source_snapshot", a.snapshot.map(Value::from)),
        ("name_prefix", a.prefix.map(Value::from)),
        ("start", a.no_start.then_some(json!(false))),
        ("new_identity", a.same_identity.then_some(json!(false))),
    ]);
    let forked = cx.client.post(&path(cx, &a.container, "/fork")?, &body)?;
    for copy in rows(&forked, "results").iter().map(|r| &r["container"]).filter(|c| c.is_object()) {
        wait::running(cx, copy.clone(), &a.wait)?;
    }
    let failed = rows(&forked, "results").iter().filter(|r| r["error"].is_object()).count();
    cx.print(&forked, |d| {
        let one = |r: &Value| match r["error"]["message"].as_str() {
            Some(why) => line(&format!("{}: {why}", text(&r["name"]))),
            None => line(&format!("{}  {}", text(&r["container"]["id"]), text(&r["name"]))),
        };
        rows(d, "results").iter().map(one).collect()
    })?;
    if failed > 0 { Err(Failure::new(exit::OTHER, format!("{failed} of the copies could not be created"))) } else { Ok(()) }
}

pub fn sync(cx: &mut Context<'_>, a: Sync) -> Outcome {
    let body = object([("force", a.no_force.then_some(json!(false))), ("rate_limit", a.rate_limit.map(|r| json!(r.0)))]);
    let data = cx.client.post(&path(cx, &a.container, "/sync")?, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let message = match (data["changed"].as_bool(), data["kept"].as_str()) {
        (_, Some(kept)) => format!("{} is up to date with its source; its own changes are kept as snapshot {kept}", a.container),
        (Some(false), _) => format!("{} was already up to date with its source", a.container),
        _ if a.wait.no_wait => format!("{} is being synced with its source", a.container),
        _ => format!("{} is up to date with its source", a.container),
    };
    cx.say(&data, message)
}

pub fn relocate(cx: &mut Context<'_>, a: Move) -> Outcome {
    let target = server(cx, &a.server)?;
    let project = a.project.as_deref().map(|p| resolve::project(cx, p)).transpose()?;
    let from = path(cx, &a.container, "/move")?;
    confirm(cx, &format!("move the container {} to the server {}", a.container, a.server))?;
    let body = object([
        ("target_server_id", Some(json!(target))),
        ("target_project_id", project.map(Value::from)),
        ("name", a.name.map(Value::from)),
        ("rate_limit", a.rate_limit.map(|r| json!(r.0))),
    ]);
    let data = cx.client.post(&from, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let downtime = data["downtime_ms"].as_u64().map_or_else(String::new, |ms| format!(", after {ms} ms of downtime"));
    cx.say(&data, format!("{} was moved to {} as {}{downtime}", a.container, a.server, text(&data["target_container_id"])))
}

pub fn peer(cx: &mut Context<'_>, command: Peer) -> Outcome {
    match command {
        Peer::List => {
            let data = cx.client.get("/peers")?;
            cx.print(&data, |d| table(d.as_array().map_or(&[], Vec::as_slice), &PEERS))
        }
        Peer::Add { address, name, ca } => {
            let token = match std::env::var("HOODY_PEER_TOKEN") {
                Ok(t) => t,
                Err(_) => {
                    let mut t = String::new();
                    std::io::stdin().read_to_string(&mut t)?;
                    t
                }
            };
            let ca = match ca {
                Some(file) => {
                    let read = std::fs::read_to_string(&file);
                    Some(read.map_err(|e| Failure::new(exit::USAGE, format!("cannot read {}: {e}", file.display())))?)
                }
                None => None,
            };
            let body =
                object([("url", Some(json!(address))), ("token", Some(json!(token.trim()))), ("name", name.map(Value::from)), ("ca", ca.map(Value::from))]);
            let data = cx.client.post("/peers", &body)?;
            cx.print(&data, |p| table(std::slice::from_ref(p), &PEERS))
        }
        Peer::Remove { peer } => {
            confirm(cx, &format!("remove the server {peer}"))?;
            let data = cx.client.delete(&format!("/peers/{}", segment(&peer)))?;
            cx.say(&data, format!("removed {peer}"))
        }
    }
}
