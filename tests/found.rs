//! What attacking the library has found, one test a bug.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::model::{EventFilter, NewSnapshot, OnAliasConflict, RestoreOptions, Status, Verb};
use hoody_state::op::step::StepHook;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Caller, Error, Host, HostBuilder, Kind, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, snapshot};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type AtStep = dyn Fn(&str) -> Result<()> + Send + Sync;

/// Something that happens at steps.
#[derive(Clone, Default)]
struct At(Arc<Mutex<Option<Arc<AtStep>>>>);

impl At {
    fn set(&self, f: impl Fn(&str) -> Result<()> + Send + Sync + 'static) {
        *self.0.lock().unwrap() = Some(Arc::new(f));
    }
}

impl StepHook for At {
    fn step(&self, operation: &str, step: &str) -> Result<()> {
        let f = self.0.lock().unwrap().clone();
        f.map_or(Ok(()), |f| f(&format!("{operation}:{step}")))
    }
}

fn host_with(at: &At) -> (Host, Arc<MemoryRuntime>) {
    let runtime = Arc::new(MemoryRuntime::new());
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), runtime.clone()).unwrap();
    (builder.hook(Box::new(at.clone())).open().unwrap(), runtime)
}

fn eventually(what: &str, f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !f() {
        assert!(Instant::now() < end, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The upkeep may be at the container for a moment.
fn patiently<T>(f: impl Fn() -> Result<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match f() {
            Err(e) if e.kind() == Kind::Busy && Instant::now() < end => std::thread::yield_now(),
            out => return out.unwrap(),
        }
    }
}

fn rolling() -> NewSnapshot {
    NewSnapshot { alias: Some("rolling".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() }
}

#[test]
fn a_restore_whose_boot_fails_is_not_booted_a_second_time_behind_its_error() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    w.runtime.fail_next_start();
    let e = h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap_err();
    assert_eq!(e.code(), "start_failed");
    let seen = h.container(&c).unwrap();
    assert_eq!((seen.status, seen.last_used_snapshot.unwrap().as_str()), (Status::Failed, "s"));
    let restored =
        h.events(&EventFilter { limit: 500, ..Default::default() }).unwrap().0.into_iter().filter(|e| e.event_type == "container.snapshot.restored").count();
    assert_eq!(restored, 1);
    assert_clean(&h, "after a restore that does not boot");
}

#[test]
fn a_container_that_is_stopped_by_a_restore_says_no_longer_why_it_had_failed() {
    let w = MemoryWorld::new();
    let h = w.host();
    let p = furnish(&h);
    w.runtime.fail_next_start();
    let c = container(&h, &p, "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap();
    let seen = h.container(&c).unwrap();
    assert_eq!((seen.status, seen.status_message), (Status::Stopped, None));
}

#[test]
fn a_snapshot_that_replaces_its_own_parent_grows_from_what_that_grew_from() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "base").unwrap();
    for n in 0..3 {
        w.write(&c, &format!("file{n}"), "12345");
        let s = h.create_snapshot(&Caller::default(), &c, rolling()).unwrap().snapshot;
        assert_eq!(s.parent.unwrap().as_str(), "base");
        assert_eq!(s.size.0, 5 * (n + 1), "all that was written since `base` is its own");
    }
    assert_eq!(h.snapshots(&c).unwrap().snapshot_count, 2);
}

#[test]
fn a_new_snapshot_stands_though_the_volume_it_replaces_cannot_be_deleted_yet() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let c = container(&h, &furnish(&h), "dev").unwrap();
    h.create_snapshot(&Caller::default(), &c, rolling()).unwrap();
    let in_use = Arc::new(AtomicBool::new(true));
    let flag = in_use.clone();
    at.set(move |step| match step {
        "volume.delete:delete" if flag.load(Ordering::SeqCst) => Err(Error::new(Kind::Busy, "volume_in_use", "it is being sent")),
        _ => Ok(()),
    });
    let new = h.create_snapshot(&Caller::default(), &c, rolling()).unwrap().snapshot;
    let list = h.snapshots(&c).unwrap().snapshots;
    assert_eq!(list.iter().map(|s| &s.name).collect::<Vec<_>>(), [&new.name]);
    patiently(|| h.restore(&Caller::default(), &c, new.name.as_str(), RestoreOptions::default()));
    patiently(|| h.delete_snapshot(&Caller::default(), &c, new.name.as_str()));
    in_use.store(false, Ordering::SeqCst);
    eventually("the volumes go when they can", || h.container(&c).unwrap().operation_id.is_none());
    assert_clean(&h, "after volumes that were in use");
}

