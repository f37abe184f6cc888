//! Random requests against a small oracle: never two conflicting grants, every request answered once, no cycle left, bounded bypass.

use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Task, Tick, Ticket};
use super::World;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const FILES: [(u64, Class); 4] = [(0, Class::Plain), (1, Class::Shm), (2, Class::Database), (3, Class::Shm)];

#[derive(Debug, Clone)]
enum Step {
    Lock { file: usize, who: u64, byte: usize, len: u64, write: bool, wait: bool },
    Unlock { file: usize, who: u64, all: bool, byte: usize },
    Close { file: usize, who: u64 },
    Cancel { nth: usize },
    Tick { by: u64 },
    Commit { file: usize },
    Hold,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let (file, who) = (0..FILES.len(), 0..5_u64);
    prop_oneof![
        12 => (file.clone(), who.clone(), 0..9_usize, 1..4_u64, any::<bool>(), any::<bool>())
            .prop_map(|(file, who, byte, len, write, wait)| Step::Lock { file, who, byte, len, write, wait }),
        6 => (file.clone(), who.clone(), any::<bool>(), 0..9_usize).prop_map(|(file, who, all, byte)| Step::Unlock { file, who, all, byte }),
        2 => (file.clone(), who).prop_map(|(file, who)| Step::Close { file, who }),
        1 => (0..6_usize).prop_map(|nth| Step::Cancel { nth }),
        3 => prop_oneof![Just(100_u64), Just(5_000), Just(300_000), Just(70_000_000)].prop_map(|by| Step::Tick { by }),
        2 => file.prop_map(|file| Step::Commit { file }),
        1 => Just(Step::Hold),
        1 => Just(Step::Release),
    ]
}

fn byte(class: Class, n: usize) -> u64 {
    match class {
        Class::Plain => n as u64,
        Class::Shm => 120 + n as u64,
        Class::Database => 0x4000_0000 + n as u64,
    }
}

/// The oracle: who holds each byte, and which tickets are open.
#[derive(Default)]
struct Oracle {
    bytes: HashMap<(u64, u64), HashMap<Owner, LockKind>>,
    open: HashMap<Ticket, Request>,
    answered: HashSet<Ticket>,
    granted: u64,
    refused: u64,
}

impl Oracle {
    fn take(&mut self, out: &mut Vec<Answer>) {
        for a in out.drain(..) {
            assert!(self.answered.insert(a.ticket), "ticket {} answered twice", a.ticket);
            let r = self.open.remove(&a.ticket).expect("an answer to an open request");
            if a.outcome.is_err() {
                self.refused += 1;
                continue;
            }
            self.granted += 1;
            for at in r.range.start..=r.range.end {
                let held = self.bytes.entry((r.file, at)).or_default();
                for (owner, kind) in held.iter() {
                    assert!(
                        *owner == r.owner || (*kind == LockKind::Read && r.kind == LockKind::Read),
                        "{:?} and {:?} both hold byte {at} of {}",
                        owner,
                        r.owner,
                        r.file
                    );
                }
                held.insert(r.owner, r.kind);
            }
        }
    }

    fn free(&mut self, file: u64, owner: Owner, range: Range) {
        for ((f, at), held) in &mut self.bytes {
            if *f == file && range.start <= *at && *at <= range.end {
                held.remove(&owner);
            }
        }
    }

    /// A thread that waits for a lock held by a thread that waits for … it. Only by held bytes: intents and queues are the broker's own affair.
    fn has_cycle(&self) -> bool {
        let blockers = |tid: u32| -> Vec<u32> {
            let mut found = Vec::new();
            for r in self.open.values().filter(|r| r.task.tid == tid) {
                for at in r.range.start..=r.range.end {
                    for (owner, kind) in self.bytes.get(&(r.file, at)).into_iter().flatten() {
                        if *owner != r.owner && (*kind == LockKind::Write || r.kind == LockKind::Write) {
                            found.push(u32::try_from(owner.lock_owner).unwrap() + 1);
                        }
                    }
                }
            }
            found
        };
        (1..=5).any(|start| {
            let (mut seen, mut next) = (HashSet::new(), blockers(start));
            while let Some(t) = next.pop() {
                if t == start {
                    return true;
                }
                if seen.insert(t) {
                    next.extend(blockers(t));
                }
            }
            false
        })
    }
}

/// A broker, its oracle, and what the steps so far have left.
struct Run {
    world: World,
    broker: Broker,
    oracle: Oracle,
    out: Vec<Answer>,
    now: Tick,
    ticket: Ticket,
    holds: u32,
}

