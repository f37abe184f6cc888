//! The service with real threads: each request is answered once, by whatever thread makes the answer possible.

use crate::locks::{Class, Limits, LockCall, LockService, LockedFile};
use hoody_state::locked_db::broker::{Range, rules};
use nix::libc::{EAGAIN, EINTR, F_RDLCK, F_UNLCK, F_WRLCK};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn file(id: u64, class: Class) -> Arc<LockedFile> {
    let fd = OwnedFd::from(tempfile::tempfile().unwrap());
    Arc::new(LockedFile {
        id,
        volume: 1.into(),
        class: Mutex::new(class),
        fd,
        place: Mutex::new(None),
        has_ordinary_locks: AtomicBool::default(),
        _taken: None,
        mirror: Default::default(),
    })
}

fn call(owner: u64, range: Range, kind: i32) -> LockCall {
    LockCall {
        node: owner,
        fh: owner,
        lock_owner: owner,
        tid: 1 << 30 | u32::try_from(owner).unwrap(),
        pid: 1,
        start: range.start,
        end: range.end,
        kind,
        wait: false,
        read_only: false,
        apart: true,
    }
}

fn ask(service: &LockService, file: &Arc<LockedFile>, call: LockCall) -> Receiver<Result<(), i32>> {
    let (tx, rx) = channel();
    service.setlk(file, call, Box::new(move |r| tx.send(r).unwrap()));
    rx
}

const SOON: Duration = Duration::from_millis(500);

#[test]
fn a_writer_waits_for_the_one_before_and_is_told() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    assert_eq!(ask(&service, &shm, call(1, rules::WRITE, F_WRLCK)).recv_timeout(SOON), Ok(Ok(())));
    let second = ask(&service, &shm, call(2, rules::WRITE, F_WRLCK));
    assert!(second.try_recv().is_err());
    assert_eq!(ask(&service, &shm, call(1, rules::WRITE, F_UNLCK)).recv_timeout(SOON), Ok(Ok(())));
    assert_eq!(second.recv_timeout(SOON), Ok(Ok(())));
}

#[test]
fn a_plain_file_is_refused_at_once() {
    let service = LockService::new(Limits::default());
    let plain = file(1, Class::Plain);
    let byte = Range::byte(7);
    assert_eq!(ask(&service, &plain, call(1, byte, F_WRLCK)).recv_timeout(SOON), Ok(Ok(())));
    assert_eq!(ask(&service, &plain, call(2, byte, F_RDLCK)).recv_timeout(SOON), Ok(Err(EAGAIN)));
    let in_the_way = service.getlk(&plain, &call(2, byte, F_RDLCK)).unwrap();
    assert_eq!((in_the_way.start, in_the_way.end, in_the_way.kind, in_the_way.pid), (7, 7, F_WRLCK, 1));
}

#[test]
fn a_release_lets_go_of_what_was_taken_through_that_handle_and_not_of_what_was_taken_again() {
    let service = LockService::new(Limits::default());
    let plain = file(1, Class::Plain);
    let byte = Range::byte(0);
    ask(&service, &plain, call(1, byte, F_WRLCK)).recv_timeout(SOON).unwrap().unwrap();
    service.flush(&plain, 1, 1, 1);
    let again = LockCall { fh: 99, ..call(1, byte, F_WRLCK) };
    ask(&service, &plain, again).recv_timeout(SOON).unwrap().unwrap();
    service.release(&plain, 1);
    assert_eq!(ask(&service, &plain, call(2, byte, F_WRLCK)).recv_timeout(SOON), Ok(Err(EAGAIN)));
    service.release(&plain, 99);
    assert_eq!(ask(&service, &plain, call(2, byte, F_WRLCK)).recv_timeout(SOON), Ok(Ok(())));
}

#[test]
fn a_hold_waits_for_the_writer_and_holds_the_next_until_it_is_dropped_or_its_lease_ends() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    ask(&service, &shm, call(1, rules::WRITE, F_WRLCK)).recv_timeout(SOON).unwrap().unwrap();
    let refused = service.quiesce(&[1], Duration::from_millis(20), SOON).unwrap_err();
    assert_eq!(refused.pids, [1]);
    let waiting = {
        let service = service.clone();
        std::thread::spawn(move || service.quiesce(&[1], Duration::from_secs(10), Duration::from_millis(50)).unwrap())
    };
    ask(&service, &shm, call(1, rules::WRITE, F_UNLCK)).recv_timeout(SOON).unwrap().unwrap();
    let held = waiting.join().unwrap();
    let next = ask(&service, &shm, LockCall { tid: std::process::id(), ..call(2, rules::WRITE, F_WRLCK) });
    assert_eq!(next.recv_timeout(Duration::from_secs(5)), Ok(Ok(())), "the hold ends with its lease");
    assert!(!held.release(), "and says so");
}

