//! SQLite's own lock protocol as small machines, interleaved at random: nobody ever meets BUSY.

use super::super::rules::{CKPT, PENDING, RESERVED, SHARED, WRITE};
use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Stamp, Task, Tick, Ticket, View as _};
use super::World;
use proptest::prelude::*;
use std::collections::HashMap;

const FILE: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Write,
    ReadThenWrite,
    Read,
    /// By a connection that was opened read-only.
    OnlyRead,
    Checkpoint,
}

/// What a machine does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Begin,
    Shared,
    DropPending,
    Upgrade,
    Pending,
    Exclusive,
    Commit,
    End,
    Done,
}

struct Client {
    owner: Owner,
    task: Task,
    pattern: Pattern,
    at: At,
    left: u32,
    waits: Option<Ticket>,
    snapshot: Stamp,
    busy: Vec<String>,
}

struct Sim {
    broker: Broker,
    world: World,
    clients: Vec<Client>,
    out: Vec<Answer>,
    tickets: HashMap<Ticket, usize>,
    next: Ticket,
    now: Tick,
    wal: bool,
    writers: u32,
}

impl Sim {
    fn new(wal: bool, patterns: &[Pattern], rounds: u32) -> Self {
        let client = |(n, p): (usize, &Pattern)| {
            let id = u32::try_from(n).unwrap() + 1;
            let owner = Owner { lock_owner: u64::from(id), node: u64::from(id) };
            Client { owner, task: Task { tid: id, pid: id }, pattern: *p, at: At::Begin, left: rounds, waits: None, snapshot: 0, busy: Vec::new() }
        };
        Sim {
            broker: Broker::new(Limits::default()),
            world: World::default(),
            clients: patterns.iter().enumerate().map(client).collect(),
            out: Vec::new(),
            tickets: HashMap::new(),
            next: 0,
            now: 0,
            wal,
            writers: 0,
        }
    }

    fn ask(&mut self, n: usize, range: Range, kind: LockKind) {
        self.next += 1;
        let c = &mut self.clients[n];
        c.waits = Some(self.next);
        self.tickets.insert(self.next, n);
        let class = if self.wal { Class::Shm } else { Class::Database };
        let r = Request {
            ticket: self.next,
            file: FILE,
            class,
            volume: 1,
            owner: c.owner,
            task: c.task,
            range,
            kind,
            wait: false,
            read_only: c.pattern == Pattern::OnlyRead,
        };
        self.broker.lock(self.now, &self.world, r, &mut self.out);
        self.settle();
        let c = &self.clients[n];
        assert!(!self.wal || c.pattern != Pattern::OnlyRead || c.waits.is_none(), "readers are not serialised");
    }

    fn unlock(&mut self, n: usize, range: Range) {
        let (owner, task) = (self.clients[n].owner, self.clients[n].task);
        self.broker.unlock(self.now, &self.world, FILE, owner, task, range, &mut self.out);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(a) = self.out.pop() {
            let n = self.tickets.remove(&a.ticket).expect("asked");
            self.clients[n].waits = None;
            self.answered(n, a.outcome);
        }
    }

    fn answered(&mut self, n: usize, outcome: Result<(), Cause>) {
        let stamp = self.world.stamp(FILE);
        let wal = self.wal;
        let c = &mut self.clients[n];
        match (c.at, outcome) {
            // walTryBeginRead: refused, it looks again; granted, it compares.
            (At::Begin, Err(_)) if wal => {}
            (At::Begin, Ok(())) if wal && c.pattern != Pattern::Checkpoint && c.snapshot != stamp => c.at = At::End,
            (At::Begin, Ok(())) if wal => c.at = if matches!(c.pattern, Pattern::Read | Pattern::OnlyRead) { At::End } else { At::Upgrade },
            (At::Begin, Ok(())) => c.at = At::Shared,
            (At::Shared, Ok(())) => c.at = At::DropPending,
            (At::Upgrade, Ok(())) if c.pattern == Pattern::Checkpoint => c.at = At::End,
            (At::Upgrade, Ok(())) if wal => {
                if c.snapshot != stamp {
                    c.busy.push("BUSY_SNAPSHOT".into());
                }
                self.writers += 1;
                assert_eq!(self.writers, 1, "one writer at a time");
                c.at = At::Commit;
            }
            (At::Upgrade, Ok(())) => c.at = At::Pending,
            (At::Pending, Ok(())) => c.at = At::Exclusive,
            (At::Exclusive, Ok(())) => {
                self.writers += 1;
                assert_eq!(self.writers, 1, "one writer at a time");
                c.at = At::Commit;
            }
            (at, outcome) => {
                c.busy.push(format!("{at:?}: {outcome:?}"));
                c.at = At::End;
            }
        }
    }

