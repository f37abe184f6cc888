//! Kills at random instants, while four threads change four containers of their own.
//!
//! Each thread keeps a model of what was acknowledged. The request in flight at the kill is in doubt: its container must then be as it was before
//! that request, or as it is after it. All the others must be exactly as their models say.

use crate::rng::Rng;
use crate::server::Request;
use crate::world::{View, World, new_container};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// A thread that cannot find the server gives up after this long, to be told of the kill.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client asks for.
#[derive(Debug, Clone)]
enum Act {
    Snapshot { alias: String },
    Drop { name: String },
    Restore { name: String },
    Verb { verb: &'static str, to: &'static str },
    Create { name: String },
    Delete,
}

/// One client's container, as far as it knows.
#[derive(Debug, Clone, Default)]
struct Slot {
    number: usize,
    made: usize,
    /// Its id and what was acknowledged of it.
    container: Option<(String, View)>,
    /// What it was asking for when the server went away.
    doubt: Option<Act>,
    acknowledged: u64,
}

struct Client<'a> {
    socket: &'a Path,
    pool: PathBuf,
    project: &'a str,
    rng: Rng,
}

impl Act {
    fn choose(slot: &mut Slot, rng: &mut Rng) -> Act {
        slot.made += 1;
        let n = slot.made;
        let Some((_, view)) = &slot.container else { return Act::Create { name: format!("load-{}-{n}", slot.number) } };
        let some = |rng: &mut Rng| view.snapshots.keys().nth(rng.below(view.snapshots.len().max(1) as u64) as usize).cloned();
        let dice = rng.below(100);
        match (dice, some(rng)) {
            (0..30, _) if view.snapshots.len() < 6 => Act::Snapshot { alias: format!("s{n}") },
            (0..45, Some(name)) => Act::Drop { name },
            (45..65, Some(name)) => Act::Restore { name },
            (65..70, _) => Act::Delete,
            _ => {
                let (verb, to) = match (view.status.as_str(), dice % 3) {
                    ("running", 0) => ("pause", "paused"),
                    ("running", 1) => ("force-stop", "stopped"),
                    ("paused", 0) => ("force-stop", "stopped"),
                    ("paused", 1) => ("resume", "running"),
                    ("stopped", 0 | 1) => ("start", "running"),
                    _ => ("restart", "running"),
                };
                Act::Verb { verb, to }
            }
        }
    }

    fn request(&self, project: &str, id: &str) -> Request {
        let on = |method, rest: String| Request::new(method, format!("/containers/{id}{rest}"));
        match self {
            Act::Snapshot { alias } => on("POST", "/snapshots".into()).json(&json!({ "alias": alias })),
            Act::Drop { name } => on("DELETE", format!("/snapshots/{name}")),
            Act::Restore { name } => on("PUT", format!("/snapshots/{name}")),
            Act::Verb { verb, .. } => on("POST", format!("/{verb}")),
            Act::Create { name } => Request::new("POST", format!("/projects/{project}/containers")).json(&new_container(name)),
            Act::Delete => on("DELETE", String::new()),
        }
    }

    /// Whether `now` is what `before` becomes by this.
    fn is_after(&self, before: &View, now: &View) -> bool {
        let new = now.new_since(before);
        let gone: Vec<&String> = before.snapshots.keys().filter(|n| !now.snapshots.contains_key(*n)).collect();
        let rest = before.snapshots.iter().all(|(n, s)| now.snapshots.get(n).is_none_or(|t| t == s));
        let runs = if before.status == "stopped" { "stopped" } else { "running" };
        rest && match self {
            Act::Snapshot { alias } => gone.is_empty() && new == [&(Some(alias.clone()), before.state.clone())] && same(before, now),
            Act::Drop { name } => gone == [name] && new.is_empty() && same(before, now),
            Act::Restore { name } => {
                let kept = new.len() == 1 && new[0].1 == before.state;
                gone.is_empty() && kept && now.state == before.snapshots[name].1 && now.status == runs
            }
            Act::Verb { to, .. } => gone.is_empty() && new.is_empty() && now.state == before.state && now.status == *to,
            Act::Create { .. } | Act::Delete => false,
        }
    }

    /// Whether `now` is what this may leave when the server is killed in the middle of it and it comes to nothing.
    fn is_undone(&self, before: &View, now: &View) -> bool {
        // What was paused may be found running, and must be found one or the other.
        let status =
            now.status == before.status || before.status == "paused" && now.status == "running" && matches!(self, Act::Restore { .. } | Act::Verb { .. });
        status && now.state == before.state && now.snapshots == before.snapshots
    }
}

fn same(a: &View, b: &View) -> bool {
    a.status == b.status && a.state == b.state
}

