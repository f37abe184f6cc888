//! Power cuts at random instants under load.

use crate::disk::Cache;
use crate::guest::Agent;
use crate::load::{Client, View, waiting};
use crate::rng::Rng;
use crate::server::{Host, POOL, RUN, Storage, must};
use crate::sqlite::Acknowledged;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clients that make, change, copy and delete containers.
const CLIENTS: usize = 2;
/// The longest time of load between two cuts.
const LONGEST_LOAD: u64 = 6000;
/// A new machine with new disks after as many cuts.
const CUTS_PER_MACHINE: u64 = 40;
/// Where the stand-alone database mount of the guest is, and what lies behind it.
const ALONE: &str = "/run/alone";
const ALONE_BACKING: &str = "/mnt/disk/alone";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number")))
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let cuts = number("CUTS").unwrap_or(2);
    let seed = number("HOODY_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
    println!("CUTS={cuts} HOODY_SEED={seed}");
    let mut rng = Rng::new(seed);
    let (mut left, mut total) = (cuts, Total::default());
    for n in 0.. {
        let of_this = left.min(CUTS_PER_MACHINE);
        let storage = if (seed + n).is_multiple_of(2) { Storage::Image } else { Storage::Device };
        let rng = Rng::new(rng.below(1 << 40));
        // A machine's network is that of a thread.
        let done = std::thread::spawn(move || Campaign::new(storage, n).run(of_this, rng)).join();
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        total.add(&done);
        left -= of_this;
        if left == 0 {
            break;
        }
    }
    println!(
        "{} power cuts, {} of them while the machine started: {} acknowledged changes and {} acknowledged SQLite commits, none lost; {} containers booted again",
        total.cuts, total.of_starts, total.changes, total.commits, total.booted
    );
    assert_eq!(total.cuts, cuts);
    let under_load = total.cuts - total.of_starts;
    assert!(total.changes > under_load && total.commits > under_load.cast_signed(), "too little was going on");
}

#[derive(Default)]
struct Total {
    cuts: u64,
    of_starts: u64,
    changes: u64,
    commits: i64,
    booted: u64,
}

impl Total {
    fn add(&mut self, other: &Total) {
        self.cuts += other.cuts;
        self.of_starts += other.of_starts;
        self.changes += other.changes;
        self.commits += other.commits;
        self.booted += other.booted;
    }
}

/// A machine, its clients, and the writers of databases.
struct Campaign {
    host: Host,
    clients: Vec<Client>,
    /// The project whose databases the writing containers share, and these containers.
    project: String,
    writers: [String; 2],
    acknowledged: Acknowledged,
    total: Total,
}

