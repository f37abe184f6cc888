//! What clients do to containers until the power is cut, and what must be found of it afterwards.
//!
//! Each client has containers of its own and a model of what was acknowledged of them. The change under way at the cut is in doubt: it may have happened or
//! not. Everything else must be exactly as the model says.

use crate::guest::Agent;
use crate::rng::Rng;
use crate::server::{Host, POOL, get, must, send};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// A container as it is seen from outside.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    pub status: String,
    /// What its file `/state` says.
    pub state: String,
    /// The snapshots by name: their aliases, and what `/state` says in them.
    pub snapshots: BTreeMap<String, (Option<String>, String)>,
}

impl View {
    /// Nothing if there is no such container.
    pub fn of(id: &str) -> Option<View> {
        View::ask(id).expect("the server answers")
    }

    /// The same; nothing at all if the power was cut meanwhile.
    fn ask(id: &str) -> Option<Option<View>> {
        let ask = |path: &str| send("GET", &format!("/containers/{id}{path}"), b"");
        let answer = ask("")?;
        if answer.status == 404 {
            return Some(None);
        }
        let status = answer.body["data"]["status"].as_str()?.to_owned();
        let mut agent = Agent::connect()?;
        let mut read = |path: String| agent.read(&format!("{POOL}/containers/{id}/{path}/state"));
        let mut snapshots = BTreeMap::new();
        for s in ask("/snapshots")?.body["data"]["snapshots"].as_array()? {
            let name = s["name"].as_str()?.to_owned();
            let state = read(format!("snapshots/{name}"))?;
            snapshots.insert(name, (s["alias"].as_str().map(str::to_owned), state));
        }
        Some(Some(View { status, state: read("live".into())?, snapshots }))
    }

    /// What it is after the machine was switched off and on: what was paused has lost its processes, and starts again as what ran does.
    fn rebooted(&self) -> View {
        let status = if self.status == "stopped" { "stopped" } else { "running" };
        View { status: status.into(), ..self.clone() }
    }

    fn added<'a>(&'a self, before: &View) -> Vec<&'a (Option<String>, String)> {
        self.snapshots.iter().filter(|(n, _)| !before.snapshots.contains_key(*n)).map(|(_, s)| s).collect()
    }
}

/// A change.
#[derive(Debug, Clone)]
enum Act {
    Write { text: String },
    Snapshot { alias: String },
    Drop { name: String },
    Restore { name: String },
    Verb { verb: &'static str, to: &'static str },
    Create { name: String },
    Copy { name: String },
    Delete,
}

/// A change that was under way when the power was cut.
#[derive(Debug, Clone)]
struct Doubt {
    id: String,
    act: Act,
    /// The server had acknowledged it: it must be found done.
    acknowledged: bool,
}

/// One client's containers.
#[derive(Debug, Clone)]
pub struct Client {
    number: usize,
    project: String,
    /// Its container commits to databases all the time, and is neither deleted nor copied.
    writer: bool,
    made: usize,
    containers: BTreeMap<String, View>,
    doubt: Option<Doubt>,
    pub acknowledged: u64,
}

impl Client {
    pub fn new(number: usize, project: &str) -> Self {
        Client { number, project: project.into(), writer: false, made: 0, containers: BTreeMap::new(), doubt: None, acknowledged: 0 }
    }

    /// A client of one container that is there already and commits to databases.
    pub fn of_writer(number: usize, project: &str, id: &str) -> Self {
        let view = View::of(id).unwrap();
        Client { writer: true, containers: [(id.to_owned(), view)].into(), ..Client::new(number, project) }
    }

    fn choose(&mut self, rng: &mut Rng) -> (String, Act) {
        self.made += 1;
        let n = self.made;
        let create = Act::Create { name: format!("load-{}-{n}", self.number) };
        let Some((id, view)) = self.containers.iter().nth(rng.below(self.containers.len().max(1) as u64) as usize) else { return (String::new(), create) };
        let snapshot = view.snapshots.keys().nth(rng.below(view.snapshots.len().max(1) as u64) as usize).cloned();
        let dice = rng.below(100);
        let act = match (dice, snapshot) {
            (0..20, _) => Act::Write { text: format!("{} of client {}", n, self.number) },
            (20..42, _) if view.snapshots.len() < 5 => Act::Snapshot { alias: format!("s{n}") },
            (20..52, Some(name)) => Act::Drop { name },
            (52..67, Some(name)) => Act::Restore { name },
            (67..73, _) if !self.writer => Act::Delete,
            (73..83, _) if !self.writer && self.containers.len() < 2 => Act::Copy { name: format!("copy-{}-{n}", self.number) },
            (83..86, _) if !self.writer && self.containers.len() < 2 => create,
            _ if self.writer => Act::Verb { verb: "restart", to: "running" },
            _ => {
                let (verb, to) = match (view.status.as_str(), dice % 3) {
                    ("running", 0) => ("pause", "paused"),
                    ("running", 1) => ("force-stop", "stopped"),
                    ("paused", 0) => ("force-stop", "stopped"),
                    ("paused", _) => ("resume", "running"),
                    ("stopped", 0 | 1) => ("start", "running"),
                    _ => ("restart", "running"),
                };
                Act::Verb { verb, to }
            }
        };
        (id.clone(), act)
    }