/// A clock that does something the next time it is looked at: between an import's first question and its lock.
#[derive(Clone, Default)]
struct Interrupting(Arc<Mutex<Option<Interruption>>>);

type Interruption = Box<dyn FnOnce() + Send>;

impl hoody_state::clock::Clock for Interrupting {
    fn now(&self) -> jiff::Timestamp {
        // Not when the upkeep looks at it.
        let ours = std::thread::current().name() != Some("upkeep");
        let f = self.0.lock().unwrap().take_if(|_| ours);
        f.into_iter().for_each(|f| f());
        jiff::Timestamp::UNIX_EPOCH
    }
}

#[test]
fn of_two_imports_of_one_name_the_second_leaves_the_volume_of_the_first_alone() {
    let clock = Interrupting::default();
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new())).unwrap();
    let h = builder.clock(Arc::new(clock.clone())).open().unwrap();
    let other = h.clone();
    *clock.0.lock().unwrap() = Some(Box::new(move || {
        other.import_image(&Caller::default(), "x", &mut &hoody_state_workspace::tiny_image()[..]).unwrap();
    }));
    let e = h.import_image(&Caller::default(), "x", &mut &hoody_state_workspace::tiny_image()[..]).unwrap_err();
    assert_eq!(e.code(), "image_exists");
    assert_clean(&h, "after two imports of one name");
}

#[test]
fn the_same_key_at_the_same_time_changes_once() {
    let w = MemoryWorld::new();
    let h = w.host();
    for n in 0..40u8 {
        let key = hoody_state::host::IdempotencyKey { scope: "t".into(), key: format!("key{n}"), fingerprint: [n; 32] };
        let caller = Caller { idempotency: Some(key), ..Caller::default() };
        let input = hoody_state::model::ProjectInput { alias: Some(format!("p{n}")), ..Default::default() };
        let ids: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (0..4).map(|_| s.spawn(|| h.create_project(&caller, input.clone()).map(|p| p.id))).collect();
            all.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        assert!(ids.iter().all(|i| *i == ids[0]));
    }
}

#[test]
fn a_host_that_is_dropped_leaves_no_thread() {
    let named = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "upkeep")).count()
    };
    let hosts: Vec<Host> = (0..20).map(|_| host_with(&At::default()).0).collect();
    // Other tests have hosts of their own meanwhile: only many are counted.
    eventually("their threads have begun", || named() >= 20);
    drop(hosts);
    eventually("their threads end", || named() < 15);
}

#[test]
fn an_init_that_ends_in_the_middle_of_any_change_is_not_taken_for_running() {
    let at = At::default();
    let (h, runtime) = host_with(&at);
    let p = furnish(&h);
    for (step, refused) in [("snapshot.restore:intent", true), ("snapshot.create:snapshot", false), ("container.pause:freeze", false)] {
        let c = container(&h, &p, &step.replace([':', '.'], "-")).unwrap();
        snapshot(&h, &c, "s").unwrap();
        let (id, runtime) = (c.clone(), runtime.clone());
        at.set(move |s| {
            if s != step {
                return Ok(());
            }
            runtime.crash(&id, 3);
            if refused { Err(Error::conflict("no", "a test asked for it")) } else { Ok(()) }
        });
        let _ = match step {
            "snapshot.restore:intent" => h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).map(|_| ()),
            "container.pause:freeze" => h.lifecycle(&Caller::default(), &c, Verb::Pause, None).map(|_| ()),
            _ => snapshot(&h, &c, "t").map(|_| ()),
        };
        at.set(|_| Ok(()));
        assert_eq!(h.container(&c).unwrap().status, Status::Stopped, "{step}");
        assert_clean(&h, step);
    }
}

