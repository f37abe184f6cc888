//! One example a rule.

use super::super::rules::{CKPT, DMS, PENDING, RESERVED, SHARED, WRITE};
use super::super::{Answer, Broker, Cause, Class, Limits, LockKind, Owner, Range, Request, Task};
use super::World;

const MARK: Range = Range::byte(124);

struct Bench {
    broker: Broker,
    world: World,
    now: u64,
    ticket: u64,
    out: Vec<Answer>,
}

impl Bench {
    fn new() -> Self {
        Bench { broker: Broker::new(Limits::default()), world: World::default(), now: 0, ticket: 0, out: Vec::new() }
    }

    fn class(file: u64) -> Class {
        if file < 10 { Class::Shm } else { Class::Database }
    }

    fn ask_as(&mut self, file: u64, who: u32, task: Task, range: Range, kind: LockKind, read_only: bool) -> u64 {
        self.ticket += 1;
        let owner = Owner { lock_owner: u64::from(who), node: file * 100 + u64::from(who) };
        let r = Request { ticket: self.ticket, file, class: Self::class(file), volume: 1, owner, task, range, kind, wait: false, read_only };
        self.broker.lock(self.now, &self.world, r, &mut self.out);
        self.ticket
    }

    fn ask(&mut self, file: u64, who: u32, range: Range, kind: LockKind) -> u64 {
        self.ask_as(file, who, Task { tid: who, pid: who }, range, kind, false)
    }

    fn unlock(&mut self, file: u64, who: u32, range: Range) {
        let owner = Owner { lock_owner: u64::from(who), node: file * 100 + u64::from(who) };
        self.broker.unlock(self.now, &self.world, file, owner, Task { tid: who, pid: who }, range, &mut self.out);
    }

    fn tick(&mut self, by: u64) {
        self.now += by;
        self.broker.tick(self.now, &self.world, &mut self.out);
    }

    /// The answer to a ticket, if there is one by now.
    fn got(&self, ticket: u64) -> Option<Result<(), Cause>> {
        self.out.iter().find(|a| a.ticket == ticket).map(|a| a.outcome)
    }

    fn grant(&mut self, file: u64, who: u32, range: Range, kind: LockKind) {
        let t = self.ask(file, who, range, kind);
        assert_eq!(self.got(t), Some(Ok(())), "{who} wants {range:?}");
    }
}

use LockKind::{Read, Write};

#[test]
fn rule_1_one_possible_writer_reads_at_a_time_and_wal_databases_are_free() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    let second = b.ask(1, 2, MARK, Read);
    assert_eq!(b.got(second), None);
    b.world.wal.insert(10);
    b.grant(10, 1, SHARED, Read);
    b.grant(10, 2, PENDING, Read);
    b.grant(11, 1, PENDING, Read);
    let second = b.ask(11, 2, PENDING, Read);
    assert_eq!(b.got(second), None, "a rollback database opens one transaction at a time");
}

#[test]
fn rule_1_a_hot_journal_lets_even_readers_in_one_by_one() {
    let mut b = Bench::new();
    let reader = |b: &mut Bench, who| b.ask_as(10, who, Task { tid: who, pid: who }, PENDING, Read, true);
    let (one, two) = (reader(&mut b, 1), reader(&mut b, 2));
    assert_eq!((b.got(one), b.got(two)), (Some(Ok(())), Some(Ok(()))));
    b.world.hot.insert(11);
    let hot = |b: &mut Bench, who| b.ask_as(11, who, Task { tid: who, pid: who }, PENDING, Read, true);
    let (one, two) = (hot(&mut b, 1), hot(&mut b, 2));
    assert_eq!((b.got(one), b.got(two)), (Some(Ok(())), None));
}