impl Run {
    fn new(wal: bool) -> Self {
        let mut world = World::default();
        if wal {
            world.wal.insert(2);
        }
        Run { world, broker: Broker::new(Limits::default()), oracle: Oracle::default(), out: Vec::new(), now: 0, ticket: 0, holds: 0 }
    }

    fn task(who: u64) -> Task {
        let id = u32::try_from(who).unwrap() + 1;
        Task { tid: id, pid: id }
    }

    fn step(&mut self, step: Step) {
        self.now += 10;
        match step {
            Step::Lock { file, who, byte: n, len, write, wait } => {
                let task = Self::task(who);
                // A thread has one request at a time.
                if self.oracle.open.values().any(|r| r.task.tid == task.tid) {
                    return;
                }
                let (id, class) = FILES[file];
                let start = byte(class, n);
                let kind = if write { LockKind::Write } else { LockKind::Read };
                self.ticket += 1;
                let (ticket, owner) = (self.ticket, Owner { lock_owner: who, node: id });
                let range = Range::new(start, start + len - 1);
                let r = Request { ticket, file: id, class, volume: 7, owner, task, range, kind, wait, read_only: who == 4 };
                self.oracle.open.insert(ticket, r);
                self.broker.lock(self.now, &self.world, r, &mut self.out);
            }
            Step::Unlock { file, who, all, byte: n } => {
                if self.oracle.open.values().any(|r| r.owner.lock_owner == who) {
                    return;
                }
                let (id, class) = FILES[file];
                let range = if all { Range::new(0, u64::MAX >> 1) } else { Range::byte(byte(class, n)) };
                let owner = Owner { lock_owner: who, node: id };
                self.oracle.free(id, owner, range);
                self.broker.unlock(self.now, &self.world, id, owner, Task { pid: 0, ..Self::task(who) }, range, &mut self.out);
            }
            Step::Close { file, who } => self.close(file, who),
            Step::Cancel { nth } => {
                let mut open: Vec<(Ticket, u64)> = self.oracle.open.iter().map(|(t, r)| (*t, r.file)).collect();
                open.sort_unstable();
                if let Some((t, f)) = open.get(nth) {
                    self.broker.cancel(self.now, &self.world, *f, *t, Cause::Interrupted, &mut self.out);
                }
            }
            Step::Tick { by } => self.tick(by),
            Step::Commit { file } => self.world.commit(FILES[file].0),
            Step::Hold => {
                self.holds += 1;
                self.broker.hold(&[7]);
            }
            Step::Release if self.holds > 0 => {
                self.holds -= 1;
                self.broker.release(self.now, &self.world, &[7], &mut self.out);
            }
            Step::Release => {}
        }
        self.oracle.take(&mut self.out);
    }

    fn tick(&mut self, by: Tick) {
        self.now += by;
        self.broker.tick(self.now, &self.world, &mut self.out);
    }

    fn close(&mut self, file: usize, who: u64) {
        let id = FILES[file].0;
        let owner = Owner { lock_owner: who, node: id };
        self.oracle.free(id, owner, Range::new(0, u64::MAX));
        self.broker.close(self.now, &self.world, id, owner, &mut self.out);
    }

    fn close_all(&mut self) {
        for file in 0..FILES.len() {
            for who in 0..5 {
                self.close(file, who);
                self.oracle.take(&mut self.out);
            }
        }
    }

    /// Releases and closes everything, and lets time pass until every wait has ended.
    fn end(&mut self) {
        for _ in 0..self.holds {
            self.broker.release(self.now, &self.world, &[7], &mut self.out);
        }
        self.close_all();
        for _ in 0..3 {
            self.tick(61_000_000);
            self.oracle.take(&mut self.out);
            self.close_all();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_requests_agree_with_the_oracle(steps in prop::collection::vec(step(), 1..120), wal in any::<bool>()) {
        let mut run = Run::new(wal);
        for step in steps {
            run.step(step);
            prop_assert!(!run.oracle.has_cycle(), "a cycle of waits is left");
            for f in run.broker.status(run.now) {
                for w in f.waiters {
                    // One request of each other thread, and those granted during the turn of another owner.
                    prop_assert!(w.bypassed < 200);
                }
            }
        }
        run.end();
        let (broker, oracle) = (&run.broker, &run.oracle);
        prop_assert!(oracle.open.is_empty(), "never answered: {:?}", oracle.open);
        prop_assert!(broker.status(run.now).is_empty(), "nothing is held and nothing waits: {:?}", broker.status(run.now));
        let c = broker.counters();
        prop_assert_eq!(c.granted + c.granted_late, oracle.granted);
        prop_assert_eq!(c.refused.values().sum::<u64>(), oracle.refused);
    }
}