#[test]
fn a_server_that_dies_while_it_starts_containers_after_a_reboot_starts_them_the_next_time() {
    let mut w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    drop(h);
    w.boot = "the next boot".into();
    w.runtime = Arc::new(MemoryRuntime::new());
    w.crash_at(1);
    drop(w.host());
    w.crash_at(0);
    let h = w.host();
    eventually("it runs", || h.container(&c).unwrap().status == Status::Running);
}

#[test]
fn a_restore_that_is_undone_leaves_a_failed_container_failed() {
    let at = At::default();
    let (h, runtime) = host_with(&at);
    let p = furnish(&h);
    runtime.fail_next_start();
    let c = container(&h, &p, "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    let before = h.container(&c).unwrap();
    at.set(|s| if s == "snapshot.restore:exchange" { Err(Error::conflict("no", "a test asked for it")) } else { Ok(()) });
    h.restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap_err();
    let after = h.container(&c).unwrap();
    assert_eq!((after.status, after.status_message), (before.status, before.status_message));
    assert_clean(&h, "after a restore that was undone");
}

#[test]
fn in_memory_a_paused_container_that_is_stopped_starts_thawed() {
    let h = Host::in_memory().unwrap();
    let c = container(&h, &hoody_state_workspace::project(&h, "p"), "dev").unwrap();
    for v in [Verb::Pause, Verb::Stop, Verb::Start] {
        h.lifecycle(&Caller::default(), &c, v, None).unwrap();
        assert_clean(&h, v.as_str());
    }
}

#[test]
fn a_pinned_snapshot_keeps_its_container_and_project_from_being_deleted() {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "dev").unwrap();
    snapshot(&host, &c, "kept").unwrap();
    let me = Caller::default();
    host.pin_snapshot(&me, &c, "kept", Some("audit".into())).unwrap();
    let e = host.delete_container(&me, &c).unwrap_err();
    assert_eq!(e.code(), "snapshot_pinned");
    assert!(e.message().contains("kept") && e.message().contains("audit"), "{e}");
    assert_eq!(host.delete_project(&me, &p, false).unwrap_err().code(), "snapshot_pinned");
    assert_eq!(host.container(&c).unwrap().status, Status::Running);
    host.pin_snapshot(&me, &c, "kept", None).unwrap();
    host.delete_container(&me, &c).unwrap();
}

#[test]
fn a_snapshot_renamed_or_pinned_in_the_middle_of_a_change_does_not_lock_its_container_for_good() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let me = Caller::default();
    snapshot(&h, &c, "a").unwrap();
    h.create_snapshot(&me, &c, rolling()).unwrap();
    let (host, id) = (h.clone(), c.clone());
    let refused = Arc::new(Mutex::new(Vec::new()));
    let seen = refused.clone();
    at.set(move |s| {
        let e = match s {
            "snapshot.restore:clone" => host.rename_snapshot(&Caller::default(), &id, "a", Some("kept".into())),
            "snapshot.create:snapshot" => host.pin_snapshot(&Caller::default(), &id, "rolling", Some("audit".into())),
            _ => return Ok(()),
        };
        seen.lock().unwrap().push(e.unwrap_err().kind());
        Ok(())
    });
    h.restore(&me, &c, "a", RestoreOptions { keep_current: Some("kept".into()), ..Default::default() }).unwrap();
    patiently(|| h.create_snapshot(&me, &c, rolling()));
    assert_eq!(*refused.lock().unwrap(), [Kind::Busy, Kind::Busy]);
    assert_clean(&h, "after changes in the middle of changes");
}

