//! Signals at random instants, under load, to the server and to the daemon of its databases: both are stopped and go on later, or are killed as the kernel
//! does when memory runs out. Nothing that was acknowledged is lost, and everything works afterwards.

use crate::leftovers;
use crate::rng::Rng;
use crate::server::{Request, Server};
use crate::world::{World, new_container};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Errors that a client may see of a request while the server, the daemon or another request is in its way.
const PASSING: [&str; 8] = [
    "operation_in_progress",
    "container_operation_in_progress",
    "operation_state_conflict",
    "databases_unavailable",
    "databases_not_running",
    "start_failed",
    "freeze_timeout",
    "timeout",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number")))
}

#[test]
fn servers_and_daemons_stopped_and_killed_at_random_instants_lose_nothing() {
    let seed = number("HOODY_SEED", std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
    let rounds = number("HOODY_FAULTS", 8);
    println!("HOODY_SEED={seed} HOODY_FAULTS={rounds}");
    let mut rng = Rng::new(seed);
    let mut w = World::new("faults-signals");
    let writers = writers(&w);
    let mut acknowledged = BTreeMap::new();
    let mut answers = 0;
    for n in 0..rounds {
        let done = AtomicBool::new(false);
        let socket = w.server.socket();
        let load = w.create(&new_container(&format!("load-{n}")));
        w.write(&load, &format!("load {n}"));
        let fault = ["server stopped", "daemon stopped", "daemon killed", "server killed"][rng.below(4) as usize];
        let (before, time) = (Duration::from_millis(rng.below(800)), Duration::from_millis(rng.below(4000)));
        std::thread::scope(|s| {
            let clients: Vec<_> = [&load, &writers[0]]
                .into_iter()
                .map(|id| {
                    let (done, socket) = (&done, &socket);
                    s.spawn(move || client(socket, id, n, done))
                })
                .collect();
            std::thread::sleep(before);
            println!("round {n}: {fault} after {before:?}, for {time:?}");
            match fault {
                "server stopped" => pause(w.server.pid(), time),
                "daemon stopped" => pause(daemon(&w.server), time),
                "daemon killed" => kill(pid(daemon(&w.server)), Signal::SIGKILL).unwrap(),
                _ => {
                    w.server.kill();
                    w.server.start();
                }
            }
            std::thread::sleep(Duration::from_millis(500));
            done.store(true, Ordering::SeqCst);
            answers += clients.into_iter().map(|c| c.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).sum::<u64>();
        });
        assert!(w.settle(), "the server has died\n{}", w.server.log_tail());
        for id in &writers {
            for (key, last) in committed(&w.server.pool().join(format!("consoles/{id}.log"))) {
                let known = acknowledged.entry(key).or_default();
                *known = last.max(*known);
            }
            // What a writer had open ended with the daemon; it begins anew.
            w.bring(id, "stopped");
            w.bring(id, "running");
        }
        w.works(&load);
        w.must(&Request::new("DELETE", format!("/containers/{load}")));
        w.sound();
        verify(&w, &acknowledged);
    }
    println!("{rounds} faults, {answers} answers, {} commits acknowledged and there", acknowledged.values().sum::<i64>());
    assert!(acknowledged.values().sum::<i64>() > 0 && answers > 0);
    w.end();
}

fn pid(n: u32) -> Pid {
    Pid::from_raw(n.cast_signed())
}

/// The daemon that serves this server's databases now.
fn daemon(server: &Server) -> u32 {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let found = leftovers::processes(&server.dir).into_iter().find(|(pid, line)| *pid != server.pid() && line.contains("hoody-state-fuse"));
        if let Some((pid, _)) = found {
            return pid;
        }
        assert!(Instant::now() < end, "no daemon serves the databases");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pause(n: u32, time: Duration) {
    kill(pid(n), Signal::SIGSTOP).unwrap();
    std::thread::sleep(time);
    kill(pid(n), Signal::SIGCONT).unwrap();
}

/// Two containers that commit to the same databases of their project, as the guests' do.
fn writers(w: &World) -> [String; 2] {
    let tar = w.server.dir.join("image.tar");
    hoody_state_workspace::worker::make_image(Path::new(env!("CARGO_BIN_EXE_guest-agent")), "/guest-agent", &tar);
    let mut import = Request::new("PUT", "/images/writer");
    import.body = std::fs::read(&tar).unwrap();
    w.must(&import);
    ["first", "second"].map(|name| {
        let command = ["/guest-agent", "commit", name, "/hoody/databases/wal.db:wal", "/hoody/databases/rollback.db:delete"];
        w.create(&json!({ "name": format!("writer-{name}"), "container_image": "writer", "command": command }))
    })
}

/// Takes and deletes snapshots of a container, and pauses and resumes it, until told to end; how many answers it got. A request that is not answered, as when
/// the server is killed, is sent no second time.
fn client(socket: &Path, id: &str, round: u64, done: &AtomicBool) -> u64 {
    let mut answers = 0;
    for n in 0.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let on = |method, rest: &str| Request::new(method, format!("/containers/{id}{rest}"));
        let alias = format!("load-{round}-{n}");
        let requests = [
            on("POST", "/snapshots").json(&json!({ "alias": alias })),
            on("POST", "/pause"),
            on("POST", "/resume"),
            on("DELETE", &format!("/snapshots/{alias}")),
        ];
        for request in requests {
            let Some(a) = request.send(socket, None) else { continue };
            answers += 1;
            let code = a.data["code"].as_str().unwrap_or_default();
            // What was in doubt after a kill may have come to nothing.
            let passing = PASSING.contains(&code) || code == "snapshot_not_found";
            assert!(a.status < 300 || passing, "{} {}: {} {}", request.method, request.path, a.status, a.data);
        }
    }
    answers
}

/// The last commits that a writer's console tells of.
fn committed(console: &Path) -> BTreeMap<(String, String), i64> {
    let text = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["committed", writer, database, n] = words[..]
            && let Ok(n) = n.parse::<i64>()
        {
            all.insert((writer.to_owned(), database.to_owned()), n);
        }
    }
    all
}

/// Every acknowledged commit is there, and none before it is missing.
fn verify(w: &World, acknowledged: &BTreeMap<(String, String), i64>) {
    for database in ["wal.db", "rollback.db"] {
        let path = w.server.run().join(format!("databases/project-{}", w.project)).join(database);
        let out = Command::new(env!("CARGO_BIN_EXE_guest-agent")).arg("look").arg(&path).output().unwrap();
        assert!(out.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
        let look: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(look["integrity"], "ok");
        let found = look["writers"].as_array().unwrap();
        assert!(found.iter().all(|w| w["count"] == w["last"]), "{database}: a commit before the last one is missing: {look}");
        for ((writer, _), last) in acknowledged.iter().filter(|((_, d), _)| d == database) {
            let there = found.iter().find(|w| w["writer"] == *writer).map_or(0, |w| w["last"].as_i64().unwrap());
            assert!(there >= *last, "{database}: commit {last} of {writer} was acknowledged, and {there} is the last one: {look}");
        }
    }
}
