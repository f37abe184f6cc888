//! What the engine promises to callers: who waits for whom, what a restart finds, and what keeps nobody from anything.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::id::OperationId;
use hoody_state::locked_db::memory::MemoryLockedDb;
use hoody_state::model::{CopyRequest, NewContainer, NewSnapshot, OperationStatus, RestoreOptions, Status, Verb};
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::snapshot::{SnapshotStore, Volume};
use hoody_state::{Caller, Code, Host, HostBuilder, Kind, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds operations up before one step.
#[derive(Default)]
struct Gate {
    at: Mutex<Option<String>>,
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn close(&self, step: &str) {
        *self.at.lock().unwrap() = Some(step.to_owned());
    }

    fn open(&self) {
        *self.at.lock().unwrap() = None;
        self.changed.notify_all();
    }

    /// Waits until an operation stands before the step.
    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        while *self.waiting.lock().unwrap() == 0 {
            assert!(Instant::now() < end, "no operation came to the step");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Hook(Arc<Gate>);

impl StepHook for Hook {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let mut at = self.0.at.lock().unwrap();
        while at.as_deref() == Some(&*format!("{operation}:{step}")) {
            *self.0.waiting.lock().unwrap() += 1;
            at = self.0.changed.wait(at).unwrap();
            *self.0.waiting.lock().unwrap() -= 1;
        }
        Ok(())
    }
}

/// A host with databases, on backends without files.
struct Gated {
    host: Host,
    store: Arc<MemoryStore>,
    gate: Arc<Gate>,
}

impl Gated {
    fn new() -> Self {
        let freezer = Arc::new(MemoryFreezer::new());
        let (store, gate) = (Arc::new(MemoryStore::new()), Arc::new(Gate::default()));
        let runtime = Arc::new(MemoryRuntime::with_freezer(freezer.clone()));
        let builder = HostBuilder::new(None, store.clone(), freezer, runtime).unwrap();
        let host = builder.databases(Arc::new(MemoryLockedDb::new())).hook(Box::new(Hook(gate.clone()))).open().unwrap();
        Gated { host, store, gate }
    }
}

fn impatient() -> Caller {
    Caller { patience: Duration::ZERO, ..Caller::default() }
}

/// Runs `f` on a thread of its own; its result comes by the channel.
fn beside<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (send, receive): (Sender<T>, _) = channel();
    std::thread::spawn(move || drop(send.send(f())));
    receive
}

fn is_waiting<T>(r: &Receiver<T>) -> bool {
    r.recv_timeout(Duration::from_millis(100)).is_err()
}

#[test]
fn a_snapshot_right_after_a_restart_waits_for_it() {
    let Gated { host, gate, .. } = Gated::new();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    gate.close("container.restart:boot");
    let (h, id) = (host.clone(), c.clone());
    let restarted = beside(move || h.lifecycle(&Caller::default(), &id, Verb::Restart, None).map(|a| a.status));
    gate.wait();
    let e = host.create_snapshot(&impatient(), &c, NewSnapshot::default()).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Busy, Code::OperationInProgress), "wait=0 asks for a refusal at once");
    let (h, id) = (host.clone(), c.clone());
    let taken = beside(move || snapshot(&h, &id, "after"));
    assert!(is_waiting(&taken));
    gate.open();
    assert_eq!(restarted.recv_timeout(PATIENCE).unwrap().unwrap(), Status::Running);
    taken.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_clean(&host, "a snapshot after a restart");
}

#[test]
fn behind_a_long_change_nobody_waits() {
    let Gated { host, gate, .. } = Gated::new();
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    gate.close("container.copy:snapshots");
    let copy = host.copy_container(
        &Caller { wait: Duration::ZERO, ..Caller::default() },
        &c,
        CopyRequest { target_project_id: Some(p.to_string()), ..CopyRequest::default() },
    );
    let copy = copy.unwrap().id;
    gate.wait();
    let began = Instant::now();
    assert_eq!(host.delete_container(&Caller::default(), &copy).unwrap_err().kind(), Kind::Busy);
    assert!(began.elapsed() < Duration::from_secs(5), "it did not wait");
    gate.open();
}

/// The end of a copy is visible while its locks are still held, here for as long as a listener of its last event takes.
#[test]
fn who_has_seen_the_end_of_an_operation_is_not_refused_because_of_it() {
    let host = Gated::new().host;
    let p = furnish(&host);
    let c = container(&host, &p, "agent").unwrap();
    let _slow = host.subscribe(Box::new(|e| {
        if e.event_type == "container.operation.completed" {
            std::thread::sleep(Duration::from_millis(200));
        }
    }));
    let quick = Caller { wait: Duration::ZERO, ..impatient() };
    let copy = host.copy_container(&quick, &c, CopyRequest { target_project_id: Some(p.to_string()), ..CopyRequest::default() }).unwrap();
    let end = Instant::now() + PATIENCE;
    let op = copy.operation_id.unwrap();
    while host.operation(&op).unwrap().status == OperationStatus::Running {
        assert!(Instant::now() < end);
    }
    host.create_snapshot(&quick, &copy.id, NewSnapshot::default()).unwrap();
}