/// A clock that is moved by hand, and stands still for the upkeep.
#[derive(Clone, Default)]
struct ByHand(Arc<std::sync::atomic::AtomicI64>);

impl hoody_state::clock::Clock for ByHand {
    fn now(&self) -> jiff::Timestamp {
        let ours = std::thread::current().name() != Some("upkeep");
        jiff::Timestamp::from_second(if ours { self.0.load(Ordering::SeqCst) } else { 0 }).unwrap()
    }
}

#[test]
fn a_snapshot_whose_expiry_is_put_off_at_the_last_moment_stays_and_so_does_one_that_has_taken_the_alias_of_another() {
    let (at, clock) = (At::default(), ByHand::default());
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new())).unwrap();
    let h = builder.hook(Box::new(at.clone())).clock(Arc::new(clock.clone())).open().unwrap();
    let p = furnish(&h);
    let me = Caller::default();
    let time = |s| Some(jiff::Timestamp::from_second(s).unwrap());
    let all: Vec<_> = (0..3).map(|n| container(&h, &p, &format!("dev{n}")).unwrap()).collect();
    for (n, c) in (0..).zip(&all) {
        h.create_snapshot(&me, c, rolling()).unwrap();
        patiently(|| h.set_snapshot_expiry(&me, c, "rolling", time(100 + n)));
    }
    let (host, ids, once) = (h.clone(), all.clone(), AtomicBool::new(false));
    at.set(move |s| {
        if s == "snapshot.delete:intent" && !once.swap(true, Ordering::SeqCst) {
            host.set_snapshot_expiry(&Caller::default(), &ids[1], "rolling", Some(jiff::Timestamp::from_second(500).unwrap()))?;
            host.create_snapshot(&Caller::default(), &ids[2], rolling())?;
        }
        Ok(())
    });
    clock.0.store(200, Ordering::SeqCst);
    h.expire_due().unwrap();
    let left: Vec<Vec<String>> = all.iter().map(|c| h.snapshots(c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect()).collect();
    assert_eq!(left, [vec![], vec!["rolling".to_owned()], vec!["rolling-2".to_owned()]]);
    assert_clean(&h, "after expiries");
}

#[test]
fn an_image_imported_under_the_name_of_one_whose_volume_went_late_keeps_its_own() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let me = Caller::default();
    let import = || h.import_image(&me, "x", &mut &hoody_state_workspace::tiny_image()[..]);
    import().unwrap();
    at.set(|s| if s == "volume.delete:delete" { Err(Error::new(Kind::Busy, "volume_in_use", "it is being sent")) } else { Ok(()) });
    h.delete_image(&me, "x").unwrap();
    // The upkeep has the name for a moment; then the old volume is in the way, and goes with the first attempt.
    let end = Instant::now() + Duration::from_secs(5);
    while import().is_err() {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    at.set(|_| Ok(()));
    eventually("the deletion is closed", || {
        h.expire_due().unwrap();
        h.operations(&hoody_state::model::PageRequest::first()).unwrap().rows.iter().all(|o| o.finished_at.is_some())
    });
    assert_clean(&h, "after an image of the same name");
}

fn aliased(h: &Host, c: &hoody_state::id::ContainerId, alias: &str) -> hoody_state::model::Snapshot {
    h.create_snapshot(&Caller::default(), c, NewSnapshot { alias: Some(alias.into()), ..Default::default() }).unwrap().snapshot
}