#[test]
fn a_reader_keeps_its_place_while_the_event_loop_does_not_listen() {
    let service = LockService::new(Limits::default());
    let (shm, mark) = (file(1, Class::Shm), Range::byte(124));
    let alive = |owner| LockCall { tid: std::process::id(), ..call(owner, mark, F_RDLCK) };
    let first = call(1, mark, F_RDLCK);
    ask(&service, &shm, first).recv_timeout(SOON).unwrap().unwrap();
    let second = ask(&service, &shm, alive(2));
    let busy = service.busy();
    std::thread::sleep(Duration::from_millis(800));
    assert!(second.try_recv().is_err(), "it may have asked to write, unheard");
    drop(busy);
    ask(&service, &shm, LockCall { start: 120, end: 120, kind: F_WRLCK, ..first }).recv_timeout(SOON).unwrap().unwrap();
    assert_eq!((service.status().1.revoked, service.status().1.upgrades_after_revocation), (0, 0));
    service.flush(&shm, 1, 1, 1);
    second.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
}

#[test]
fn a_waiter_that_is_gone_is_answered() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    ask(&service, &shm, call(1, rules::WRITE, F_WRLCK)).recv_timeout(SOON).unwrap().unwrap();
    // No thread has that number.
    assert_eq!(ask(&service, &shm, call(2, rules::WRITE, F_WRLCK)).recv_timeout(SOON), Ok(Err(EINTR)));
}

#[test]
fn parked_waits_are_answered() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    ask(&service, &shm, call(1, rules::WRITE, F_WRLCK)).recv_timeout(SOON).unwrap().unwrap();
    let waiting = ask(&service, &shm, LockCall { tid: std::process::id(), ..call(2, rules::WRITE, F_WRLCK) });
    assert_eq!(service.park(&|tid| tid == std::process::id()), 1);
    assert_eq!(waiting.recv_timeout(SOON), Ok(Err(EINTR)));
}

#[test]
fn many_threads_never_share_what_is_exclusive_and_all_are_answered() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    let inside = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let threads: Vec<_> = (0..8_u64)
        .map(|n| {
            let (service, shm, inside) = (service.clone(), shm.clone(), inside.clone());
            std::thread::spawn(move || {
                let tid = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
                for _ in 0..500 {
                    let lock = LockCall { tid, ..call(n, rules::WRITE, F_WRLCK) };
                    ask(&service, &shm, lock).recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    ask(&service, &shm, LockCall { kind: F_UNLCK, ..lock }).recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
                }
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    assert!(service.status().0.is_empty(), "nothing is held, nothing waits");
}

#[test]
fn in_a_crowd_of_waiters_those_that_are_gone_are_all_found() {
    let service = LockService::new(Limits::default());
    let shm = file(1, Class::Shm);
    ask(&service, &shm, call(1, rules::WRITE, F_WRLCK)).recv_timeout(SOON).unwrap().unwrap();
    let (done, tids) = (Arc::new(std::sync::Barrier::new(401)), channel());
    let alive: Vec<_> = (0..400)
        .map(|_| {
            let (done, tell) = (done.clone(), tids.0.clone());
            std::thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || {
                    tell.send(u32::try_from(nix::unistd::gettid().as_raw()).unwrap()).unwrap();
                    done.wait();
                })
                .unwrap()
        })
        .collect();
    // More than are looked at in one round; every third one is gone.
    let waits: Vec<_> = (2..602_u64)
        .map(|n| {
            let (gone, who) = (n % 3 == 0, call(n, rules::WRITE, F_WRLCK));
            let tid = if gone { who.tid } else { tids.1.recv().unwrap() };
            (gone, ask(&service, &shm, LockCall { tid, ..who }))
        })
        .collect();
    for (gone, wait) in waits {
        if gone {
            assert_eq!(wait.recv_timeout(Duration::from_secs(5)), Ok(Err(EINTR)));
        } else {
            assert!(wait.try_recv().is_err());
        }
    }
    done.wait();
    alive.into_iter().for_each(|t| t.join().unwrap());
}
