#![allow(clippy::unwrap_used, clippy::panic)]
//! The engine with operations of its own: it knows no other.

use super::begun::text;
use super::journal::parse;
use super::step::NoHook;
use super::*;
use crate::catalog::records::Records;
use crate::catalog::{Catalog, Durability, operations};
use crate::clock::SystemClock;
use crate::error::{Error, Kind, Result};
use crate::id::{ContainerId, OperationId};
use crate::model::OperationStatus;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What the operations of these tests work on.
struct Toys {
    engine: Engine,
    /// How often recovery still fails.
    failures: AtomicU32,
    recovered: AtomicU32,
    ran_on: AtomicU32,
}

#[derive(Clone)]
struct Toy(Arc<Toys>);

impl Engined for Toy {
    type Weak = Weak<Toys>;

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn downgrade(&self) -> Weak<Toys> {
        Arc::downgrade(&self.0)
    }

    fn upgrade(weak: &Weak<Toys>) -> Option<Toy> {
        weak.upgrade().map(Toy)
    }
}

/// An operation that does what it is told to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Play {
    container: ContainerId,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum How {
    Succeed,
    Fail,
    Panic,
    /// Succeeds without ending.
    Forget,
    /// Acknowledges, then fails.
    FailLate,
    /// Is run on by the next start.
    RunOn,
}

impl Operation for Play {
    type World = Toy;
    type Answer = String;
    const TAG: &'static str = "play";
    const ACKNOWLEDGES: bool = true;

    fn kind(&self) -> &'static str {
        "toy.play"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("toy.play", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op<Toy>) -> Result<String> {
        op.step("one")?;
        match self.how {
            How::Succeed => op.finish(Durability::Disk, |_| Ok("done".to_owned())),
            How::RunOn => {
                op.world.0.ran_on.fetch_add(1, Ordering::SeqCst);
                op.finish(Durability::Disk, |_| Ok("done".to_owned()))
            }
            How::Fail => Err(Error::internal("as asked")),
            How::Panic => panic!("as asked"),
            How::Forget => Ok("done".to_owned()),
            How::FailLate => {
                op.acknowledge(|_| Ok("begun"))?;
                Err(Error::internal("as asked, late"))
            }
        }
    }

    fn recover(&self, recovery: &Recovery<'_, Toy>) -> Result<()> {
        let toys = &recovery.world.0;
        if toys.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::internal("not yet"));
        }
        toys.recovered.fetch_add(1, Ordering::SeqCst);
        recovery.undone(|_| Ok(()))
    }

    fn continues(&self, _: &Toy) -> Result<bool> {
        Ok(self.how == How::RunOn)
    }
}

static ALL: [Entry<Toy>; 1] = [Entry::of::<Play>()];

fn toys_over(catalog: Arc<Catalog>) -> Toy {
    let engine = Engine::new(Records { catalog, clock: Arc::new(SystemClock) }, Box::new(NoHook));
    Toy(Arc::new(Toys { engine, failures: AtomicU32::new(0), recovered: AtomicU32::new(0), ran_on: AtomicU32::new(0) }))
}

fn toys() -> Toy {
    toys_over(Arc::new(Catalog::in_memory().unwrap()))
}

fn impatient() -> Caller {
    Caller { patience: Duration::ZERO, ..Caller::default() }
}

fn begin(toy: &Toy, how: How) -> (Begun<Play>, ContainerId, OperationId) {
    let container = ContainerId::generate();
    let intent = Play { container: container.clone(), how };
    let held = toy.engine().lock(&impatient(), Operation::claim(&intent)).unwrap();
    let begun = Begun::journal(toy, &impatient(), held, Durability::Disk, intent, None, |_| Ok(())).unwrap();
    let id = begun.op.id.clone();
    (begun, container, id)
}

fn is_locked(toy: &Toy, c: &ContainerId) -> bool {
    toy.engine().locks.holder(&Key::Container(c.clone())).is_some()
}

fn status(toy: &Toy, id: &OperationId) -> OperationStatus {
    toy.engine().read(|c| operations::get(c, id)).unwrap().status
}

fn wait_until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it never came about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_operation_that_panics_is_recovered_like_one_that_fails() {
    for how in [How::Fail, How::Panic, How::Forget] {
        let toy = toys();
        let (begun, container, id) = begin(&toy, how);
        let e = begun.run_here().unwrap_err();
        assert_eq!(e.kind(), Kind::Internal);
        assert_eq!(toy.0.recovered.load(Ordering::SeqCst), 1, "{how:?}");
        assert_eq!(status(&toy, &id), OperationStatus::Failed);
        assert!(!is_locked(&toy, &container));
    }
}