#[test]
fn a_container_cannot_join_a_project_while_its_databases_are_exchanged() {
    let world = Gated::new();
    let p = furnish(&world.host);
    let c = container(&world.host, &p, "agent").unwrap();
    let databases = Volume::Databases(p.clone());
    world.store.create(&databases).unwrap();
    world.store.write(&databases, "app.db", b"one").unwrap();
    snapshot(&world.host, &c, "before").unwrap();
    world.gate.close("snapshot.restore:exchange databases");
    let (h, id) = (world.host.clone(), c.clone());
    let restored = beside(move || h.restore(&Caller::default(), &id, "before", RestoreOptions::default()));
    world.gate.wait();
    let new = || NewContainer { name: Some("second".into()), ..NewContainer::default() };
    assert_eq!(world.host.create_container(&impatient(), &p, new()).unwrap_err().kind(), Kind::Busy);
    let (h, project) = (world.host.clone(), p.clone());
    let joined = beside(move || h.create_container(&Caller::default(), &project, new()));
    assert!(is_waiting(&joined), "it joined while the restore counted on being alone");
    world.gate.open();
    restored.recv_timeout(PATIENCE).unwrap().unwrap();
    joined.recv_timeout(PATIENCE).unwrap().unwrap();
    let e = world.host.restore(&Caller::default(), &c, "before", RestoreOptions::default()).unwrap_err();
    assert_eq!(e.code(), Code::DatabasesShared, "now it is not alone any more");
}

#[test]
fn a_restore_is_answered_when_its_caller_would_wait_no_longer() {
    let Gated { host, gate, .. } = Gated::new();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    snapshot(&host, &c, "before").unwrap();
    gate.close("snapshot.restore:exchange");
    let caller = Caller { wait: Duration::ZERO, ..Caller::default() };
    let answer = host.restore(&caller, &c, "before", RestoreOptions::default()).unwrap();
    let op: OperationId = answer.operation_id.clone().unwrap();
    assert!(answer.snapshot.is_none() && answer.undo.is_some() && answer.message.contains(op.as_str()), "{answer:?}");
    assert_eq!(host.operation(&op).unwrap().status, OperationStatus::Running);
    gate.open();
    assert_eq!(host.wait_operation(&op, PATIENCE).unwrap().status, OperationStatus::Succeeded);
    assert_eq!(host.container(&c).unwrap().status, Status::Running);
    assert!(host.restore(&Caller::default(), &c, "before", RestoreOptions::default()).unwrap().operation_id.is_none());
}

#[test]
fn a_row_of_the_journal_from_a_newer_version_locks_what_it_changes_and_nothing_else() {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let (c, other) = (container(&host, &p, "agent").unwrap(), container(&host, &p, "other").unwrap());
    // Crashed before its second step: its row stays open.
    w.crash_at(2);
    host.create_snapshot(&Caller::default(), &c, NewSnapshot::default()).unwrap_err();
    w.crash_at(0);
    drop(host);
    let newer = |sql: &str| rusqlite::Connection::open(w.catalog_file()).unwrap().execute(sql, []).unwrap();
    assert_eq!(newer("UPDATE operations SET intent = '{\"kind\":\"teleport\",\"container\":1}' WHERE status = 'running'"), 1);
    let host = w.host();
    snapshot(&host, &other, "fine").unwrap();
    assert_eq!(snapshot(&host, &c, "locked").unwrap_err().kind(), Kind::Busy);
    let found = host.check(false).unwrap();
    assert_eq!(found.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["unreadable_operation"], "{found:?}");
    assert!(found[0].message.contains("teleport") && found[0].message.contains(c.as_str()), "{found:?}");
    assert!(host.check(true).unwrap()[0].repaired);
    drop(host);
    let host = w.host();
    snapshot(&host, &c, "free").unwrap();
    assert_clean(&host, "a row that was closed");
}

#[test]
fn the_status_log_names_who_made_a_container() {
    let host = Gated::new().host;
    let p = furnish(&host);
    let alice = Caller { by: "alice".into(), ..Caller::default() };
    let c = host.create_container(&alice, &p, NewContainer::default()).unwrap().id;
    let logs = host.status_logs(&c, &hoody_state::model::PageRequest::first()).unwrap().rows;
    assert!(logs.len() >= 2 && logs.iter().all(|l| l.triggered_by == "alice"), "{logs:?}");
}