#[test]
fn an_alias_given_anew_finds_the_new_snapshot_and_deletes_neither_by_mistake() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    w.write(&c, "state", "old");
    aliased(&h, &c, "nightly");
    h.rename_snapshot(&me, &c, "nightly", Some("nightly-old".into())).unwrap();
    w.write(&c, "state", "new");
    let new = aliased(&h, &c, "nightly");
    assert_eq!(new.name.as_str(), "nightly-2");
    w.write(&c, "state", "broken");

    assert_eq!(h.snapshot(&c, "nightly").unwrap().snapshot.name, new.name);
    assert_eq!(h.restore(&me, &c, "nightly", RestoreOptions::default()).unwrap().snapshot.unwrap().name, new.name);
    assert_eq!(w.read(&c, "state").as_deref(), Some("new"));

    // In a list the old one has the canonical name `nightly`: whoever deletes by that name must not lose the new one, nor the other way round.
    for e in [
        h.delete_snapshot(&me, &c, "nightly").unwrap_err(),
        h.set_snapshot_expiry(&me, &c, "nightly", None).unwrap_err(),
        h.rename_snapshot(&me, &c, "nightly", None).unwrap_err(),
    ] {
        assert_eq!(e.code(), "snapshot_ambiguous");
        assert!(e.message().contains("nightly-2") && e.message().contains("nightly-old"), "{e}");
    }
    h.delete_snapshot(&me, &c, "nightly-2").unwrap();
    assert_eq!(h.snapshot(&c, "nightly").unwrap().snapshot.alias.unwrap().as_str(), "nightly-old");
    h.delete_snapshot(&me, &c, "nightly").unwrap();
    assert_clean(&h, "after snapshots of one name");
}

#[test]
fn aliases_that_reduce_to_one_canonical_name_find_their_own_snapshots() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let (dotted, plain) = (aliased(&h, &c, "v1.0"), aliased(&h, &c, "v10"));
    assert_ne!(dotted.name, plain.name);
    assert_eq!(h.snapshot(&c, "v1.0").unwrap().snapshot.name, dotted.name);
    assert_eq!(h.snapshot(&c, "v10").unwrap().snapshot.name, plain.name);
    // A canonical name is never made that another snapshot has as its alias.
    aliased(&h, &c, "x");
    h.rename_snapshot(&Caller::default(), &c, "x", Some("y".into())).unwrap();
    assert_eq!(aliased(&h, &c, ".y.").name.as_str(), "y-2");
}

#[test]
fn no_two_snapshots_show_one_name() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    let unnamed = h.create_snapshot(&me, &c, NewSnapshot::default()).unwrap().snapshot.name;
    let again = NewSnapshot { alias: Some(unnamed.to_string()), ..Default::default() };
    assert_eq!(h.create_snapshot(&me, &c, again).unwrap_err().code(), "alias_in_use");
    aliased(&h, &c, "a");
    h.rename_snapshot(&me, &c, "a", Some("b".into())).unwrap();
    aliased(&h, &c, "a");
    // Without its alias `b` it would be called `a`, as the second one is.
    assert_eq!(h.rename_snapshot(&me, &c, "b", None).unwrap_err().code(), "alias_in_use");
    assert_eq!(h.restore(&me, &c, "b", RestoreOptions { keep_current: Some(unnamed.to_string()), ..Default::default() }).unwrap_err().code(), "alias_in_use");
}

#[test]
fn an_undo_restores_its_own_snapshot_though_another_has_its_name_as_alias() {
    let w = MemoryWorld::new();
    let h = w.host();
    let me = Caller::default();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    aliased(&h, &c, "s");
    w.write(&c, "state", "overwritten");
    let undo = h.restore(&me, &c, "s", RestoreOptions::default()).unwrap().undo.unwrap();
    h.rename_snapshot(&me, &c, undo.as_str(), Some("kept".into())).unwrap();
    aliased(&h, &c, undo.as_str());
    h.undo(&me, &c).unwrap();
    assert_eq!(w.read(&c, "state").as_deref(), Some("overwritten"));
}

#[test]
fn a_name_that_is_the_id_of_another_revokes_neither() {
    let w = MemoryWorld::new();
    let h = w.host();
    let (first, _) = h.create_token("first", None, hoody_state::model::Rights::Full).unwrap();
    h.create_token(first.id.as_str(), None, hoody_state::model::Rights::Full).unwrap();
    assert_eq!(h.revoke_token(first.id.as_str()).unwrap_err().code(), "name_ambiguous");
    assert_eq!(h.tokens().unwrap().len(), 2);
}