#[test]
fn rule_2_what_sqlite_only_tries_is_refused_at_once() {
    let mut b = Bench::new();
    b.grant(1, 1, DMS, Read);
    b.grant(1, 1, MARK, Read);
    b.grant(1, 1, CKPT, Write);
    for range in [DMS, MARK, CKPT] {
        let t = b.ask(1, 2, range, Write);
        assert_eq!(b.got(t), Some(Err(Cause::Hint)));
    }
    b.world.wal.insert(10);
    b.grant(10, 1, SHARED, Read);
    let t = b.ask(10, 2, SHARED, Write);
    assert_eq!(b.got(t), Some(Err(Cause::Hint)), "leaving WAL while others are connected");
}

#[test]
fn rule_3_a_stale_reader_looks_again_and_comes_first() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    b.grant(1, 1, WRITE, Write);
    let (second, third) = (b.ask(1, 2, MARK, Read), b.ask(1, 3, MARK, Read));
    b.world.commit(1);
    b.unlock(1, 1, WRITE);
    b.unlock(1, 1, MARK);
    assert_eq!((b.got(second), b.got(third)), (Some(Err(Cause::Stale)), None));
    b.grant(1, 2, MARK, Read);
    assert_eq!(b.got(third), None);
}

#[test]
fn rule_3_one_that_does_not_come_back_loses_its_place_in_time() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    let (_, third) = (b.ask(1, 2, MARK, Read), b.ask_as(1, 3, Task { tid: 3, pid: 3 }, MARK, Read, false));
    b.world.commit(1);
    b.unlock(1, 1, MARK);
    b.tick(20_000);
    assert_eq!(b.got(third), Some(Err(Cause::Stale)), "its turn to look again");
}

#[test]
fn rule_4_the_intent_stays_while_the_log_is_restarted() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    b.grant(1, 1, WRITE, Write);
    let second = b.ask(1, 2, MARK, Read);
    b.unlock(1, 1, MARK);
    assert_eq!(b.got(second), None);
    b.grant(1, 1, Range::byte(123), Read);
    b.unlock(1, 1, WRITE);
    b.unlock(1, 1, Range::byte(123));
    assert_eq!(b.got(second), Some(Ok(())));
}

#[test]
fn rule_5_first_come_first_served() {
    let mut b = Bench::new();
    b.grant(10, 1, PENDING, Read);
    b.grant(10, 1, SHARED, Read);
    b.unlock(10, 1, PENDING);
    let (second, third) = (b.ask(10, 2, PENDING, Read), b.ask(10, 3, PENDING, Read));
    b.grant(10, 1, RESERVED, Write);
    b.unlock(10, 1, Range::new(0, u64::MAX >> 1));
    assert_eq!((b.got(second), b.got(third)), (Some(Ok(())), None));
}

#[test]
fn rule_5_a_quick_writer_goes_on_for_its_turn_and_no_longer() {
    let mut b = Bench::new();
    let turn = Limits::default().turn;
    // As an open connection has it: it keeps the file known.
    b.grant(1, 9, DMS, Read);
    b.grant(1, 1, MARK, Read);
    b.unlock(1, 1, MARK);
    b.now += 50;
    b.grant(1, 1, MARK, Read);
    let second = b.ask(1, 2, MARK, Read);
    let mut rounds = 0;
    while b.got(second).is_none() {
        b.now += 100;
        b.unlock(1, 1, MARK);
        if b.got(second).is_none() {
            b.grant(1, 1, MARK, Read);
        }
        rounds += 1;
        assert!(rounds <= turn / 100 + 1, "a turn ends");
    }
    assert!(rounds > 1, "and is more than one transaction");
}

#[test]
fn rule_6_two_writers_crossing_two_databases_lose_one_of_them_at_once() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    b.grant(1, 1, WRITE, Write);
    b.grant(2, 2, MARK, Read);
    b.grant(2, 2, WRITE, Write);
    let one = b.ask(2, 1, MARK, Read);
    assert_eq!(b.got(one), None);
    let two = b.ask(1, 2, MARK, Read);
    assert_eq!(b.got(two), Some(Ok(())), "whatever it does next, it may read");
    let two = b.ask(1, 2, WRITE, Write);
    assert_eq!((b.got(one), b.got(two)), (Some(Ok(())), None));
    let one = b.ask(2, 1, WRITE, Write);
    let refused = [one, two].iter().filter(|t| b.got(**t) == Some(Err(Cause::Deadlock))).count();
    assert_eq!(refused, 1);
}

