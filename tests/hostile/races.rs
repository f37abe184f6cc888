//! Two changes at once.

use super::me;
use hoody_state::Code;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewSnapshot, RestoreOptions, Verb};
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Caller, Host, HostBuilder, Kind, Result};
use hoody_state_workspace::{MemoryWorld, RealHost, assert_clean, at_rest, container, furnish, picture, project, snapshot};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Holds whoever comes to a step.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    step: Option<String>,
    waiting: bool,
}

impl Gate {
    pub fn close(&self, step: &str) {
        *self.0.0.lock().unwrap() = State { step: Some(step.into()), waiting: false };
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().step = None;
        self.0.1.notify_all();
    }

    pub fn wait_for_someone(&self) {
        let (s, t) = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), Duration::from_secs(10), |s| !s.waiting).unwrap();
        drop(s);
        assert!(!t.timed_out(), "nobody came to the gate");
    }
}

impl StepHook for Gate {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let me = format!("{operation}:{step}");
        let mut s = self.0.0.lock().unwrap();
        while s.step.as_deref() == Some(&me) {
            s.waiting = true;
            self.0.1.notify_all();
            s = self.0.1.wait(s).unwrap();
        }
        Ok(())
    }
}

pub fn gated() -> (Host, Gate) {
    let gate = Gate::default();
    let freezer = Arc::new(MemoryFreezer::new());
    let runtime = Arc::new(MemoryRuntime::with_freezer(freezer.clone()));
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), freezer, runtime).unwrap();
    (builder.hook(Box::new(gate.clone())).open().unwrap(), gate)
}

type Act = fn(&Host, &ContainerId, &Caller) -> Result<()>;

const ACTS: [(&str, &str, Act); 7] = [
    ("snapshot", "snapshot.create:snapshot", |h, c, me| h.create_snapshot(me, c, NewSnapshot::default()).map(|_| ())),
    ("restore", "snapshot.restore:exchange", |h, c, me| h.restore(me, c, "s", RestoreOptions::default()).map(|_| ())),
    ("stop", "container.stop:stop", |h, c, me| h.lifecycle(me, c, Verb::Stop, None).map(|_| ())),
    ("restart", "container.restart:boot", |h, c, me| h.lifecycle(me, c, Verb::Restart, None).map(|_| ())),
    ("pause", "container.pause:freeze", |h, c, me| h.lifecycle(me, c, Verb::Pause, None).map(|_| ())),
    ("delete snapshot", "volume.delete:delete", |h, c, me| h.delete_snapshot(me, c, "t").map(|_| ())),
    ("delete", "container.delete:trash", |h, c, me| h.delete_container(me, c)),
];

/// It waits for nobody.
fn impatient() -> Caller {
    Caller { patience: Duration::ZERO, ..me() }
}

fn staged(h: &Host) -> ContainerId {
    let c = container(h, &furnish(h), "dev").unwrap();
    snapshot(h, &c, "s").unwrap();
    snapshot(h, &c, "t").unwrap();
    c
}

#[test]
fn of_two_changes_one_is_refused_and_changes_nothing() {
    for (first, step, a) in ACTS {
        for (second, _, b) in ACTS {
            let (h, gate) = gated();
            let c = staged(&h);
            gate.close(step);
            std::thread::scope(|s| {
                let one = s.spawn(|| a(&h, &c, &me()));
                gate.wait_for_someone();
                let before = picture(&h);
                let out = b(&h, &c, &impatient());
                let when = format!("{second} during {first}");
                match (first, second) {
                    // It is on its way already.
                    ("delete", "delete") => out.unwrap(),
                    _ => {
                        let e = out.expect_err(&when);
                        let gone = first == "delete snapshot" && second == first && e.code() == Code::SnapshotNotFound;
                        assert!(gone || e.kind() == Kind::Busy, "{when}: {e:?}");
                    }
                }
                assert!(before == picture(&h), "{when} has changed something");
                // Reading waits for nobody.
                h.container(&c).unwrap();
                h.snapshots(&c).unwrap();
                gate.open();
                one.join().unwrap().unwrap_or_else(|e| panic!("{when}: {e:?}"));
            });
            at_rest(&h);
            assert_clean(&h, &format!("{first}, then {second}"));
        }
    }
}

