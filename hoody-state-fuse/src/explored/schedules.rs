//! The tests. Each has a few threads and runs with some thousand schedules, half of them random and half by priorities, which find orders that need few but
//! unlikely switches. A failure prints the schedule, so that it can be replayed.

use super::locks::{Class, Held, Limits, LockCall, LockService, LockedFile};
use super::sync_pool::SyncPool;
use super::threads::{Condvar, DEAD, Mutex};
use hoody_state::locked_db::broker::{Range, rules};
use nix::libc::{EAGAIN, EINTR, ESTALE, F_RDLCK, F_UNLCK, F_WRLCK};
use shuttle::thread;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

fn explore(schedules: usize, f: impl Fn() + Send + Sync + 'static) {
    let f = Arc::new(f);
    let g = f.clone();
    shuttle::check_random(move || g(), schedules);
    shuttle::check_pct(move || f(), schedules, 3);
}

const ANY_READ: Range = Range::byte(124);

/// Nothing here depends on time.
fn limits() -> Limits {
    Limits { turn: 0, ..Limits::default() }
}

fn file(class: Class) -> Arc<LockedFile> {
    let fd = OwnedFd::from(tempfile::tempfile().unwrap());
    Arc::new(LockedFile {
        id: 1,
        volume: 1.into(),
        class: Mutex::new(class),
        fd,
        place: Mutex::new(None),
        has_ordinary_locks: AtomicBool::default(),
        _taken: None,
        mirror: Default::default(),
    })
}

/// A connection, which checks each answer.
#[derive(Clone)]
struct Client {
    service: Arc<LockService>,
    file: Arc<LockedFile>,
    owner: u64,
    tid: u32,
}

/// An answer to come.
#[derive(Default)]
struct Slot(Mutex<Vec<Result<(), i32>>>, Condvar);

impl Slot {
    fn wait(&self) -> Result<(), i32> {
        let mut said = self.0.lock().unwrap();
        while said.is_empty() {
            said = self.1.wait(said).unwrap();
        }
        said[0]
    }
}

impl Client {
    fn new(service: &Arc<LockService>, file: &Arc<LockedFile>, owner: u32) -> Self {
        Client { service: service.clone(), file: file.clone(), owner: owner.into(), tid: owner }
    }

    fn begin(&self, range: Range, kind: i32) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        let told = slot.clone();
        let call = LockCall {
            node: self.owner,
            fh: self.owner,
            lock_owner: self.owner,
            tid: self.tid,
            pid: 1,
            start: range.start,
            end: range.end,
            kind,
            wait: false,
            read_only: false,
            apart: true,
        };
        self.service.setlk(
            &self.file,
            call,
            Box::new(move |r| {
                let mut said = told.0.lock().unwrap();
                said.push(r);
                assert_eq!(said.len(), 1, "answered twice");
                told.1.notify_one();
            }),
        );
        slot
    }

    fn ask(&self, range: Range, kind: i32) -> Result<(), i32> {
        self.begin(range, kind).wait()
    }

    fn close(&self) {
        self.service.flush(&self.file, self.owner, self.owner, self.owner);
        self.service.release(&self.file, self.owner);
    }
}

/// A section that only one connection may be in.
#[derive(Clone, Default)]
struct Alone(Arc<AtomicI32>);

impl Alone {
    /// The explorer may switch to another thread inside it.
    fn enter(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0, "two hold what is exclusive");
        thread::yield_now();
        assert_eq!(self.0.fetch_sub(1, Ordering::SeqCst), 1);
    }
}

/// A transaction in WAL mode, as SQLite makes it: a read that turned stale is asked for again.
fn transaction(c: &Client, alone: &Alone, held: Option<&AtomicBool>) {
    while let Err(e) = c.ask(ANY_READ, F_RDLCK) {
        assert_eq!(e, EAGAIN);
    }
    assert_eq!(c.ask(rules::WRITE, F_WRLCK), Ok(()), "no connection gets BUSY");
    assert!(!held.is_some_and(|h| h.load(Ordering::SeqCst)), "a write began while writes were held");
    alone.enter();
    assert_eq!(c.ask(rules::WRITE, F_UNLCK), Ok(()));
    assert_eq!(c.ask(ANY_READ, F_UNLCK), Ok(()));
}