    fn request(&self, act: &Act, id: &str) -> (&'static str, String, Value) {
        let on = |rest: &str| format!("/containers/{id}{rest}");
        match act {
            Act::Write { .. } => unreachable!("written by the agent"),
            Act::Snapshot { alias } => ("POST", on("/snapshots"), json!({ "alias": alias })),
            Act::Drop { name } => ("DELETE", on(&format!("/snapshots/{name}")), Value::Null),
            Act::Restore { name } if self.writer => ("PATCH", on(&format!("/snapshots/{name}")), json!({ "databases": "keep" })),
            Act::Restore { name } => ("PATCH", on(&format!("/snapshots/{name}")), Value::Null),
            Act::Verb { verb, .. } => ("POST", on(&format!("/{verb}")), Value::Null),
            Act::Create { name } => ("POST", format!("/projects/{}/containers", self.project), json!({ "name": name, "command": waiting() })),
            Act::Copy { name } => ("POST", on("/copy"), json!({ "target_project_id": self.project, "name": name })),
            Act::Delete => ("DELETE", on(""), Value::Null),
        }
    }

    /// Changes its containers until the power is cut.
    pub fn work(&mut self, mut rng: Rng, cut: &AtomicBool) {
        loop {
            let (id, act) = self.choose(&mut rng);
            let id = if matches!(act, Act::Create { .. }) { String::new() } else { id };
            let mut doubt = Doubt { id: id.clone(), act: act.clone(), acknowledged: false };
            if self.perform(&id, &act, &mut doubt).is_none() {
                assert!(cut.load(Ordering::SeqCst), "the server gives no answer to {act:?} of {id}, and the power is on");
                self.doubt = Some(doubt);
                return;
            }
            self.acknowledged += 1;
        }
    }

