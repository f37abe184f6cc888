//! Kills of the server, of the databases' daemon and of both, while shares are given and taken and their receivers start again.
//!
//! What was acknowledged holds after it; the one call in flight is in doubt. What containers see is what the lists say, and their databases answer.

use crate::leftovers;
use crate::rng::Rng;
use crate::server::Request;
use crate::world::{World, new_container};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A switch that one client turns: what was acknowledged last, and what was asked for since without an answer.
#[derive(Debug, Clone, Copy)]
struct Switch {
    acknowledged: bool,
    doubt: Option<bool>,
}

struct Scene {
    owner: String,
    receivers: [String; 2],
    /// Of the directory, for the first receiver alone; of the owner's own databases, for the project of both.
    shares: [String; 2],
}

fn scene(w: &World) -> Scene {
    let other = w.must(&Request::new("POST", "/projects").json(&json!({ "alias": "receivers" })))["id"].as_str().unwrap().to_owned();
    let mut owner = new_container("owner");
    owner["databases"] = "private".into();
    let owner = w.create(&owner);
    let receivers = ["one", "two"].map(|n| w.create_in(&other, &new_container(n)));
    let make = "mkdir -p /hoody/storage/docs /hoody/databases/app; echo docs > /hoody/storage/docs/f; echo app > /hoody/databases/app/f";
    w.must(&exec(&owner, make));
    let offer = |path: &str, kind: &str, to: &str| {
        let body = json!({ "source_path": path, "mode": "readwrite", kind: to });
        w.must(&Request::new("POST", format!("/containers/{owner}/storage/shares")).json(&body))["id"].as_str().unwrap().to_owned()
    };
    let shares = [offer("/hoody/storage/docs", "target_container_id", &receivers[0]), offer("/hoody/databases/app", "target_project_id", &other)];
    Scene { owner, receivers, shares }
}

fn exec(c: &str, line: &str) -> Request {
    Request::new("POST", format!("/containers/{c}/exec")).json(&json!({ "command": ["/bin/sh", "-c", line] }))
}

impl Scene {
    fn turn(&self, which: usize, on: bool) -> Request {
        let (owner, [one, _]) = (&self.owner, &self.receivers);
        match which {
            0 => Request::new("PATCH", format!("/containers/{one}/storage/incoming/{}/mount", self.shares[0])).json(&json!({ "mount": on })),
            _ => Request::new("PATCH", format!("/containers/{owner}/storage/shares/{}", self.shares[1])).json(&json!({ "enabled": on })),
        }
    }

    /// Turns a switch until nobody answers, or until told to end.
    fn hammer(&self, w: &World, which: usize, s: &mut Switch, end: &AtomicBool) {
        let mut on = s.acknowledged;
        while !end.load(Ordering::SeqCst) {
            on = !on;
            s.doubt = Some(on);
            match w.send(&self.turn(which, on), None) {
                Some(a) if a.status < 300 => *s = Switch { acknowledged: on, doubt: None },
                // It is written down all the same, and a receiver cannot be reached just now.
                Some(a) => assert!(a.status >= 500, "{}", a.data),
                None => return,
            }
        }
    }

    fn settled(&self, w: &World, which: usize, s: &mut Switch) {
        let now = match which {
            0 => w.get(&format!("/containers/{}/storage/incoming", self.receivers[0])).as_array().unwrap().iter().find(|r| r["id"] == *self.shares[0]).unwrap()
                ["mount"]
                .clone(),
            _ => w.get(&format!("/containers/{}/storage/shares/{}", self.owner, self.shares[1]))["enabled"].clone(),
        };
        let now = now.as_bool().unwrap();
        assert!(now == s.acknowledged || s.doubt == Some(now), "the switch {which} is {now}: {s:?}");
        *s = Switch { acknowledged: now, doubt: None };
    }

    /// What each receiver sees is what its list says.
    fn seen(&self, w: &World) {
        for r in &self.receivers {
            let incoming = w.get(&format!("/containers/{r}/storage/incoming"));
            let path = |i: &Value| i["mount_path"].as_str().unwrap().to_owned();
            let wanted: BTreeSet<String> = incoming.as_array().unwrap().iter().filter(|i| i["mounted"] == true).map(path).collect();
            let out = w.must(&exec(r, "for f in /hoody/shares/*/f; do test -e $f && echo ${f%/f} $(cat $f); done; true"));
            let lines = out["stdout"].as_str().unwrap();
            let seen: BTreeSet<String> = lines.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(seen, wanted, "{out}");
            assert!(lines.lines().all(|l| l.split(' ').next().unwrap().ends_with(l.split(' ').nth(1).unwrap())), "{lines}");
        }
        let own = w.must(&exec(&self.owner, "cat /hoody/databases/app/f"));
        assert_eq!(own["stdout"], "app\n", "{own}");
    }
}

fn kill_daemon(w: &World) {
    let socket = w.server.run().join("databases.sock");
    for (pid, line) in leftovers::processes(&socket) {
        if line.contains("--control") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// `check` is silent before long: a daemon that was killed is started again behind.
fn becomes_clean(w: &World) {
    let end = Instant::now() + Duration::from_secs(20);
    while !w.server.check().status.success() {
        assert!(Instant::now() < end, "check: {}\n{}", String::from_utf8_lossy(&w.server.check().stdout), w.server.log_tail());
    }
}

pub fn kills(mut w: World, rounds: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    println!("HOODY_SEED={seed} HOODY_KILLS={rounds}");
    let scene = scene(&w);
    let mut switches = [Switch { acknowledged: false, doubt: None }, Switch { acknowledged: true, doubt: None }];
    for round in 0..rounds {
        let (server, daemon) = [(true, false), (false, true), (true, true)][(round % 3) as usize];
        let end = AtomicBool::new(false);
        std::thread::scope(|t| {
            for (which, s) in switches.iter_mut().enumerate() {
                let (scene, w, end) = (&scene, &w, &end);
                t.spawn(move || scene.hammer(w, which, s, end));
            }
            let restart = w.verb(&scene.receivers[1], "restart").json(&json!({ "timeout": 1 }));
            let (w, end) = (&w, &end);
            t.spawn(move || while !end.load(Ordering::SeqCst) && w.send(&restart, None).is_some() {});
            std::thread::sleep(Duration::from_millis(50 + rng.below(600)));
            if daemon {
                kill_daemon(w);
            }
            if server {
                let pid = nix::unistd::Pid::from_raw(w.server.pid().cast_signed());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            } else {
                std::thread::sleep(Duration::from_millis(300));
            }
            end.store(true, Ordering::SeqCst);
        });
        if server {
            w.server.kill();
            w.server.start();
        }
        assert!(w.settle(), "the server died\n{}", w.server.log_tail());
        becomes_clean(&w);
        w.bring(&scene.receivers[1], "running");
        w.sound();
        for (which, s) in switches.iter_mut().enumerate() {
            scene.settled(&w, which, s);
        }
        scene.seen(&w);
    }
    w.end();
}