/// Refused, SQLite tried for ten seconds and said "locking protocol"; natively the second connection of a thread reads while the first writes.
#[test]
fn rule_6_a_thread_that_writes_by_one_connection_reads_by_another() {
    for (file, begin, write) in [(1, MARK, WRITE), (10, PENDING, RESERVED)] {
        let mut b = Bench::new();
        let me = Task { tid: 5, pid: 5 };
        let ask = |b: &mut Bench, who, range, kind| {
            let t = b.ask_as(file, who, me, range, kind, false);
            b.got(t)
        };
        assert_eq!((ask(&mut b, 1, begin, Read), ask(&mut b, 1, write, Write)), (Some(Ok(())), Some(Ok(()))));
        // Somebody else is in line.
        let third = b.ask(file, 3, begin, Read);
        assert_eq!(ask(&mut b, 2, begin, Read), Some(Ok(())));
        assert_eq!(ask(&mut b, 2, write, Write), Some(Err(Cause::OwnThread)), "that would be to wait for itself");
        b.unlock(file, 2, begin);
        assert_eq!(b.got(third), None, "and it has taken nobody's turn");
        b.unlock(file, 1, write);
        b.unlock(file, 1, begin);
        assert_eq!(b.got(third), Some(Ok(())));
        // It was for once.
        let again = b.ask_as(file, 2, me, begin, Read, false);
        assert_eq!(b.got(again), None);
    }
}

#[test]
fn rule_6_a_reader_in_the_cycle_only_loses_its_intent() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    b.grant(2, 2, MARK, Read);
    let one = b.ask(2, 1, MARK, Read);
    let two = b.ask(1, 2, MARK, Read);
    assert!(b.got(one).is_none_or(|r| r.is_ok()) && b.got(two).is_none_or(|r| r.is_ok()), "nobody is refused");
    assert!(b.got(one).is_some() || b.got(two).is_some(), "and somebody goes on");
    assert!(b.broker.counters().revoked > 0);
}

#[test]
fn rule_7_a_long_reader_is_overtaken_and_its_upgrade_is_counted() {
    let mut b = Bench::new();
    b.grant(1, 1, MARK, Read);
    let second = b.ask(1, 2, MARK, Read);
    b.tick(Limits::default().read_phase + 1);
    assert_eq!(b.got(second), Some(Ok(())));
    b.grant(1, 2, WRITE, Write);
    b.unlock(1, 2, WRITE);
    b.unlock(1, 2, MARK);
    b.grant(1, 1, WRITE, Write);
    assert_eq!(b.broker.counters().upgrades_after_revocation, 1);
}

/// On a machine with eight times more to do than it could, `mptest` without its busy handler found it: an UPDATE was half a second between its two locks.
#[test]
fn rule_7_a_slow_writer_in_rollback_mode_is_not_taken_for_a_reader() {
    let mut b = Bench::new();
    let limits = Limits::default();
    b.grant(10, 1, PENDING, Read);
    b.grant(10, 1, SHARED, Read);
    b.unlock(10, 1, PENDING);
    let second = b.ask(10, 2, PENDING, Read);
    b.tick(limits.read_phase_rollback - 1);
    assert_eq!(b.got(second), None);
    b.grant(10, 1, RESERVED, Write);
    b.unlock(10, 1, Range::new(0, u64::MAX >> 1));
    assert_eq!(b.got(second), Some(Ok(())));
    // One that goes on reading is overtaken by other readers in the end.
    b.grant(10, 2, SHARED, Read);
    b.unlock(10, 2, PENDING);
    let third = b.ask(10, 3, PENDING, Read);
    b.tick(limits.read_phase_rollback);
    assert_eq!(b.got(third), Some(Ok(())));
}