fn nothing_is_left(service: &LockService) {
    let (files, _) = service.status();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn writers_follow_one_another_without_help_from_the_ticker() {
    // A lost wake-up leaves everybody waiting: there is nobody who looks again in time.
    explore(1000, || {
        let (service, alone) = (LockService::without_time(limits()), Alone::default());
        let shm = file(Class::Shm);
        let all: Vec<_> = (1..4)
            .map(|n| {
                let (c, alone) = (Client::new(&service, &shm, n), alone.clone());
                thread::spawn(move || (0..2).for_each(|_| transaction(&c, &alone, None)))
            })
            .collect();
        all.into_iter().for_each(|t| t.join().unwrap());
        nothing_is_left(&service);
    });
}

#[test]
fn turns_and_kept_intents_end_by_the_ticker() {
    explore(500, || {
        let (service, alone) = (LockService::new(Limits::default()), Alone::default());
        let shm = file(Class::Shm);
        let all: Vec<_> = (1..4)
            .map(|n| {
                let (c, alone) = (Client::new(&service, &shm, n), alone.clone());
                thread::spawn(move || (0..2).for_each(|_| transaction(&c, &alone, None)))
            })
            .collect();
        all.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_killed_waiter_is_answered_once_whoever_comes_first() {
    explore(1000, || {
        let service = LockService::new(limits());
        let shm = file(Class::Shm);
        let first = Client::new(&service, &shm, 1);
        assert_eq!(first.ask(rules::WRITE, F_WRLCK), Ok(()));
        let dead = Client { tid: DEAD, ..Client::new(&service, &shm, 2) };
        let waiter = thread::spawn(move || {
            let said = dead.ask(rules::WRITE, F_WRLCK);
            assert!(said == Ok(()) || said == Err(EINTR), "{said:?}");
            dead.close();
        });
        let third = Client::new(&service, &shm, 3);
        let third = thread::spawn(move || {
            assert_eq!(third.ask(rules::WRITE, F_WRLCK), Ok(()), "the dead hold nobody up");
            third.close();
        });
        first.close();
        waiter.join().unwrap();
        third.join().unwrap();
        nothing_is_left(&service);
    });
}

#[test]
fn a_ticker_that_sleeps_is_woken_for_a_waiter() {
    explore(500, || {
        let service = LockService::new(limits());
        let shm = file(Class::Shm);
        let first = Client::new(&service, &shm, 1);
        assert_eq!(first.ask(rules::WRITE, F_WRLCK), Ok(()));
        // Under many schedules it sleeps by now; only it can tell that the waiter is dead.
        (0..4).for_each(|_| thread::yield_now());
        let dead = Client { tid: DEAD, ..Client::new(&service, &shm, 2) };
        assert_eq!(dead.ask(rules::WRITE, F_WRLCK), Err(EINTR));
    });
}

#[test]
fn a_park_answers_what_waits_and_nothing_twice() {
    explore(1000, || {
        let service = LockService::without_time(limits());
        let shm = file(Class::Shm);
        let first = Client::new(&service, &shm, 1);
        assert_eq!(first.ask(rules::WRITE, F_WRLCK), Ok(()));
        let parked = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (2..4)
            .map(|n| {
                let (c, parked) = (Client::new(&service, &shm, n), parked.clone());
                thread::spawn(move || {
                    match c.ask(rules::WRITE, F_WRLCK) {
                        Ok(()) => {}
                        Err(e) => {
                            assert_eq!((e, n), (EINTR, 2), "only the one that is to be frozen");
                            parked.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    c.close();
                })
            })
            .collect();
        let parker = {
            let service = service.clone();
            thread::spawn(move || service.park(&|tid| tid == 2))
        };
        first.close();
        let ended = parker.join().unwrap();
        waiters.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(ended, parked.load(Ordering::SeqCst), "each wait that it says it ended");
        nothing_is_left(&service);
    });
}

#[test]
fn nothing_is_written_while_writes_are_held_and_everything_after() {
    explore(1000, || {
        let (service, alone) = (LockService::without_time(limits()), Alone::default());
        let (shm, quiet) = (file(Class::Shm), Arc::new(AtomicBool::new(false)));
        let writers: Vec<_> = (1..3)
            .map(|n| {
                let (c, alone, quiet) = (Client::new(&service, &shm, n), alone.clone(), quiet.clone());
                thread::spawn(move || (0..2).for_each(|_| transaction(&c, &alone, Some(&quiet))))
            })
            .collect();
        let holders: Vec<_> = (0..2)
            .map(|n| {
                let (service, quiet) = (service.clone(), quiet.clone());
                thread::spawn(move || {
                    let held: Held = service.quiesce(&[1], Duration::from_secs(10), Duration::from_secs(10)).unwrap();
                    if n == 0 {
                        quiet.store(true, Ordering::SeqCst);
                        thread::yield_now();
                        quiet.store(false, Ordering::SeqCst);
                    }
                    assert!(held.release(), "to the end");
                })
            })
            .collect();
        writers.into_iter().chain(holders).for_each(|t| t.join().unwrap());
        nothing_is_left(&service);
    });
}

#[test]
fn a_lease_and_its_holder_let_go_once_between_them() {
    explore(1000, || {
        let (service, alone) = (LockService::new(limits()), Alone::default());
        let shm = file(Class::Shm);
        let held = service.quiesce(&[1], Duration::from_secs(10), Duration::from_millis(2)).unwrap();
        let other = service.quiesce(&[1], Duration::from_secs(10), Duration::from_secs(1000)).unwrap();
        let writer = {
            let (c, alone) = (Client::new(&service, &shm, 1), alone.clone());
            thread::spawn(move || transaction(&c, &alone, None))
        };
        let holder = thread::spawn(move || {
            (0..3).for_each(|_| thread::yield_now());
            held.release()
        });
        holder.join().unwrap();
        // If the first hold were released twice, this one would hold nothing.
        assert!(service.status().0.iter().all(|(f, _)| f.holders.iter().all(|h| h.ranges.iter().all(|(r, _)| *r != rules::WRITE))), "still held");
        assert!(other.release());
        writer.join().unwrap();
        nothing_is_left(&service);
    });
}

#[test]
fn handles_that_close_take_their_locks_along_and_no_others() {
    explore(1000, || {
        let service = LockService::without_time(limits());
        let plain = file(Class::Plain);
        let closing = Client::new(&service, &plain, 1);
        assert_eq!(closing.ask(Range::byte(0), F_WRLCK), Ok(()));
        let closer = thread::spawn(move || closing.close());
        let other = Client::new(&service, &plain, 2);
        let other = thread::spawn(move || {
            assert_eq!(other.ask(Range::byte(9), F_WRLCK), Ok(()), "nobody is in its way");
            let said = other.ask(Range::byte(0), F_WRLCK);
            assert!(said == Ok(()) || said == Err(EAGAIN));
            other.close();
        });
        closer.join().unwrap();
        other.join().unwrap();
        nothing_is_left(&service);
    });
}

#[test]
fn a_volume_that_goes_away_leaves_nobody_waiting() {
    explore(1000, || {
        let service = LockService::without_time(limits());
        let shm = file(Class::Shm);
        let clients: Vec<_> = (1..4)
            .map(|n| {
                let c = Client::new(&service, &shm, n);
                thread::spawn(move || {
                    let said = c.ask(rules::WRITE, F_WRLCK);
                    assert!(said == Ok(()) || said == Err(ESTALE), "{said:?}");
                    c.close();
                })
            })
            .collect();
        service.forget_volume(1);
        clients.into_iter().for_each(|t| t.join().unwrap());
        nothing_is_left(&service);
    });
}

#[test]
fn every_sync_is_done_once() {
    explore(1000, || {
        let (pool, done) = (SyncPool::default(), Arc::new((Mutex::new(0), Condvar::new())));
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let (pool, done) = (pool.clone(), done.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        let done = done.clone();
                        pool.run(move || {
                            *done.0.lock().unwrap() += 1;
                            done.1.notify_all();
                        });
                    }
                })
            })
            .collect();
        askers.into_iter().for_each(|t| t.join().unwrap());
        let mut n = done.0.lock().unwrap();
        while *n < 4 {
            n = done.1.wait(n).unwrap();
        }
        assert_eq!(*n, 4);
        // Threads that do not end are a failure of their own.
        pool.end();
    });
}
