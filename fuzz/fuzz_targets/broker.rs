//! The lock broker against a small oracle: whatever is asked for, never two conflicting grants, each request is answered once, and when everybody has left nothing is held
//! and nothing waits.
#![no_main]

use hoody_state::locked_db::broker::{Answer, Broker, Cause, Class, FileId, Limits, LockKind, Owner, Range, Request, Stamp, Task, Ticket, View};
use libfuzzer_sys::fuzz_target;
use std::collections::{HashMap, HashSet};

const FILES: [(FileId, Class); 4] = [(0, Class::Plain), (1, Class::Shm), (2, Class::Database), (3, Class::Shm)];
const CLIENTS: u64 = 6;
const VOLUME: u64 = 7;

/// What the files look like: as the input says.
#[derive(Default)]
struct World {
    wal: bool,
    hot: bool,
    stamps: HashMap<FileId, Stamp>,
}

impl View for World {
    fn is_wal(&self, file: FileId) -> bool {
        file == 2 && self.wal
    }

    fn has_hot_journal(&self, file: FileId) -> bool {
        file == 2 && self.hot
    }

    fn stamp(&self, file: FileId) -> Stamp {
        self.stamps.get(&file).copied().unwrap_or(0)
    }
}

/// Who holds which ranges, and what was not answered yet.
#[derive(Default)]
struct Oracle {
    held: Vec<(FileId, Owner, Range, LockKind)>,
    open: HashMap<Ticket, Request>,
    answered: HashSet<Ticket>,
}

impl Oracle {
    fn take(&mut self, out: &mut Vec<Answer>) {
        for answer in out.drain(..) {
            assert!(self.answered.insert(answer.ticket), "ticket {} was answered twice", answer.ticket);
            let r = self.open.remove(&answer.ticket).expect("an answer to an open request");
            if answer.outcome.is_err() {
                continue;
            }
            for (file, owner, range, kind) in &self.held {
                let may_share = *kind == LockKind::Read && r.kind == LockKind::Read;
                assert!(*file != r.file || *owner == r.owner || may_share || !range.overlaps(r.range), "{owner:?} and {:?} hold {range:?} of {file}", r.owner);
            }
            self.free(r.file, r.owner, r.range);
            self.held.push((r.file, r.owner, r.range, r.kind));
        }
    }

    fn free(&mut self, file: FileId, owner: Owner, gone: Range) {
        let mut rest = Vec::new();
        self.held.retain(|(f, o, range, kind)| {
            let is_hit = *f == file && *o == owner && range.overlaps(gone);
            if is_hit && range.start < gone.start {
                rest.push((*f, *o, Range::new(range.start, gone.start - 1), *kind));
            }
            if is_hit && range.end > gone.end {
                rest.push((*f, *o, Range::new(gone.end + 1, range.end), *kind));
            }
            !is_hit
        });
        self.held.append(&mut rest);
    }

    fn waits(&self, who: u64) -> bool {
        self.open.values().any(|r| r.owner.lock_owner == who)
    }
}

fn range(class: Class, start: u8, length: u8) -> Range {
    // One length in sixteen is all there may ever be.
    if length & 15 == 15 {
        return Range::new(0, u64::MAX >> 1);
    }
    let base = match class {
        Class::Plain => 0,
        Class::Shm => 118,
        Class::Database => 0x3fff_fffe,
    };
    let start = base + u64::from(start % 14);
    let length = if class == Class::Database && length & 16 != 0 { 510 } else { 1 + u64::from(length & 3) };
    Range::new(start, start + length - 1)
}

fn task(who: u64) -> Task {
    let tid = u32::try_from(who).expect("small") + 1;
    // Some are threads of one process.
    Task { tid, pid: tid.min(4) }
}

fn leave(broker: &mut Broker, world: &World, oracle: &mut Oracle, now: u64, file: FileId, who: u64, out: &mut Vec<Answer>) {
    let owner = Owner { lock_owner: who, node: file };
    oracle.free(file, owner, Range::new(0, u64::MAX));
    broker.close(now, world, file, owner, out);
    oracle.take(out);
}

fuzz_target!(|data: &[u8]| {
    let Some((first, steps)) = data.split_first() else { return };
    let mut world = World { wal: first & 1 != 0, hot: first & 2 != 0, ..World::default() };
    let mut broker = Broker::new(Limits::default());
    let (mut oracle, mut out) = (Oracle::default(), Vec::new());
    let (mut now, mut ticket, mut holds) = (0, 0, 0);
    for step in steps.chunks_exact(4).take(400) {
        let [what, whose, start, length] = *step else { return };
        now += 10;
        let who = u64::from(whose >> 2) % CLIENTS;
        let (file, class) = FILES[usize::from(whose & 3)];
        let owner = Owner { lock_owner: who, node: file };
        match what & 15 {
            // A thread asks for one thing at a time.
            0..=5 if !oracle.waits(who) => {
                ticket += 1;
                let kind = if what & 16 != 0 { LockKind::Write } else { LockKind::Read };
                let range = range(class, start, length);
                let (wait, read_only) = (what & 32 != 0, what & 64 != 0);
                let request = Request { ticket, file, class, volume: VOLUME, owner, task: task(who), range, kind, wait, read_only };
                oracle.open.insert(ticket, request);
                broker.lock(now, &world, request, &mut out);
            }
            6..=8 if !oracle.waits(who) => {
                let range = range(class, start, length);
                oracle.free(file, owner, range);
                broker.unlock(now, &world, file, owner, task(who), range, &mut out);
            }
            9 => leave(&mut broker, &world, &mut oracle, now, file, who, &mut out),
            10 => {
                let waiting: Option<(FileId, Ticket)> = oracle.open.values().map(|r| (r.file, r.ticket)).min_by_key(|(_, t)| *t);
                if let Some((file, ticket)) = waiting {
                    broker.cancel(now, &world, file, ticket, Cause::Interrupted, &mut out);
                }
            }
            11 | 12 => {
                now += [100, 5_000, 300_000, 70_000_000][usize::from(start & 3)];
                broker.tick(now, &world, &mut out);
            }
            13 => *world.stamps.entry(file).or_default() += 1,
            14 => {
                holds += 1;
                broker.hold(&[VOLUME]);
            }
            15 if holds > 0 => {
                holds -= 1;
                broker.release(now, &world, &[VOLUME], &mut out);
            }
            _ => world.hot = start & 1 != 0,
        }
        oracle.take(&mut out);
    }
    for _ in 0..holds {
        broker.release(now, &world, &[VOLUME], &mut out);
        oracle.take(&mut out);
    }
    // Everybody leaves; whoever waits is answered at the latest when the longest wait is over, or gets the lock and leaves again.
    for _ in 0..4 {
        for (file, _) in FILES {
            for who in 0..CLIENTS {
                leave(&mut broker, &world, &mut oracle, now, file, who, &mut out);
            }
        }
        let asked: Vec<(FileId, Ticket)> = oracle.open.values().filter(|r| r.wait).map(|r| (r.file, r.ticket)).collect();
        broker.cancel_all(now, &world, &asked, Cause::Interrupted, &mut out);
        oracle.take(&mut out);
        now += 61_000_000;
        broker.tick(now, &world, &mut out);
        oracle.take(&mut out);
    }
    assert!(oracle.open.is_empty(), "never answered: {:?}", oracle.open);
    assert!(broker.status(now).is_empty(), "nothing is held and nothing waits: {:?}", broker.status(now));
});