impl Client<'_> {
    /// Changes its container until the server goes away.
    fn hammer(mut self, slot: &mut Slot) {
        loop {
            if let Some((id, view)) = &mut slot.container
                && self.rng.percent(50)
            {
                view.state = format!("{} at {}", slot.number, slot.made);
                std::fs::write(self.pool.join("containers").join(id).join("live/state"), &view.state).unwrap();
            }
            let act = Act::choose(slot, &mut self.rng);
            let id = slot.container.as_ref().map_or(String::new(), |(id, _)| id.clone());
            let end = Instant::now() + PATIENCE;
            loop {
                let Some(a) = act.request(self.project, &id).send(self.socket, None) else {
                    slot.doubt = Some(act);
                    return;
                };
                match a.status {
                    // The answer came before the background operation ended: the next change must wait.
                    409 if a.data["code"].as_str().is_some_and(|c| c.ends_with("operation_in_progress") || c == "operation_state_conflict") => {
                        assert!(Instant::now() < end, "{act:?}: {} for {PATIENCE:?}", a.data);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    200..300 => {
                        slot.acknowledged += 1;
                        self.note(slot, &act, &a.data["data"]);
                        break;
                    }
                    _ => panic!("{act:?} of {:?}: {} {}", slot.container, a.status, a.data),
                }
            }
        }
    }

    /// Takes an acknowledged change into the model.
    fn note(&self, slot: &mut Slot, act: &Act, data: &serde_json::Value) {
        if let Act::Create { .. } = act {
            let id = data["id"].as_str().unwrap().to_owned();
            let state = String::from("new");
            std::fs::write(self.pool.join("containers").join(&id).join("live/state"), &state).unwrap();
            slot.container = Some((id, View { status: "running".into(), state, snapshots: Default::default() }));
            return;
        }
        let Some((_, view)) = &mut slot.container else { return };
        match act {
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
            Act::Create { .. } => {}
            Act::Delete => slot.container = None,
        }
    }
}

/// Compares a slot with the world after a restart, and takes over what was in doubt.
fn compare(w: &World, slot: &mut Slot) {
    let doubt = slot.doubt.take();
    match (&slot.container, &doubt) {
        (None, Some(Act::Create { name })) => {
            let all = w.get("/containers?limit=100");
            let mut found = all["containers"].as_array().unwrap().iter().filter(|c| c["name"] == *name);
            if let Some(c) = found.next() {
                let id = c["id"].as_str().unwrap().to_owned();
                w.write(&id, "new");
                let now = w.view(&id).unwrap();
                assert_eq!((now.status.as_str(), now.snapshots.len()), ("running", 0), "{name} was made");
                slot.container = Some((id, now));
            }
        }
        (None, _) => {}
        (Some((id, before)), doubt) => match (w.view(id), doubt) {
            (None, Some(Act::Delete)) => {
                assert!(!w.home(id).exists());
                slot.container = None;
            }
            (None, _) => panic!("container {id} is lost: {slot:?}"),
            (Some(now), doubt) => {
                let legal = match doubt {
                    Some(act) => act.is_undone(before, &now) || act.is_after(before, &now),
                    None => *before == now,
                };
                assert!(legal, "container {id}: acknowledged {before:#?}\nin doubt {doubt:#?}\nfound {now:#?}\n{}", w.server.log_tail());
                slot.container = Some((id.clone(), now));
            }
        },
    }
    if let Some((id, view)) = &slot.container
        && view.status == "running"
    {
        w.works(id);
    }
}

pub fn kills(mut w: World, kills: u64, seed: u64) {
    println!("HOODY_SEED={seed} HOODY_KILLS={kills}");
    let mut rng = Rng::new(seed);
    let mut slots: Vec<Slot> = (0..CLIENTS).map(|number| Slot { number, ..Slot::default() }).collect();
    let checks = AtomicU64::new(0);
    let mut starts_killed = 0;
    for n in 0..kills {
        let after = Duration::from_millis(rng.below(1200));
        let rngs: Vec<Rng> = (0..CLIENTS).map(|_| Rng::new(rng.below(1 << 40))).collect();
        let (socket, pool, project) = (w.server.socket(), w.server.pool(), w.project.clone());
        std::thread::scope(|s| {
            let clients: Vec<_> = slots
                .iter_mut()
                .zip(rngs)
                .map(|(slot, rng)| {
                    let client = Client { socket: &socket, pool: pool.clone(), project: &project, rng };
                    s.spawn(move || client.hammer(slot))
                })
                .collect();
            // `check` is silent beside a busy server too.
            let end = Instant::now() + after;
            // What it says is told after the kill: the clients end only then.
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                while n % 3 == 0 && end.saturating_duration_since(Instant::now()) > Duration::from_millis(400) {
                    w.check();
                    checks.fetch_add(1, Ordering::Relaxed);
                }
            }));
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            w.server.kill();
            clients.into_iter().for_each(|c| c.join().unwrap());
            if let Err(panic) = checked {
                std::panic::resume_unwind(panic);
            }
        });
        while rng.percent(30) {
            w.server.spawn();
            std::thread::sleep(Duration::from_millis(rng.below(150)));
            w.server.kill();
            starts_killed += 1;
        }
        w.server.start();
        w.sound();
        slots.iter_mut().for_each(|slot| compare(&w, slot));
    }
    let acknowledged: u64 = slots.iter().map(|s| s.acknowledged).sum();
    println!(
        "{kills} kills under load, {starts_killed} of starting servers; {acknowledged} changes acknowledged, none lost; {} checks under load",
        checks.into_inner()
    );
    assert!(acknowledged > kills, "too little was going on: {acknowledged}");
    w.end();
}
