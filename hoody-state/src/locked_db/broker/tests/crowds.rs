//! Many waiters: what each costs, and what they cost while they wait.

use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Task};
use super::World;
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
        for _ in 0..1_000 {
            c.tick(1_000);
        }
        let ticked = begun.elapsed();
        assert_eq!(c.waits(), MANY as usize);
        assert!(c.world.looks.get() <= 2 * 1_001, "{} looks at files by 1,001 ticks", c.world.looks.get());
        println!("{class:?}: {:?} a request, {:?} a tick", asked / MANY, ticked / 1_001);
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
    for _ in 0..1_000 {
        c.tick(1_000);
    }
    let ticked = begun.elapsed();
    println!("{:?} a request, {:?} a tick", asked / MANY, ticked / 1_001);
    assert!(asked < Duration::from_secs(20) && ticked < Duration::from_secs(20), "{asked:?}, {ticked:?}");
    assert_eq!(c.waits(), MANY as usize);
}

/// The search called itself once for each wait in the chain, and a chain of some thousand overflowed the stack.
#[test]
fn a_chain_of_waits_over_twenty_thousand_files_needs_no_stack() {
    const LONG: u32 = 20_000;
    let small = std::thread::Builder::new().stack_size(128 * 1024);
    let chain = |pid: fn(u32) -> u32| {
        let mut c = Crowd::new();
        for n in 1..=LONG {
            c.ask(u64::from(n), Class::Plain, n, pid(n), 0, LockKind::Write);
        }
        for n in 1..LONG {
            c.ask(u64::from(n + 1), Class::Plain, n, pid(n), 0, LockKind::Write);
        }
        assert_eq!(c.waits(), LONG as usize - 1);
        c.tick(Limits::default().doubt);
        assert_eq!(c.waits(), LONG as usize - 1, "a chain is no cycle");
        c
    };
    let run = move || {
        let mut c = chain(|n| n);
        c.ask(1, Class::Plain, LONG, LONG, 0, LockKind::Write);
        let refused = c.out.iter().filter(|a| a.outcome == Err(Cause::Deadlock)).count();
        assert_eq!(refused, 1, "the cycle that it closes is broken at once");
        // The same for a process that moves what it has open between threads: that takes until the waits are old.
        let mut c = chain(|_| 9);
        c.broker.unlock(c.now, &c.world, 1, Owner { lock_owner: 1, node: 1 }, Task { tid: 77_777, pid: 9 }, Range::byte(9), &mut c.out);
        c.broker.unlock(c.now, &c.world, 1, Owner { lock_owner: 1, node: 1 }, Task { tid: 1, pid: 9 }, Range::byte(9), &mut c.out);
        assert!(c.broker.moves_connections(9));
        c.ask(1, Class::Plain, LONG, 9, 0, LockKind::Write);
        let refused = |c: &Crowd| c.out.iter().filter(|a| a.outcome == Err(Cause::Deadlock)).count();
        assert_eq!(refused(&c), 0);
        c.tick(Limits::default().doubt);
        assert_eq!(refused(&c), 1);
    };
    small.spawn(run).unwrap().join().unwrap();
}

/// Each pair waits for itself, and nobody knows for 0.25 s: they are broken some at a time, and soon.
#[test]
fn a_thousand_doubtful_cycles_are_all_broken() {
    let mut c = Crowd::new();
    let pairs = 1_000;
    for n in 0..pairs {
        let (a, b) = (2 * n + 1, 2 * n + 2);
        let (fa, fb) = (u64::from(a), u64::from(b));
        c.ask(fa, Class::Plain, a, 9, 0, LockKind::Write);
        c.ask(fb, Class::Plain, b, 9, 0, LockKind::Write);
    }
    // It is known to move what it has open between threads.
    c.ask(1, Class::Plain, 1, 9, 1, LockKind::Write);
    c.broker.unlock(c.now, &c.world, 1, Owner { lock_owner: 1, node: 1 }, Task { tid: 77_777, pid: 9 }, Range::byte(1), &mut c.out);
    c.broker.unlock(c.now, &c.world, 1, Owner { lock_owner: 1, node: 1 }, Task { tid: 1, pid: 9 }, Range::byte(1), &mut c.out);
    assert!(c.broker.moves_connections(9));
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
    assert_eq!(c.out.iter().filter(|a| a.outcome.is_err()).count(), pairs as usize, "one of each");
}