#[test]
fn containers_never_wait_for_each_other() {
    for (name, step, act) in ACTS {
        let (h, gate) = gated();
        let p = furnish(&h);
        let (a, b) = (container(&h, &p, "aaa").unwrap(), container(&h, &p, "bbb").unwrap());
        for c in [&a, &b] {
            snapshot(&h, c, "s").unwrap();
            snapshot(&h, c, "t").unwrap();
        }
        gate.close(step);
        std::thread::scope(|s| {
            let held = s.spawn(|| act(&h, &a, &me()));
            gate.wait_for_someone();
            for (_, other, act) in ACTS.iter().filter(|(_, other, _)| *other != step) {
                let r = act(&h, &b, &me());
                assert!(r.as_ref().err().is_none_or(|e| e.kind() != Kind::Busy), "{other} of b during {name} of a: {r:?}");
                if h.container(&b).is_ok_and(|c| c.status == hoody_state::model::Status::Stopped) {
                    h.lifecycle(&me(), &b, Verb::Start, None).unwrap();
                }
            }
            let p2 = project(&h, "p2");
            container(&h, &p2, "ccc").unwrap();
            gate.open();
            held.join().unwrap().unwrap();
        });
        at_rest(&h);
        assert_clean(&h, name);
    }
}

/// Whatever two threads do to one container at once: each succeeds or is refused for a good reason, and all is whole afterwards.
fn race(h: &Host, c: &ContainerId, rounds: usize) {
    let acts: Vec<_> = ACTS.iter().filter(|(n, _, _)| *n != "delete").collect();
    let good = [Code::OperationInProgress, Code::SnapshotOperationInProgress, Code::OperationStateConflict, Code::SnapshotNotFound];
    let mut won = 0;
    for n in 0..rounds {
        let (a, b) = (acts[n % acts.len()], acts[(n / acts.len()) % acts.len()]);
        let _ = snapshot(h, c, "t");
        let out = std::thread::scope(|s| {
            let one = s.spawn(|| a.2(h, c, &me()));
            let two = s.spawn(|| b.2(h, c, &me()));
            [one.join().unwrap(), two.join().unwrap()]
        });
        won += out.iter().filter(|o| o.is_ok()).count();
        for e in out.iter().filter_map(|o| o.as_ref().err()) {
            assert!(good.contains(&e.code()), "{} and {}: {e:?}", a.0, b.0);
        }
        at_rest(h);
        match h.container(c).unwrap().status {
            hoody_state::model::Status::Running => {}
            hoody_state::model::Status::Paused => h.lifecycle(&me(), c, Verb::Resume, None).map(|_| ()).unwrap(),
            _ => h.lifecycle(&me(), c, Verb::Start, None).map(|_| ()).unwrap(),
        }
        if n % 20 == 0 {
            assert_clean(h, &format!("{} and {}", a.0, b.0));
            for s in h.snapshots(c).unwrap().snapshots.iter().filter(|s| s.name.as_str() != "s") {
                h.delete_snapshot(&me(), c, s.name.as_str()).unwrap();
            }
        }
    }
    assert!(won > rounds / 2, "{won} of {rounds} rounds had a winner");
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| h.delete_container(&me(), c));
        }
    });
    at_rest(h);
    assert!(h.container(c).is_err());
    assert_clean(h, "after the races");
}

#[test]
fn two_hundred_races_in_memory() {
    let w = MemoryWorld::new();
    let h = w.host();
    race(&h, &staged(&h), 200);
}

#[test]
fn races_of_a_real_container() {
    let real = RealHost::new("h-races");
    let p = project(real.host(), "p");
    let c = container(real.host(), &p, "dev").unwrap();
    snapshot(real.host(), &c, "s").unwrap();
    race(real.host(), &c, 36);
}