impl Campaign {
    fn new(storage: Storage, number: u64) -> Self {
        let host = Host::new(&format!("cuts{number}"), storage);
        host.import("busybox");
        let project = |alias: &str| must("POST", "/projects", &json!({ "alias": alias }))["id"].as_str().unwrap().to_owned();
        let (load, databases) = (project("load"), project("databases"));
        let writers = ["first", "second"].map(|name| {
            let command = json!(["/guest-agent", "commit", name, "/hoody/databases/wal.db:wal", "/hoody/databases/rollback.db:delete"]);
            let made = must("POST", &format!("/projects/{databases}/containers"), &json!({ "name": format!("writer-{name}"), "command": command }));
            let id = made["id"].as_str().unwrap().to_owned();
            host.await_status(&id, "running");
            id
        });
        let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, &load)).collect();
        clients.push(Client::of_writer(CLIENTS, &databases, &writers[0]));
        let campaign = Campaign { host, clients, project: databases, writers, acknowledged: Acknowledged::default(), total: Total::default() };
        campaign.mount_alone();
        campaign
    }

    fn mount_alone(&self) {
        Agent::connect().unwrap().sh(&format!("mkdir -p {ALONE} && /mnt/shared/hoody-state-fuse mount {ALONE_BACKING} {ALONE} >/dev/console 2>&1"));
    }

    fn run(mut self, cuts: u64, mut rng: Rng) -> Total {
        while self.total.cuts < cuts {
            let began = Instant::now();
            let time = Duration::from_millis(300 + rng.below(LONGEST_LOAD));
            self.load(time, &mut rng);
            let cache = cache(&mut rng);
            let lost = self.host.cut(cache);
            self.total.cuts += 1;
            println!("cut {} after {time:?} of load, {cache:?}: {lost}", self.total.cuts);
            while self.total.cuts < cuts && rng.percent(25) {
                self.cut_while_starting(&mut rng);
            }
            let cut = began.elapsed();
            self.host.boot();
            self.host.serve();
            let served = began.elapsed();
            self.mount_alone();
            self.verify();
            println!("  sound; serving {:.1} s after the cut, {:.1} s in all", (served - cut).as_secs_f64(), began.elapsed().as_secs_f64());
        }
        self.started_is_started();
        self.total.changes = self.clients.iter().map(|c| c.acknowledged).sum();
        self.total.commits = self.acknowledged.total();
        self.total
    }

    /// Everybody works, until the power goes.
    fn load(&mut self, time: Duration, rng: &mut Rng) {
        let cut = AtomicBool::new(false);
        for name in ["third", "fourth"] {
            let command = ["/mnt/shared/guest-agent", "commit", name, &format!("{ALONE}/wal.db:wal"), &format!("{ALONE}/rollback.db:delete")];
            Agent::connect().unwrap().spawn(&command, &format!("/run/{name}.log")).expect("the writer is started");
        }
        let consoles = self.writers.iter().map(|id| format!("{POOL}/consoles/{id}.log")).chain(["third", "fourth"].map(|n| format!("/run/{n}.log")));
        let consoles: Vec<String> = consoles.collect();
        std::thread::scope(|s| {
            let mut threads = Vec::new();
            for client in &mut self.clients {
                let (rng, cut) = (Rng::new(rng.below(1 << 40)), &cut);
                threads.push(s.spawn(move || client.work(rng, cut)));
            }
            for path in &consoles {
                let acknowledged = self.acknowledged.clone();
                threads.push(s.spawn(move || acknowledged.follow(path)));
            }
            std::thread::sleep(time);
            cut.store(true, Ordering::SeqCst);
            self.host.machine.kill();
            threads.into_iter().for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
    }

    /// The power goes once more while the machine boots or the server recovers.
    fn cut_while_starting(&mut self, rng: &mut Rng) {
        self.host.boot();
        self.host.spawn();
        let time = Duration::from_millis(rng.below(3000));
        std::thread::sleep(time);
        let cache = cache(rng);
        self.host.machine.kill();
        let lost = self.host.cut(cache);
        self.total.cuts += 1;
        self.total.of_starts += 1;
        println!("cut {} {time:?} after the server's start, {cache:?}: {lost}", self.total.cuts);
    }

    /// A start or a stop that is answered before it is done survives a cut that follows at once.
    fn started_is_started(&mut self) {
        let project = must("POST", "/projects", &json!({ "alias": "at-once" }))["id"].as_str().unwrap().to_owned();
        let [started, stopped] = ["started", "stopped"].map(|name| {
            let id =
                must("POST", &format!("/projects/{project}/containers"), &json!({ "name": name, "command": waiting() }))["id"].as_str().unwrap().to_owned();
            self.host.await_status(&id, "running");
            id
        });
        must("POST", &format!("/containers/{started}/force-stop"), &Value::Null);
        self.host.settle();
        for (id, verb) in [(&started, "start"), (&stopped, "stop")] {
            let answer = must("POST", &format!("/containers/{id}/{verb}"), &Value::Null);
            println!("{verb}: {}", answer["message"]);
        }
        self.host.machine.kill();
        println!("cut at once: {}", self.host.cut(Cache::Lost));
        self.host.boot();
        self.host.serve();
        self.host.settle();
        self.host.await_status(&started, "running");
        self.host.await_status(&stopped, "stopped");
        self.host.check();
    }

    /// Everything that must hold after a cut.
    fn verify(&mut self) {
        self.host.settle();
        self.host.check();
        self.acknowledged.verify(&format!("{RUN}/databases/project-{}", self.project), &["first", "second"]);
        self.acknowledged.verify(ALONE, &["third", "fourth"]);
        for client in &mut self.clients {
            client.verify();
            client.boots(&self.host);
            self.total.booted += client.count() as u64;
        }
        let other = View::of(&self.writers[1]).expect("the second writer is there");
        assert_eq!(other.status, "running");
    }
}

fn cache(rng: &mut Rng) -> Cache {
    match rng.below(4) {
        0 => Cache::Kept,
        1 => Cache::Lost,
        _ => Cache::Mixed(rng.below(1 << 40)),
    }
}
