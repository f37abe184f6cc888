//! Random requests against a small oracle: never two conflicting grants, every request answered once, no cycle left, bounded bypass.

use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Task, Ticket};
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
    LetGo,
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
        1 => Just(Step::LetGo),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_for(steps in prop::collection::vec(step(), 1..120), wal in any::<bool>()) {
        let mut world = World::default();
        if wal { world.wal.insert(2); }
        let mut broker = Broker::new(Limits::default());
        let (mut oracle, mut out) = (Oracle::default(), Vec::new());
        let (mut now, mut ticket, mut holds) = (0, 0, 0);
        for step in steps {
            now += 10;
            match step {
                Step::Lock { file, who, byte: n, len, write, wait } => {
                    let task = Task { tid: u32::try_from(who).unwrap() + 1, pid: u32::try_from(who).unwrap() + 1 };
                    // A thread asks for one thing at a time.
                    if oracle.open.values().any(|r| r.task.tid == task.tid) {
                        continue;
                    }
                    let (id, class) = FILES[file];
                    let start = byte(class, n);
                    let kind = if write { LockKind::Write } else { LockKind::Read };
                    ticket += 1;
                    let owner = Owner { lock_owner: who, node: id };
                    let r = Request { ticket, file: id, class, volume: 7, owner, task, range: Range::new(start, start + len - 1), kind, wait, read_only: who == 4 };
                    oracle.open.insert(ticket, r);
                    broker.lock(now, &world, r, &mut out);
                }
                Step::Unlock { file, who, all, byte: n } => {
                    if oracle.open.values().any(|r| r.owner.lock_owner == who) {
                        continue;
                    }
                    let (id, class) = FILES[file];
                    let range = if all { Range::new(0, u64::MAX >> 1) } else { Range::byte(byte(class, n)) };
                    let owner = Owner { lock_owner: who, node: id };
                    oracle.free(id, owner, range);
                    broker.unlock(now, &world, id, owner, Task { tid: u32::try_from(who).unwrap() + 1, pid: 0 }, range, &mut out);
                }
                Step::Close { file, who } => {
                    let id = FILES[file].0;
                    let owner = Owner { lock_owner: who, node: id };
                    oracle.free(id, owner, Range::new(0, u64::MAX));
                    broker.close(now, &world, id, owner, &mut out);
                }
                Step::Cancel { nth } => {
                    let mut open: Vec<(Ticket, u64)> = oracle.open.iter().map(|(t, r)| (*t, r.file)).collect();
                    open.sort_unstable();
                    if let Some((t, f)) = open.get(nth) {
                        broker.cancel(now, &world, *f, *t, Cause::Interrupted, &mut out);
                    }
                }
                Step::Tick { by } => {
                    now += by;
                    broker.tick(now, &world, &mut out);
                }
                Step::Commit { file } => world.commit(FILES[file].0),
                Step::Hold => {
                    holds += 1;
                    broker.hold(&[7]);
                }
                Step::LetGo if holds > 0 => {
                    holds -= 1;
                    broker.let_go(now, &world, &[7], &mut out);
                }
                Step::LetGo => {}
            }
            oracle.take(&mut out);
            prop_assert!(!oracle.has_cycle(), "a cycle of waits is left");
            for f in broker.status(now) {
                for w in f.waiters {
                    // One of each other thread's, and those granted in the moments of their turn.
                    prop_assert!(w.bypassed < 200);
                }
            }
        }
        for _ in 0..holds {
            broker.let_go(now, &world, &[7], &mut out);
        }
        for (id, _) in FILES {
            for who in 0..5 {
                let owner = Owner { lock_owner: who, node: id };
                oracle.free(id, owner, Range::new(0, u64::MAX));
                broker.close(now, &world, id, owner, &mut out);
                oracle.take(&mut out);
            }
        }
        for _ in 0..3 {
            now += 61_000_000;
            broker.tick(now, &world, &mut out);
            oracle.take(&mut out);
            for (id, _) in FILES {
                for who in 0..5 {
                    let owner = Owner { lock_owner: who, node: id };
                    oracle.free(id, owner, Range::new(0, u64::MAX));
                    broker.close(now, &world, id, owner, &mut out);
                    oracle.take(&mut out);
                }
            }
        }
        prop_assert!(oracle.open.is_empty(), "never answered: {:?}", oracle.open);
        prop_assert!(broker.status(now).is_empty(), "nothing is held and nothing waits: {:?}", broker.status(now));
        let c = broker.counters();
        prop_assert_eq!(c.granted + c.granted_late, oracle.granted);
        prop_assert_eq!(c.refused.values().sum::<u64>(), oracle.refused);
    }
}