    /// One step of client `n`; false when it waits or is done.
    fn step(&mut self, n: usize) -> bool {
        self.now += 7;
        let c = &mut self.clients[n];
        if c.waits.is_some() || c.at == At::Done {
            return false;
        }
        match c.at {
            At::Begin if c.pattern == Pattern::Checkpoint && self.wal => self.ask(n, CKPT, LockKind::Write),
            At::Begin if self.wal => {
                c.snapshot = self.world.stamp(FILE);
                self.ask(n, Range::byte(124), LockKind::Read);
            }
            At::Begin => self.ask(n, PENDING, LockKind::Read),
            At::Shared => self.ask(n, SHARED, LockKind::Read),
            At::DropPending => {
                c.at = if matches!(c.pattern, Pattern::Read | Pattern::OnlyRead) { At::End } else { At::Upgrade };
                self.unlock(n, PENDING);
            }
            At::Upgrade if self.wal => self.ask(n, WRITE, LockKind::Write),
            At::Upgrade => self.ask(n, RESERVED, LockKind::Write),
            At::Pending => self.ask(n, PENDING, LockKind::Write),
            At::Exclusive => self.ask(n, SHARED, LockKind::Write),
            At::Commit => {
                self.writers -= 1;
                c.at = At::End;
                self.world.commit(FILE);
                if self.wal {
                    self.unlock(n, WRITE);
                }
            }
            At::End => {
                c.left -= 1;
                c.at = if c.left == 0 { At::Done } else { At::Begin };
                self.unlock(n, Range::new(0, u64::MAX >> 1));
            }
            At::Done => {}
        }
        true
    }

    fn die(&mut self, n: usize) {
        let c = &mut self.clients[n];
        // A killed waiter is answered first, then its descriptors are closed.
        if let Some(ticket) = c.waits {
            self.broker.cancel(self.now, &self.world, FILE, ticket, Cause::Interrupted, &mut self.out);
            self.settle();
        }
        let c = &mut self.clients[n];
        if c.at == At::Commit {
            self.writers -= 1;
        }
        c.busy.clear();
        c.at = At::Done;
        let owner = c.owner;
        self.broker.close(self.now, &self.world, FILE, owner, &mut self.out);
        self.settle();
    }

    /// Lets everybody go on until all are done.
    fn finish(&mut self) {
        let mut idle = 0;
        while self.clients.iter().any(|c| c.at != At::Done) {
            let moved = (0..self.clients.len()).filter(|n| self.step(*n)).count();
            idle = if moved == 0 { idle + 1 } else { 0 };
            assert!(idle < 50, "nobody can go on: {:?}", self.broker.status(self.now));
            // Kept intents lapse.
            self.now += 1_000;
            self.broker.tick(self.now, &self.world, &mut self.out);
            self.settle();
        }
        for c in &self.clients {
            assert!(c.busy.is_empty(), "{:?} met {:?}", c.pattern, c.busy);
        }
    }
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![3 => Just(Pattern::ReadThenWrite), 2 => Just(Pattern::Write), 2 => Just(Pattern::Read), 1 => Just(Pattern::OnlyRead), 1 => Just(Pattern::Checkpoint)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_busy_in_wal_mode(patterns in prop::collection::vec(pattern(), 2..8), order in prop::collection::vec(0..8_usize, 0..300)) {
        let mut sim = Sim::new(true, &patterns, 4);
        for n in order {
            sim.step(n % patterns.len());
        }
        sim.finish();
    }

    #[test]
    fn nobody_is_busy_in_rollback_mode(patterns in prop::collection::vec(pattern(), 2..8), order in prop::collection::vec(0..8_usize, 0..300)) {
        let patterns: Vec<Pattern> = patterns.into_iter().map(|p| if p == Pattern::Checkpoint { Pattern::Write } else { p }).collect();
        let mut sim = Sim::new(false, &patterns, 4);
        for n in order {
            sim.step(n % patterns.len());
        }
        sim.finish();
    }

    #[test]
    fn the_dead_hold_nobody_up(wal in any::<bool>(), patterns in prop::collection::vec(pattern(), 2..8), order in prop::collection::vec((0..8_usize, 0..20_u8), 0..200)) {
        let patterns: Vec<Pattern> = patterns.into_iter().map(|p| if p == Pattern::Checkpoint { Pattern::Write } else { p }).collect();
        let mut sim = Sim::new(wal, &patterns, 4);
        for (n, dies) in order {
            let n = n % patterns.len();
            if dies == 0 && sim.clients[n].at != At::Done { sim.die(n) } else { sim.step(n); }
        }
        sim.finish();
    }
}