#[test]
fn rule_7_nobody_is_overtaken_while_requests_are_not_taken() {
    let mut b = Bench::new();
    let phase = Limits::default().read_phase;
    b.grant(1, 1, MARK, Read);
    let second = b.ask(1, 2, MARK, Read);
    b.broker.set_paused(true);
    b.tick(phase + 1);
    assert_eq!(b.got(second), None);
    b.broker.set_paused(false);
    b.broker.excuse(b.now, phase + 1);
    b.tick(phase - 1);
    assert_eq!(b.got(second), None);
    b.grant(1, 1, WRITE, Write);
    assert_eq!(b.broker.counters().upgrades_after_revocation, 0);
    b.unlock(1, 1, WRITE);
    b.tick(phase);
    assert_eq!(b.got(second), Some(Ok(())), "else it is");
}

#[test]
fn rule_7_a_reader_by_its_handle_that_writes_what_it_read_is_one_no_longer() {
    let mut b = Bench::new();
    let me = Task { tid: 1, pid: 1 };
    b.grant(1, 2, MARK, Read);
    let read = b.ask_as(1, 1, me, MARK, Read, true);
    assert_eq!(b.got(read), Some(Ok(())), "no intent is asked of it");
    let write = b.ask_as(1, 1, me, WRITE, Write, true);
    assert_eq!(b.got(write), None);
    b.unlock(1, 2, MARK);
    assert_eq!((b.got(write), b.broker.counters().upgrades_after_revocation), (Some(Ok(())), 1));
    b.unlock(1, 1, WRITE);
    b.unlock(1, 1, MARK);
    b.grant(1, 2, MARK, Read);
    let again = b.ask_as(1, 1, me, MARK, Read, true);
    assert_eq!(b.got(again), None, "now it waits like everybody who may write");
}

#[test]
fn rule_7_a_reader_by_its_handle_may_recover_a_log() {
    let mut b = Bench::new();
    let me = Task { tid: 1, pid: 1 };
    let recover = b.ask_as(1, 1, me, WRITE, Write, true);
    assert_eq!(b.got(recover), Some(Ok(())));
    b.unlock(1, 1, WRITE);
    b.grant(1, 2, MARK, Read);
    let read = b.ask_as(1, 1, me, MARK, Read, true);
    assert_eq!((b.got(read), b.broker.counters().upgrades_after_revocation), (Some(Ok(())), 0));
}

#[test]
fn rule_8_a_wait_for_oneself_is_answered_at_once() {
    let mut b = Bench::new();
    let me = Task { tid: 5, pid: 5 };
    let t = b.ask_as(1, 1, me, WRITE, Write, false);
    assert_eq!(b.got(t), Some(Ok(())));
    let t = b.ask_as(1, 2, me, WRITE, Write, false);
    assert_eq!(b.got(t), Some(Err(Cause::OwnThread)));
    // Had the first only read, both would go on.
    let t = b.ask_as(2, 1, me, MARK, Read, false);
    assert_eq!(b.got(t), Some(Ok(())));
    let t = b.ask_as(2, 2, me, MARK, Read, false);
    assert_eq!(b.got(t), Some(Ok(())));
}

#[test]
fn rule_8_a_process_that_moves_connections_between_threads_is_judged_late() {
    let mut b = Bench::new();
    let thread = |tid| Task { tid, pid: 9 };
    b.ask_as(1, 1, thread(91), WRITE, Write, false);
    b.ask_as(1, 1, thread(92), MARK, Read, false);
    let t = b.ask_as(1, 2, thread(92), WRITE, Write, false);
    assert_eq!(b.got(t), None, "another thread may go on with the first connection");
    b.tick(Limits::default().doubt + 1);
    assert_eq!(b.got(t), Some(Err(Cause::OwnThread)));
}