    /// Nothing if the power was cut meanwhile.
    fn perform(&mut self, id: &str, act: &Act, doubt: &mut Doubt) -> Option<()> {
        if let Act::Write { text } = act {
            Agent::connect()?.write(&format!("{POOL}/containers/{id}/live/state"), text)?;
            self.containers.get_mut(id).unwrap().state.clone_from(text);
            return Some(());
        }
        let (method, path, body) = self.request(act, id);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let end = Instant::now() + PATIENCE;
        let data = loop {
            let answer = send(method, &path, &body)?;
            if answer.is_busy() {
                assert!(Instant::now() < end, "{act:?} of {id} is refused for {PATIENCE:?}: {}", answer.body);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            assert!((200..300).contains(&answer.status), "{act:?} of {id}, {:?}: {} {}", self.containers.get(id), answer.status, answer.body);
            break answer.body["data"].clone();
        };
        doubt.acknowledged = true;
        self.note(id, act, &data)
    }

    /// Takes an acknowledged change into the model.
    fn note(&mut self, from: &str, act: &Act, data: &Value) -> Option<()> {
        let source = self.containers.get(from).cloned();
        let view = self.containers.entry(from.to_owned()).or_default();
        match act {
            Act::Write { .. } => {}
            Act::Snapshot { alias } => {
                let name = data["snapshot"]["name"].as_str().unwrap().to_owned();
                view.snapshots.insert(name, (Some(alias.clone()), view.state.clone()));
            }
            Act::Drop { name } => drop(view.snapshots.remove(name)),
            Act::Restore { name } => {
                let state = view.snapshots[name].1.clone();
                let old = std::mem::replace(&mut view.state, state);
                view.snapshots.insert(data["undo"].as_str().unwrap().to_owned(), (None, old));
                if view.status == "paused" {
                    view.status = "running".into();
                }
            }
            Act::Verb { to, .. } => view.status = (*to).to_owned(),
            Act::Delete => drop(self.containers.remove(from)),
            Act::Create { name } | Act::Copy { name } => {
                self.containers.retain(|id, _| !id.is_empty());
                let end = Instant::now() + PATIENCE;
                loop {
                    let now = send("GET", "/containers?limit=100", b"")?.body;
                    let found = now["data"]["containers"].as_array()?.iter().find(|c| c["name"] == *name).cloned();
                    let found = found.unwrap_or_else(|| panic!("{name} was acknowledged and is not in the list"));
                    let (id, status) = (found["id"].as_str().unwrap(), found["status"].as_str().unwrap());
                    if ["running", "stopped"].contains(&status) && found["operation_in_progress"].as_bool() != Some(true) {
                        let mut new = View::default();
                        if let Some(source) = source.filter(|_| matches!(act, Act::Copy { .. })) {
                            let now = View::ask(from)?.expect("the source of a copy stays");
                            assert!(is_after(act, &source, &now), "the source of a copy was {source:#?} and is {now:#?}");
                            self.containers.insert(from.to_owned(), now.clone());
                            new = now;
                        }
                        new.status = status.to_owned();
                        self.containers.insert(id.to_owned(), new);
                        break;
                    }
                    assert!(Instant::now() < end, "{name} is {status} for {PATIENCE:?}: {found}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Some(())
    }

    /// Compares what is there after the machine was switched on again with what was acknowledged, and takes over what was in doubt.
    pub fn verify(&mut self) {
        // Containers start again in the background: one that is looked at before that is stopped still.
        let end = Instant::now() + PATIENCE;
        while get("/operations?limit=100")["operations"].as_array().unwrap().iter().any(|o| o["finished_at"].is_null()) {
            assert!(Instant::now() < end, "operations are under way for {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let doubt = self.doubt.take();
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let before = self.containers[&id].clone();
            let doubt = doubt.as_ref().filter(|d| d.id == id);
            let Some(now) = View::of(&id) else {
                assert!(doubt.is_some_and(|d| matches!(d.act, Act::Delete)), "container {id} is lost: {before:#?}");
                self.containers.remove(&id);
                continue;
            };
            let undone = before.rebooted() == now;
            let done = doubt.is_some_and(|d| is_after(&d.act, &before.rebooted(), &now));
            let legal = match doubt {
                None => undone,
                Some(d) if d.acknowledged => done,
                Some(_) => done || undone,
            };
            assert!(legal, "container {id}: acknowledged {before:#?}\nin doubt {doubt:#?}\nfound {now:#?}");
            self.containers.insert(id, now);
        }
        if let Some(Doubt { id, act: Act::Create { name } | Act::Copy { name }, acknowledged }) = &doubt {
            let all = get("/containers?limit=100");
            match all["containers"].as_array().unwrap().iter().find(|c| c["name"] == *name) {
                None => assert!(!acknowledged, "{name} was acknowledged and is lost"),
                Some(found) => {
                    let new = found["id"].as_str().unwrap();
                    let view = View::of(new).unwrap();
                    let source = self.containers.get(id).filter(|_| matches!(doubt.as_ref().unwrap().act, Act::Copy { .. }));
                    let wanted = source.map_or_else(Default::default, |s| (s.state.clone(), s.snapshots.clone()));
                    assert_eq!((view.state.clone(), view.snapshots.clone()), wanted, "{name}, made from {id}");
                    self.containers.insert(new.to_owned(), view);
                }
            }
        }
    }

    /// Every container boots and runs a command that sees its disk.
    pub fn boots(&mut self, host: &Host) {
        for (id, view) in &mut self.containers {
            if view.status == "stopped" {
                must("POST", &format!("/containers/{id}/start"), &Value::Null);
                host.await_status(id, "running");
                view.status = "running".into();
            }
            let (code, out) = host.exec(id, "cat /state 2>/dev/null; exit 0");
            assert_eq!((code, out.as_str()), (0, view.state.as_str()), "container {id} does not see its disk");
        }
    }

    pub fn count(&self) -> usize {
        self.containers.len()
    }
}

/// A command that waits and ends at once when it is told to.
pub fn waiting() -> Value {
    json!(["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"])
}

/// Whether `now` is what `before` becomes by this.
fn is_after(act: &Act, before: &View, now: &View) -> bool {
    let added = now.added(before);
    let gone: Vec<&String> = before.snapshots.keys().filter(|n| !now.snapshots.contains_key(*n)).collect();
    let others_stay = before.snapshots.iter().all(|(n, s)| now.snapshots.get(n).is_none_or(|t| t == s));
    let stays = now.status == before.status && now.state == before.state;
    others_stay
        && match act {
            Act::Write { text } => added.is_empty() && gone.is_empty() && now.status == before.status && now.state == *text,
            Act::Snapshot { alias } => gone.is_empty() && added == [&(Some(alias.clone()), before.state.clone())] && stays,
            Act::Drop { name } => gone == [name] && added.is_empty() && stays,
            Act::Restore { name } => {
                let kept = added.len() == 1 && added[0].1 == before.state;
                gone.is_empty() && kept && now.state == before.snapshots[name].1 && now.status == before.status
            }
            Act::Verb { to, .. } => {
                let status = if *to == "stopped" { "stopped" } else { "running" };
                gone.is_empty() && added.is_empty() && now.state == before.state && now.status == status
            }
            // The source has one snapshot more, which the copy was made from.
            Act::Copy { .. } => gone.is_empty() && added == [&(None, before.state.clone())] && stays,
            Act::Create { .. } | Act::Delete => false,
        }
}
