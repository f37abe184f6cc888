//! `log`: where the states of containers come from, as text.

use crate::args::LogArgs;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::graph::Graph;
use crate::http::segment;
use crate::output::{bytes, plain, rows};
use crate::resolve;
use crate::style::{Look, Style};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Entries that are asked for at once.
const PAGE: u64 = 1000;
/// How long the server may measure, in seconds.
const MEASURE_S: u64 = 2;

/// One timeline: its title, and its path.
struct Asked {
    title: String,
    path: String,
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, a: &LogArgs) -> Outcome {
    let asked = asked(cx, a)?;
    let mut all = Vec::new();
    let mut left = a.number;
    for one in &asked {
        let mut t = fetch(cx, one, left)?;
        left = left.map(|n| n.saturating_sub(past(&t)));
        if cx.json {
            all.push(t);
        } else {
            name_sources(cx, &mut t);
            let text = text(cx.style, cx.width, a, &t);
            let title = if asked.len() > 1 { format!("{}\n", cx.style.paint(Look::Container, &plain(&one.title))) } else { String::new() };
            cx.out.write_all(format!("{title}{text}").as_bytes())?;
        }
        if left == Some(0) {
            break;
        }
    }
    if cx.json {
        let data = if asked.len() == 1 { all.pop().unwrap_or_default() } else { json!(all) };
        cx.print(&data, |_| String::new())?;
    }
    Ok(())
}

/// How many entries a timeline has beside "now".
fn past(t: &Value) -> u64 {
    rows_of(t, "nodes").filter(|n| n["kind"] != "now").count() as u64
}

/// Whose timelines are asked for.
fn asked(cx: &Context<'_>, a: &LogArgs) -> Outcome<Vec<Asked>> {
    let copies = if a.all { "copies=true" } else { "copies=false" };
    let project = |id: &str, title: &str| Asked { title: title.to_owned(), path: format!("/projects/{}/timeline?{copies}", segment(id)) };
    let Some(name) = &a.name else {
        let all = resolve::all_rows(cx, "/projects/", "projects")?;
        return Ok(all.iter().map(|p| project(p["id"].as_str().unwrap_or_default(), p["alias"].as_str().unwrap_or_default())).collect());
    };
    match resolve::container(cx, name) {
        Ok(id) => match cx.client.get(&format!("/containers/{id}")) {
            Ok(c) if a.all => Ok(vec![project(c["project_id"].as_str().unwrap_or_default(), name)]),
            Ok(_) => Ok(vec![Asked { title: name.clone(), path: format!("/containers/{id}/timeline?copies=true") }]),
            // An id may be a project's.
            Err(f) if f.exit == exit::NOT_FOUND && resolve::is_id(name) => Ok(vec![project(name, name)]),
            Err(f) => Err(f),
        },
        Err(f) if f.exit == exit::NOT_FOUND => match resolve::project(cx, name) {
            Ok(id) => Ok(vec![project(&id, name)]),
            Err(_) => Err(Failure::new(exit::NOT_FOUND, format!("there is no container and no project {name:?}: see `hoody-state container list`"))),
        },
        Err(f) => Err(f),
    }
}

/// All pages, or as many as hold `most` entries. The answer has the form of a page.
fn fetch(cx: &Context<'_>, one: &Asked, most: Option<u64>) -> Outcome<Value> {
    let (mut nodes, mut outside, mut edges) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen: HashSet<String> = HashSet::new();
    let (mut cursor, mut got): (Option<String>, u64) = (None, 0);
    loop {
        let limit = most.map_or(PAGE, |n| n.saturating_sub(got).clamp(1, PAGE));
        let next = cursor.as_deref().map_or_else(String::new, |c| format!("&cursor={}", segment(c)));
        let page = cx.client.get_measured(&format!("{}&limit={limit}{next}", one.path), MEASURE_S)?;
        got += past(&page);
        nodes.extend(rows(&page, "nodes"));
        edges.extend(rows(&page, "edges"));
        outside.extend(rows(&page, "outside").into_iter().filter(|n| seen.insert(id(n).to_owned())));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || most.is_some_and(|n| got >= n) {
            break;
        }
    }
    Ok(json!({ "nodes": nodes, "edges": edges, "outside": outside, "next_cursor": cursor }))
}