#[test]
fn rule_8_no_wait_is_longer_than_the_cap() {
    let mut b = Bench::new();
    b.grant(1, 1, WRITE, Write);
    let t = b.ask(1, 2, WRITE, Write);
    b.tick(Limits::default().wait - 1);
    assert_eq!(b.got(t), None);
    b.tick(1);
    assert_eq!(b.got(t), Some(Err(Cause::Timeout)));
}

#[test]
fn rule_8_a_wait_that_was_asked_for_on_an_ordinary_file_has_no_end() {
    let mut b = Bench::new();
    let ask = |b: &mut Bench, file, class, who: u32| {
        b.ticket += 1;
        let owner = Owner { lock_owner: u64::from(who), node: file };
        let task = Task { tid: who, pid: who };
        let r = Request { ticket: b.ticket, file, class, volume: 1, owner, task, range: Range::byte(120), kind: Write, wait: true, read_only: false };
        b.broker.lock(b.now, &b.world, r, &mut b.out);
        b.ticket
    };
    ask(&mut b, 5, Class::Plain, 1);
    ask(&mut b, 6, Class::Shm, 1);
    let (plain, shm) = (ask(&mut b, 5, Class::Plain, 2), ask(&mut b, 6, Class::Shm, 3));
    for _ in 0..100 {
        b.tick(Limits::default().wait / 10);
    }
    assert_eq!((b.got(plain), b.got(shm)), (None, Some(Err(Cause::Timeout))));
    b.broker.unlock(b.now, &b.world, 5, Owner { lock_owner: 1, node: 5 }, Task { tid: 1, pid: 1 }, Range::byte(120), &mut b.out);
    assert_eq!(b.got(plain), Some(Ok(())));
}

#[test]
fn rule_6_a_doubtful_cycle_of_two_threads_is_broken_late() {
    let mut b = Bench::new();
    let shared = |b: &mut Bench, file, who, tid| b.ask_as(file, who, Task { tid, pid: 9 }, MARK, Read, false);
    // Threads 1 and 2 of a process that moves its connections each hold what the other waits for.
    for (file, who) in [(1, 1), (2, 2)] {
        let t = shared(&mut b, file, who, 9);
        assert_eq!(b.got(t), Some(Ok(())));
        let owner = Owner { lock_owner: u64::from(who), node: file * 100 + u64::from(who) };
        // Another thread goes on with it.
        b.broker.unlock(b.now, &b.world, file, owner, Task { tid: who, pid: 9 }, Range::byte(120), &mut b.out);
        b.ask_as(file, who, Task { tid: who, pid: 9 }, WRITE, Write, false);
    }
    let (one, two) = (shared(&mut b, 2, 11, 1), shared(&mut b, 1, 12, 2));
    assert_eq!((b.got(one), b.got(two)), (None, None), "others may go on with them");
    b.tick(Limits::default().doubt);
    assert_eq!([one, two].iter().filter(|t| b.got(**t) == Some(Ok(()))).count(), 1, "one may read after all");
}

#[test]
fn a_hold_lets_the_writer_end_and_nobody_begin() {
    let mut b = Bench::new();
    b.grant(10, 1, PENDING, Read);
    b.grant(10, 1, SHARED, Read);
    b.unlock(10, 1, PENDING);
    b.grant(10, 1, RESERVED, Write);
    b.broker.hold(&[1]);
    assert_eq!(b.broker.being_written(&[1]), [10]);
    b.grant(10, 1, PENDING, Write);
    b.grant(10, 1, SHARED, Write);
    b.unlock(10, 1, Range::new(0, u64::MAX >> 1));
    assert!(b.broker.being_written(&[1]).is_empty());
    b.grant(10, 2, PENDING, Read);
    b.grant(10, 2, SHARED, Read);
    let write = b.ask(10, 2, RESERVED, Write);
    assert_eq!(b.got(write), None);
    b.broker.release(b.now, &b.world, &[1], &mut b.out);
    assert_eq!(b.got(write), Some(Ok(())));
}