#[test]
fn recovery_that_fails_is_tried_again_and_the_lock_is_held_until_it_succeeds() {
    let toy = toys();
    toy.0.failures.store(3, Ordering::SeqCst);
    let (begun, container, id) = begin(&toy, How::Fail);
    begun.run_here().unwrap_err();
    assert!(is_locked(&toy, &container));
    assert_eq!(status(&toy, &id), OperationStatus::Running);
    wait_until(|| !is_locked(&toy, &container));
    assert_eq!((toy.0.recovered.load(Ordering::SeqCst), status(&toy, &id)), (1, OperationStatus::Failed));
}

#[test]
fn recovery_that_waits_keeps_no_host_alive() {
    let toy = toys();
    toy.0.failures.store(1000, Ordering::SeqCst);
    begin(&toy, How::Fail).0.run_here().unwrap_err();
    let weak = toy.downgrade();
    drop(toy);
    wait_until(|| weak.upgrade().is_none());
}

#[test]
fn the_next_start_undoes_what_was_cut_short_and_runs_on_what_continues() {
    let catalog = Arc::new(Catalog::in_memory().unwrap());
    let before = toys_over(Arc::clone(&catalog));
    let (cut, _, cut_id) = begin(&before, How::Succeed);
    let (long, container, long_id) = begin(&before, How::RunOn);
    drop((cut, long, before));
    let toy = toys_over(catalog);
    take_up_all(&toy, &ALL).unwrap();
    assert_eq!(status(&toy, &cut_id), OperationStatus::Failed);
    wait_until(|| status(&toy, &long_id) == OperationStatus::Succeeded && !is_locked(&toy, &container));
    assert_eq!(toy.0.ran_on.load(Ordering::SeqCst), 1);
}

#[test]
fn a_row_that_cannot_be_read_stops_nobody_and_keeps_what_it_changes_locked() {
    let catalog = Arc::new(Catalog::in_memory().unwrap());
    let before = toys_over(Arc::clone(&catalog));
    let (newer, container, newer_id) = begin(&before, How::Succeed);
    let (cut, _, cut_id) = begin(&before, How::Succeed);
    drop((newer, cut, before));
    let toy = toys_over(catalog);
    toy.engine().write(Durability::Disk, |tx| tx.amend_operation(&newer_id, r#"{"kind":"of_a_newer_version"}"#)).unwrap();
    take_up_all(&toy, &ALL).unwrap();
    assert_eq!(status(&toy, &cut_id), OperationStatus::Failed, "the rest is recovered");
    assert!(toy.engine().is_set_aside(&newer_id));
    assert_eq!(status(&toy, &newer_id), OperationStatus::Running, "a newer version can still go on with it");
    assert!(is_locked(&toy, &container));
    take_up_all(&toy, &ALL).unwrap();
}

#[test]
fn a_caller_that_was_answered_early_learns_of_a_later_failure_as_such() {
    let toy = toys();
    let (begun, container, _) = begin(&toy, How::FailLate);
    match begun.in_background(Duration::from_secs(20)).unwrap() {
        Ended::Failed(e) => assert!(e.message().contains("late")),
        _ => panic!("it did not fail"),
    }
    wait_until(|| !is_locked(&toy, &container));
    let (begun, ..) = begin(&toy, How::Fail);
    assert!(begun.in_background(Duration::ZERO).is_err(), "who was not answered waits for the reason");
}

#[test]
fn an_operation_within_another_keeps_the_lock_until_it_has_been_recovered() {
    let toy = toys();
    let (outer, container, _) = begin(&toy, How::Succeed);
    toy.0.failures.store(2, Ordering::SeqCst);
    let intent = Play { container: container.clone(), how: How::Fail };
    let held = outer.op.held().unwrap();
    Begun::journal(&toy, &impatient(), held, Durability::Disk, intent, None, |_| Ok(())).unwrap().run_here().unwrap_err();
    outer.run_here().unwrap();
    assert!(is_locked(&toy, &container), "the inner one has not been undone yet");
    wait_until(|| !is_locked(&toy, &container));
}

#[test]
fn intents_are_written_with_their_tag() {
    let intent = Play { container: ContainerId::generate(), how: How::Succeed };
    let written = text(&intent).unwrap();
    let value: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!((value["kind"].as_str(), value["container"].as_str()), (Some("play"), Some(intent.container.as_str())));
    assert_eq!(parse(&written, &ALL).unwrap().kind(), "toy.play");
}
