//! Many waiters: what each costs, and what they cost while they wait.

use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Task, rules};
use super::World;
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};

struct Crowd {
    broker: Broker,
    world: World,
    now: u64,
    tickets: u64,
    out: Vec<Answer>,
}

impl Crowd {
    fn new() -> Self {
        Crowd { broker: Broker::new(Limits::default()), world: World::default(), now: 0, tickets: 0, out: Vec::new() }
    }

    /// Owner and thread `who` of process `pid` asks for a byte.
    fn ask(&mut self, file: u64, class: Class, who: u32, pid: u32, at: u64, kind: LockKind) {
        self.tickets += 1;
        let owner = Owner { lock_owner: u64::from(who), node: file };
        let (task, range) = (Task { tid: who, pid }, Range::byte(at));
        let wait = class == Class::Plain;
        let r = Request { ticket: self.tickets, file, class, volume: 1, owner, task, range, kind, wait, read_only: kind == LockKind::Read };
        self.broker.lock(self.now, &self.world, r, &mut self.out);
    }

    fn tick(&mut self, by: u64) {
        self.now += by;
        self.broker.tick(self.now, &self.world, &mut self.out);
    }

    /// The process of owner 1 of file 1 is seen to use it by two threads.
    fn move_connections(&mut self, pid: u32) {
        for tid in [77_777, 1] {
            let (owner, task) = (Owner { lock_owner: 1, node: 1 }, Task { tid, pid });
            self.broker.unlock(self.now, &self.world, 1, owner, task, Range::byte(9), &mut self.out);
        }
        assert!(self.broker.moves_connections(pid));
    }

    fn deadlocks(&self) -> usize {
        self.out.iter().filter(|a| a.outcome == Err(Cause::Deadlock)).count()
    }

    fn waits(&self) -> usize {
        self.broker.waiting_since(self.now, 0).len()
    }
}

const MANY: u32 = 2_000;

/// The search for doubtful cycles was cubic, made anew each millisecond with the table locked.
#[test]
fn two_thousand_waiters_on_one_file_cost_little_while_they_wait() {
    for (class, at) in [(Class::Plain, 0), (Class::Shm, 120), (Class::Database, 0x4000_0001)] {
        let mut c = Crowd::new();
        let begun = Instant::now();
        c.ask(1, class, 1, 1, at, LockKind::Write);
        for who in 2..MANY + 2 {
            c.ask(1, class, who, who, at, LockKind::Write);
        }
        assert_eq!(c.waits(), MANY as usize);
        let asked = begun.elapsed();
        let looks = c.world.looks.replace(0);
        assert!(looks <= 2 * MANY as usize + 2, "{looks} looks at files by {MANY} requests");
        let begun = Instant::now();
        c.tick(Limits::default().doubt);
        for _ in 0..300 {
            c.tick(1_000);
        }
        let ticked = begun.elapsed();
        assert_eq!(c.waits(), MANY as usize);
        assert!(c.world.looks.get() <= 2 * 301, "{} looks at files by 301 ticks", c.world.looks.get());
        println!("{class:?}: {:?} a request, {:?} a tick", asked / MANY, ticked / 301);
        // Before, minutes; the bounds are for a slow machine and a build without optimisation.
        assert!(asked < Duration::from_secs(20) && ticked < Duration::from_secs(20), "{asked:?}, {ticked:?}");
        c.broker.close(c.now, &c.world, 1, Owner { lock_owner: 1, node: 1 }, &mut c.out);
        assert_eq!(c.waits(), MANY as usize - 1, "the next in line");
    }
}

/// Who goes through the queue once for each waiter of two kinds that do not meet still ends.
#[test]
fn waiters_for_many_different_ranges_cost_little() {
    let mut c = Crowd::new();
    for at in 0..MANY {
        c.ask(1, Class::Plain, 1, 1, u64::from(at), LockKind::Write);
    }
    let begun = Instant::now();
    for who in 2..MANY + 2 {
        c.ask(1, Class::Plain, who, who, u64::from(who % (MANY / 2)), LockKind::Write);
    }
    let asked = begun.elapsed();
    let begun = Instant::now();
    c.tick(Limits::default().doubt);
    for _ in 0..300 {
        c.tick(1_000);
    }
    let ticked = begun.elapsed();
    println!("{:?} a request, {:?} a tick", asked / MANY, ticked / 301);
    assert!(asked < Duration::from_secs(20) && ticked < Duration::from_secs(20), "{asked:?}, {ticked:?}");
    assert_eq!(c.waits(), MANY as usize);
}

