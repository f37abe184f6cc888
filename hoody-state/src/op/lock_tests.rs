#![allow(clippy::unwrap_used)]
use super::*;
use crate::error::Kind;
use std::sync::mpsc;

const NOW: Duration = Duration::ZERO;
const PATIENT: Duration = Duration::from_secs(20);

fn container() -> ContainerId {
    ContainerId::generate()
}

fn short(kind: &'static str, id: &ContainerId) -> Claim {
    Claim::short(kind, vec![Want::container(id)])
}

fn wait_until(what: impl Fn() -> bool) {
    let end = Instant::now() + PATIENT;
    while !what() {
        assert!(Instant::now() < end, "it never came about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn refusal(l: &Locks, claim: Claim, patience: Duration) -> Error {
    match l.take(claim, patience) {
        Ok(_) => panic!("it was granted"),
        Err(e) => e,
    }
}

#[test]
fn without_patience_a_second_change_is_refused_and_another_container_is_free() {
    let (l, a, b) = (Locks::default(), container(), container());
    let held = l.take(short("container.stop", &a), NOW).unwrap();
    let e = refusal(&l, short("snapshot.create", &a), NOW);
    assert_eq!((e.kind(), e.code()), (Kind::Busy, Code::OperationInProgress));
    assert!(e.message().contains("container.stop") && e.message().contains(a.as_str()), "{e}");
    let _b = l.take(short("container.stop", &b), NOW).unwrap();
    drop(held);
    let _a = l.take(short("snapshot.create", &a), NOW).unwrap();
    assert_eq!(refusal(&l, short("snapshot.delete", &a), NOW).code(), Code::SnapshotOperationInProgress);
}

#[test]
fn changes_wait_for_short_ones_in_the_order_in_which_they_came() {
    let (l, a) = (Locks::default(), container());
    let held = l.take(short("container.restart", &a), NOW).unwrap();
    let (send, order) = mpsc::channel();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (locks, a, send) = (l.clone(), a.clone(), send.clone());
            let t = std::thread::spawn(move || {
                let held = locks.take(short("snapshot.create", &a), PATIENT).unwrap();
                send.send(n).unwrap();
                drop(held);
            });
            wait_until(|| l.table().waiting.len() == n + 1);
            t
        })
        .collect();
    assert!(order.try_recv().is_err(), "nobody came in before the first had ended");
    drop(held);
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
}

#[test]
fn patience_ends() {
    let (l, a) = (Locks::default(), container());
    let _held = l.take(short("container.restart", &a), NOW).unwrap();
    let began = Instant::now();
    let e = refusal(&l, short("snapshot.create", &a), Duration::from_millis(50));
    assert_eq!(e.code(), Code::OperationInProgress);
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert!(l.table().waiting.is_empty(), "who gave up is not waited for");
}

#[test]
fn nobody_waits_for_a_long_change_or_behind_one_that_waits() {
    let (l, a) = (Locks::default(), container());
    let held = l.take(short("container.restart", &a), NOW).unwrap();
    let (locks, id) = (l.clone(), a.clone());
    let copy = std::thread::spawn(move || locks.take(Claim::long("container.sync", vec![Want::container(&id)]), PATIENT).unwrap());
    wait_until(|| l.table().waiting.len() == 1);
    assert!(refusal(&l, short("snapshot.create", &a), PATIENT).message().contains("container.sync"));
    drop(held);
    let _sync = copy.join().unwrap();
    assert!(refusal(&l, short("snapshot.create", &a), PATIENT).message().contains("container.sync"));
}

#[test]
fn who_has_seen_the_end_of_an_operation_is_not_refused_because_of_it() {
    let (l, a) = (Locks::default(), container());
    let held = l.take(Claim::long("container.copy", vec![Want::container(&a)]), NOW).unwrap();
    held.ending(true);
    let (locks, id) = (l.clone(), a.clone());
    let next = std::thread::spawn(move || locks.take(short("snapshot.create", &id), NOW).map(drop));
    wait_until(|| l.table().waiting.len() == 1);
    drop(held);
    next.join().unwrap().unwrap();
}

#[test]
fn several_keys_are_taken_together_and_readers_share_them() {
    let (l, a, b, p) = (Locks::default(), container(), container(), ProjectId::generate());
    let databases = || Key::Databases(p.clone());
    let snapshot = |id: &ContainerId| Claim::short("snapshot.create", vec![Want::container(id), Want::shared(databases())]);
    let one = l.take(snapshot(&a), NOW).unwrap();
    let two = l.take(snapshot(&b), NOW).unwrap();
    let restore = Claim::short("snapshot.restore", vec![Want::container(&container()), databases().into()]);
    assert!(refusal(&l, restore.clone(), NOW).message().contains("the databases of project"));
    drop(one);
    refusal(&l, restore.clone(), NOW);
    drop(two);
    let _restore = l.take(restore, NOW).unwrap();
    refusal(&l, snapshot(&a), NOW);
    assert_eq!(l.holder(&Key::Container(a)), None, "what was refused holds nothing");
}

#[test]
fn a_clone_keeps_the_lock_and_its_end_is_announced_once() {
    let (l, a) = (Locks::default(), container());
    let freed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&freed);
    l.on_free(move |k| seen.lock().unwrap().push(k.clone()));
    let outer = l.take(short("container.move", &a), NOW).unwrap();
    let inner = outer.clone();
    drop(outer);
    refusal(&l, short("container.stop", &a), NOW);
    assert!(!l.wait_idle(Duration::from_millis(1)));
    drop(inner);
    assert!(l.wait_idle(NOW));
    assert_eq!(*freed.lock().unwrap(), [Key::Container(a)]);
}

#[test]
fn many_claims_at_once_never_overlap_and_all_end() {
    let (l, p) = (Locks::default(), ProjectId::generate());
    let ids: Vec<ContainerId> = (0..3).map(|_| container()).collect();
    let inside = Arc::new([const { std::sync::atomic::AtomicU32::new(0) }; 4]);
    std::thread::scope(|s| {
        for n in 0..12_usize {
            let (l, ids, p, inside) = (l.clone(), &ids, &p, Arc::clone(&inside));
            s.spawn(move || {
                for round in 0..50_usize {
                    let container = (n + round) % 3;
                    let with_databases = (n * 7 + round) % 4 == 0;
                    let mut wants = vec![Want::container(&ids[container])];
                    if with_databases {
                        wants.push(Key::Databases(p.clone()).into());
                    }
                    let _held = l.take(Claim::short("snapshot.create", wants), PATIENT).unwrap();
                    let mine: Vec<usize> = [Some(container), with_databases.then_some(3)].into_iter().flatten().collect();
                    for &k in &mine {
                        assert_eq!(inside[k].fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    }
                    std::thread::yield_now();
                    for &k in &mine {
                        inside[k].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(l.wait_idle(NOW) && l.table().waiting.is_empty());
}