/// Puts the names of containers into sources of which only the id is known, as far as the containers still exist.
fn name_sources(cx: &Context<'_>, t: &mut Value) {
    let mut names: HashMap<String, Option<String>> = HashMap::new();
    let mut all = |key: &str| t[key].as_array_mut().map(std::mem::take).unwrap_or_default();
    let [mut nodes, mut outside] = ["nodes", "outside"].map(&mut all);
    for source in nodes.iter_mut().chain(&mut outside).filter_map(|n| n.get_mut("source")) {
        let Some(id) = source["container_id"].as_str().map(str::to_owned).filter(|_| !source["server_name"].is_string()) else { continue };
        let name = names.entry(id).or_insert_with_key(|id| {
            let row = cx.client.get(&format!("/containers/{}", segment(id))).ok()?;
            row["name"].as_str().map(str::to_owned)
        });
        if let Some(name) = name {
            source["container_name"] = json!(name);
        }
    }
    (t["nodes"], t["outside"]) = (json!(nodes), json!(outside));
}

fn id(n: &Value) -> &str {
    n["id"].as_str().unwrap_or_default()
}

fn word<'a>(n: &'a Value, key: &str) -> Option<&'a str> {
    n[key].as_str().filter(|s| !s.is_empty())
}

fn parents(n: &Value) -> Vec<String> {
    rows(n, "parents").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The entries in the order in which they are shown, with those outside that they come from.
fn entries(t: &Value) -> Vec<Value> {
    let mut all = rows(t, "nodes");
    let wanted: HashSet<String> = all.iter().flat_map(parents).collect();
    all.extend(rows(t, "outside").into_iter().filter(|n| wanted.contains(id(n))).map(|mut n| {
        n["outside"] = json!(true);
        n
    }));
    // Numbers ascend: of the same instant, the later comes first. What is now stands above what it comes from.
    let number = |id: &str| id.parse::<u64>().unwrap_or(u64::MAX);
    let times: HashMap<String, String> = all.iter().map(|n| (id(n).to_owned(), word(n, "created_at").unwrap_or_default().to_owned())).collect();
    let place = |n: &Value| {
        let from = parents(n).into_iter().next().filter(|_| word(n, "kind") == Some("now"));
        let at = from.as_deref().unwrap_or_else(|| id(n));
        (times.get(at).cloned(), number(at), from.is_some())
    };
    all.sort_by_cached_key(|n| std::cmp::Reverse(place(n)));
    all
}

/// The timeline as text.
pub fn text(style: Style, width: Option<usize>, a: &LogArgs, t: &Value) -> String {
    let all = entries(t);
    let names: HashMap<&str, &Value> = all.iter().chain(rows_of(t, "outside")).map(|n| (id(n), n)).collect();
    let containers: HashSet<&str> = all.iter().filter(|n| !n["outside"].is_boolean()).filter_map(|n| word(n, "container_id")).collect();
    let (mut out, mut graph) = (String::new(), Graph::default());
    let mut put = |prefix: &str, line: &str| {
        let line = format!("{prefix}{line}");
        let cut = width.map_or_else(|| line.clone(), |w| console::truncate_str(&line, w, "…").into_owned());
        out.push_str(cut.trim_end());
        out.push('\n');
    };
    for n in &all {
        let (head, more) = Entry { style, n, names: &names, several: containers.len() > 1 }.lines();
        if !a.graph {
            put("", &head);
            if !a.oneline {
                more.iter().for_each(|l| put("    ", l));
            }
            continue;
        }
        let known: Vec<String> = parents(n).into_iter().filter(|p| names.contains_key(p.as_str()) || t["next_cursor"].is_string()).collect();
        let drawn = graph.entry(style, mark(n), id(n), &known);
        drawn.before.iter().for_each(|l| put(l, ""));
        put(&format!("{} ", drawn.first), &head);
        drawn.after.iter().for_each(|l| put(l, ""));
        if !a.oneline {
            more.iter().for_each(|l| put(&format!("{}   ", drawn.rest), l));
        }
    }
    if let Some(end) = graph.open_end(style) {
        put(&end, "");
    }
    out
}

fn rows_of<'a>(t: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    t[key].as_array().into_iter().flatten()
}

fn mark(n: &Value) -> char {
    match (word(n, "kind"), n["deleted_at"].is_string(), n["outside"].is_boolean()) {
        (Some("now"), ..) => '@',
        (_, true, _) => 'x',
        (_, _, true) => 'o',
        _ => '*',
    }
}

/// One entry.
struct Entry<'a> {
    style: Style,
    n: &'a Value,
    names: &'a HashMap<&'a str, &'a Value>,
    /// Whether several containers are shown: then each entry names its own.
    several: bool,
}