/// `long` files, each held by a thread that waits for the next; the last one holds its file and does not wait.
fn chain(long: u32, pid: fn(u32) -> u32) -> Crowd {
    let mut c = Crowd::new();
    for n in 1..=long {
        c.ask(u64::from(n), Class::Plain, n, pid(n), 0, LockKind::Write);
    }
    for n in 1..long {
        c.ask(u64::from(n + 1), Class::Plain, n, pid(n), 0, LockKind::Write);
    }
    assert_eq!(c.waits(), long as usize - 1);
    c.tick(Limits::default().doubt);
    assert_eq!(c.waits(), long as usize - 1, "a chain is no cycle");
    c
}

/// The search called itself once for each wait in the chain, and a chain of some thousand overflowed the stack.
#[test]
fn a_chain_of_waits_over_twenty_thousand_files_needs_no_stack() {
    const LONG: u32 = 20_000;
    let small = std::thread::Builder::new().stack_size(128 * 1024);
    let run = || {
        let mut c = chain(LONG, |n| n);
        c.ask(1, Class::Plain, LONG, LONG, 0, LockKind::Write);
        assert_eq!(c.deadlocks(), 1, "the cycle that it closes is broken at once");
        // The same for a process that moves what it has open between threads: that takes until the waits are old.
        let mut c = chain(LONG, |_| 9);
        c.move_connections(9);
        c.ask(1, Class::Plain, LONG, 9, 0, LockKind::Write);
        assert_eq!(c.deadlocks(), 0);
        c.tick(Limits::default().doubt);
        assert_eq!(c.deadlocks(), 1);
    };
    small.spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_cycle_too_long_to_be_found_at_once_is_found_when_its_waits_are_old() {
    const LONG: u32 = 60_000;
    let mut c = chain(LONG, |n| n);
    c.ask(1, Class::Plain, LONG, LONG, 0, LockKind::Write);
    assert_eq!(c.deadlocks(), 0);
    c.tick(Limits::default().doubt);
    assert_eq!(c.deadlocks(), 1);
}

/// Each pair waits for itself, and nobody knows for 0.25 s: they are broken some at a time, and soon.
#[test]
fn a_thousand_doubtful_cycles_are_all_broken() {
    let mut c = Crowd::new();
    let pairs = 1_000;
    for n in 0..pairs {
        let (a, b) = (2 * n + 1, 2 * n + 2);
        c.ask(u64::from(a), Class::Plain, a, 9, 0, LockKind::Write);
        c.ask(u64::from(b), Class::Plain, b, 9, 0, LockKind::Write);
    }
    c.move_connections(9);
    for n in 0..pairs {
        let (a, b) = (2 * n + 1, 2 * n + 2);
        c.ask(u64::from(b), Class::Plain, a, 9, 0, LockKind::Write);
        c.ask(u64::from(a), Class::Plain, b, 9, 0, LockKind::Write);
    }
    assert_eq!(c.waits(), 2 * pairs as usize);
    c.tick(Limits::default().doubt);
    let mut ticks = 0;
    while c.waits() > pairs as usize {
        c.tick(1_000);
        ticks += 1;
        assert!(ticks < 5_000, "{} still wait", c.waits());
    }
    assert_eq!(c.deadlocks(), pairs as usize, "one of each");
}

/// Every wait with every thread it waits for, as the rules say it, whatever rests on a doubt.
fn waits_for(b: &Broker, world: &World) -> Vec<(u32, Vec<u32>)> {
    let mut all = Vec::new();
    for f in b.files.values() {
        for (at, r) in f.queue.iter().map(|w| &w.request).enumerate() {
            let mut tids: Vec<u32> = f.conflicts(r.owner, r.range, r.kind).map(|(_, t, ..)| t.tid).collect();
            if !f.has_intent(r.owner) {
                let needs = rules::needs_intent(f, r, world);
                tids.extend(f.intent.filter(|_| needs).map(|i| f.held(i.owner).map_or(i.task, |h| h.task).tid));
                let ahead = f.queue.iter().take(at).map(|w| &w.request).filter(|e| e.owner != r.owner);
                let blocks = |e: &&Request| {
                    (e.range.overlaps(r.range) && (e.kind == LockKind::Write || r.kind == LockKind::Write)) || (needs && rules::needs_intent(f, e, world))
                };
                tids.extend(ahead.filter(blocks).map(|e| e.task.tid));
            }
            all.push((r.task.tid, tids));
        }
    }
    all
}

/// Threads that wait, directly or not, for themselves.
fn stuck(b: &Broker, world: &World) -> Vec<u32> {
    let all = waits_for(b, world);
    let reaches_itself = |start: u32| {
        let (mut seen, mut next) = (HashSet::new(), vec![start]);
        while let Some(t) = next.pop() {
            for to in all.iter().filter(|(tid, _)| *tid == t).flat_map(|(_, to)| to) {
                if *to == start {
                    return true;
                }
                if seen.insert(*to) {
                    next.push(*to);
                }
            }
        }
        false
    };
    all.iter().map(|(tid, _)| *tid).filter(|t| reaches_itself(*t)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Lock {
        file: usize,
        who: u32,
        tid: u32,
        byte: u64,
        write: bool,
    },
    /// By any thread: connections move.
    Unlock {
        file: usize,
        who: u32,
        tid: u32,
        byte: u64,
    },
    Header {
        wal: bool,
    },
    Tick {
        by: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (file, who, tid) = (0..FILES.len(), 0..6_u32, 1..7_u32);
    prop_oneof![
        12 => (file.clone(), who.clone(), tid.clone(), 0..8_u64, any::<bool>()).prop_map(|(file, who, tid, byte, write)| Step::Lock { file, who, tid, byte, write }),
        3 => (file, who, tid, 0..8_u64).prop_map(|(file, who, tid, byte)| Step::Unlock { file, who, tid, byte }),
        1 => any::<bool>().prop_map(|wal| Step::Header { wal }),
        2 => prop_oneof![Just(100_u64), Just(15_000), Just(300_000)].prop_map(|by| Step::Tick { by }),
    ]
}

const FILES: [(u64, Class, u64); 4] = [(0, Class::Plain, 0), (1, Class::Shm, 120), (2, Class::Database, 0x4000_0000), (3, Class::Shm, 120)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_cycle_is_left_for_long_whatever_it_rests_on(steps in prop::collection::vec(step(), 1..80)) {
        let mut c = Crowd::new();
        for step in steps {
            c.now += 10;
            match step {
                Step::Lock { file, who, tid, byte, write } => {
                    let waits = |w: &super::super::Waiting| w.tid == tid;
                    if c.broker.waiting_since(c.now, 0).iter().any(waits) {
                        continue;
                    }
                    let ((id, class, base), kind) = (FILES[file], if write { LockKind::Write } else { LockKind::Read });
                    c.tickets += 1;
                    let (owner, task) = (Owner { lock_owner: who.into(), node: id }, Task { tid, pid: tid % 2 + 1 });
                    let range = Range::byte(base + byte);
                    let r = Request { ticket: c.tickets, file: id, class, volume: 1, owner, task, range, kind, wait: true, read_only: who == 5 };
                    c.broker.lock(c.now, &c.world, r, &mut c.out);
                }
                Step::Unlock { file, who, tid, byte } => {
                    let (id, _, base) = FILES[file];
                    let (owner, task) = (Owner { lock_owner: who.into(), node: id }, Task { tid, pid: tid % 2 + 1 });
                    c.broker.unlock(c.now, &c.world, id, owner, task, Range::byte(base + byte), &mut c.out);
                }
                Step::Header { wal } => c.world.wal = wal.then_some(2).into_iter().collect(),
                Step::Tick { by } => c.tick(by),
            }
        }
        for _ in 0..400 {
            c.tick(15_000);
        }
        let left = stuck(&c.broker, &c.world);
        prop_assert!(left.is_empty(), "{left:?} wait for themselves: {:?}", c.broker.status(c.now));
    }
}

/// A process with two thousand threads that was killed took seconds to go: each of them had the queue gone through once more.
#[test]
fn a_crowd_that_is_killed_costs_one_look_at_the_queue() {
    let mut c = Crowd::new();
    for who in 1..MANY + 2 {
        c.ask(1, Class::Database, who, who, 0x4000_0001, LockKind::Write);
    }
    let all: Vec<_> = c.broker.waiting_since(0, 0).iter().map(|w| (w.file, w.ticket)).collect();
    let (most, left) = all.split_at(all.len() - 1);
    c.world.looks.set(0);
    let twice = [most, most].concat();
    assert_eq!(c.broker.cancel_all(0, &c.world, &twice, Cause::Interrupted, &mut c.out), most.len(), "each once");
    assert!(c.world.looks.get() <= 2, "{}", c.world.looks.get());
    c.broker.close(0, &c.world, 1, Owner { lock_owner: 1, node: 1 }, &mut c.out);
    assert!(c.out.iter().any(|a| Some(&(1, a.ticket)) == left.first() && a.outcome.is_ok()), "who is left goes on");
    assert_eq!(c.waits(), 0);
}