impl Entry<'_> {
    /// The line of the entry, and further lines.
    fn lines(&self) -> (String, Vec<String>) {
        let n = self.n;
        let when = word(n, "created_at").map_or_else(String::new, |t| t.chars().take(16).collect::<String>().replace('T', " "));
        let what = self.what();
        let here = match word(n, "container_name").filter(|_| self.several || n["outside"].is_boolean()) {
            Some(name) => format!("{}  ", self.paint(Look::Container, name)),
            None => String::new(),
        };
        let mut facts = Vec::new();
        if let Some(size) = n["unsaved_bytes"].as_u64() {
            facts.push(if size == 0 { "nothing unsaved".to_owned() } else { format!("{} unsaved", bytes(&n["unsaved_bytes"])) });
        }
        if n["size"].is_u64() {
            facts.push(bytes(&n["size"]));
        }
        if n["frees_bytes"].as_u64().is_some_and(|b| b > 0) {
            facts.push(format!("frees {}", bytes(&n["frees_bytes"])));
        }
        let facts = if facts.is_empty() { String::new() } else { format!("  {}", self.paint(Look::Dim, &facts.join(", "))) };
        let pin = word(n, "pinned").map_or_else(String::new, |_| format!("  {}", self.paint(Look::Mark, "pinned")));
        let gone = if n["deleted_at"].is_string() { format!("  {}", self.paint(Look::Dim, "deleted")) } else { String::new() };
        (format!("{}  {here}{what}{pin}{gone}{facts}", self.paint(Look::Dim, &when)), self.more())
    }

    fn more(&self) -> Vec<String> {
        let n = self.n;
        let mut facts = Vec::new();
        facts.extend(word(n, "author").map(|a| format!("by {a}")));
        facts.extend(n["overwrote"].as_str().and_then(|o| self.names.get(o)).and_then(|o| word(o, "snapshot")).map(|s| format!("kept before: {s}")));
        facts.extend(word(n, "expires_at").map(|t| format!("expires {}", t.chars().take(16).collect::<String>().replace('T', " "))));
        facts.extend(word(n, "pinned").map(|why| format!("pinned: {why}")));
        let mut lines = Vec::new();
        if !facts.is_empty() {
            lines.push(self.paint(Look::Dim, &facts.join(", ")));
        }
        lines.extend(word(n, "description").map(plain));
        lines
    }

    fn paint(&self, look: Look, text: &str) -> String {
        self.style.paint(look, &plain(text))
    }

    fn what(&self) -> String {
        let n = self.n;
        let kind = |w: &str| self.paint(Look::Kind, w);
        let name = |s: &str| self.paint(Look::Name, s);
        let snapshot = word(n, "alias").or_else(|| word(n, "snapshot")).map(name).unwrap_or_default();
        let image = word(n, "image").map(|i| format!(" {}", name(i))).unwrap_or_default();
        match word(n, "kind") {
            None => kind("of a project that you may not see"),
            Some("now") => kind("now"),
            Some("create") => format!("{}{image}", kind("created from image")),
            Some("image_import") => format!("{}{image}", kind("imported image")),
            Some("image_from_snapshot") => format!("{}{image}", kind("image of a snapshot:")),
            Some("snapshot") if n["copy_of"].is_string() || n["source"].is_object() => format!("{} {snapshot}", kind("copied snapshot")),
            Some("snapshot") => format!("{} {snapshot}", kind("snapshot")),
            Some("restore") => format!("{} {snapshot}", kind("restored")),
            Some("undo") => format!("{} {snapshot}", kind("undid a restore: back to")),
            Some("sync") => format!("{} {snapshot}", kind("synced to")),
            Some("restore_files") => kind("restored files"),
            Some("move") if n["source"]["is_target"] == json!(true) => format!("{}{}", kind("moved to"), self.there()),
            Some("move") => format!("{}{}", kind("moved here from"), self.there()),
            Some(other @ ("fork" | "copy")) => format!("{}{}", kind(&format!("{other} of")), self.there()),
            Some(other) => format!("{}{}", kind(&other.replace('_', " ")), self.there()),
        }
    }

    /// The other container of a copy or a move, as it is known here.
    fn there(&self) -> String {
        let source = &self.n["source"];
        let known = parents(self.n).iter().filter_map(|p| self.names.get(p.as_str())).find_map(|p| word(p, "container_name").map(str::to_owned));
        let container = known
            .filter(|_| !source["server_name"].is_string())
            .or_else(|| word(source, "container_name").or_else(|| word(source, "container_id")).map(str::to_owned));
        let mut out = container.map_or_else(String::new, |c| format!(" {}", self.paint(Look::Container, &c)));
        if let Some(s) = word(source, "snapshot") {
            out.push_str(&format!(" at {}", self.paint(Look::Name, s)));
        }
        if let Some(server) = word(source, "server_name") {
            out.push_str(&format!(" on server {}", self.paint(Look::Container, server)));
        }
        out
    }
}
