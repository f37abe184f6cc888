//! Snapshots at events: a stop, lack of memory, a restore, a command that fails.

use crate::{crash_at_each_step, eventually, of_trigger, policy, stage};
use hoody_state::model::{EventFilter, ExecRecord, ExecSnapshot, RestoreOptions, Status, Trigger, Verb};
use hoody_state::runtime::ExecSpec;
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{assert_clean, snapshot};

const STOP: &str = r#"{"stop":{"max_age":"6h","keep":2}}"#;

fn lifecycle(host: &Host, c: &hoody_state::id::ContainerId, verb: Verb) {
    host.lifecycle(&Caller::default(), c, verb, None).unwrap();
}

fn run(host: &Host, c: &hoody_state::id::ContainerId, command: &[&str]) {
    let spec = ExecSpec { command: command.iter().map(|s| (*s).to_owned()).collect(), output_limit: 100, ..ExecSpec::default() };
    host.exec(c, &spec).unwrap();
}

fn skipped(host: &Host) -> Vec<hoody_state::model::Event> {
    let filter = EventFilter { event_type: Some("container.snapshot.skipped".into()), ..EventFilter::default() };
    host.events(&filter).unwrap().0
}

#[test]
fn a_stop_is_kept_with_an_age_and_a_number() {
    let (w, host, c) = stage(STOP);
    for n in 0..4 {
        w.write(&c, "n", &n.to_string());
        lifecycle(&host, &c, Verb::Stop);
        lifecycle(&host, &c, Verb::Start);
    }
    let kept = of_trigger(&host, &c, Trigger::Stop);
    assert_eq!(kept.len(), 2, "{kept:?}");
    for s in &kept {
        assert_eq!(s.expires_at.unwrap().duration_since(s.created_at).as_hours(), 6);
    }
    let content = w.store.read(&hoody_state::snapshot::Volume::Snapshot(c.clone(), kept[0].name.clone()), "n").unwrap();
    assert_eq!(content.as_deref(), Some(&b"3"[..]), "the newest are kept");
    lifecycle(&host, &c, Verb::Restart);
    lifecycle(&host, &c, Verb::ForceStop);
    assert_eq!(of_trigger(&host, &c, Trigger::Stop)[0].name, kept[0].name, "neither a restart nor a kill is an orderly stop");
    assert_clean(&host, "stopped");
}

#[test]
fn without_a_policy_nothing_is_taken() {
    let (w, host, c) = stage("{}");
    lifecycle(&host, &c, Verb::Stop);
    lifecycle(&host, &c, Verb::Start);
    w.runtime.use_up_memory(&c);
    run(&host, &c, &["false"]);
    w.runtime.crash(&c, 1);
    eventually("the end of init", || host.container(&c).unwrap().status == Status::Stopped);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(host.snapshots(&c).unwrap().snapshot_count, 1);
}

#[test]
fn an_init_that_ends_by_itself_is_a_stop() {
    let (w, host, c) = stage(STOP);
    w.runtime.crash(&c, 3);
    eventually("the snapshot", || of_trigger(&host, &c, Trigger::Stop).len() == 1);
    lifecycle(&host, &c, Verb::Start);
    lifecycle(&host, &c, Verb::Stop);
    assert_eq!(of_trigger(&host, &c, Trigger::Stop).len(), 2);
}

#[test]
fn lack_of_memory_in_a_loop_makes_one_snapshot() {
    let (w, host, c) = stage(r#"{"oom":true}"#);
    for _ in 0..50 {
        w.runtime.use_up_memory(&c);
    }
    eventually("the snapshot", || of_trigger(&host, &c, Trigger::Oom).len() == 1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let kept = of_trigger(&host, &c, Trigger::Oom);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].expires_at.unwrap().duration_since(kept[0].created_at).as_hours(), 30 * 24);
    assert_eq!(host.container(&c).unwrap().status, Status::Running);
}

#[test]
fn a_command_that_fails_is_kept_once_a_minute() {
    let (_w, host, c) = stage(r#"{"exec_failure":true}"#);
    run(&host, &c, &["true"]);
    assert!(of_trigger(&host, &c, Trigger::ExecFailure).is_empty());
    run(&host, &c, &["false", "with", "arguments"]);
    let kept = of_trigger(&host, &c, Trigger::ExecFailure);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].description.as_deref(), Some("taken after the command false with arguments failed with exit code 1"));
    run(&host, &c, &["false"]);
    assert_eq!(of_trigger(&host, &c, Trigger::ExecFailure).len(), 1);
}

#[test]
fn what_is_undone_after_a_failure_is_in_the_undo_snapshot_alone() {
    let (_w, host, c) = stage(r#"{"exec_failure":true,"restore":{"max_age":"48h"}}"#);
    let spec = ExecSpec { command: vec!["false".into()], output_limit: 100, ..ExecSpec::default() };
    let record = ExecRecord { snapshot: Some(ExecSnapshot::OnFailureUndo), ..ExecRecord::default() };
    let done = host.exec_recorded(&Caller::default(), &c, &spec, &record).unwrap();
    assert!(done.undone.is_some());
    assert!(of_trigger(&host, &c, Trigger::ExecFailure).is_empty());
    let undo = of_trigger(&host, &c, Trigger::Restore);
    let kept = undo[0].expires_at.unwrap().duration_since(undo[0].created_at);
    assert!((kept.as_secs() - 48 * 3600).abs() < 60, "the policy says how long it is kept: {kept:#}");
}

#[test]
fn a_full_pool_keeps_nothing_from_stopping() {
    let (w, host, c) = stage(r#"{"stop":true,"exec_failure":true}"#);
    w.store.set_capacity(Bytes(1));
    run(&host, &c, &["false"]);
    lifecycle(&host, &c, Verb::Stop);
    assert_eq!(host.container(&c).unwrap().status, Status::Stopped);
    assert_eq!(host.snapshots(&c).unwrap().snapshot_count, 1);
    let said = skipped(&host);
    let triggers: Vec<&str> = said.iter().map(|e| e.payload["trigger"].as_str().unwrap()).collect();
    assert_eq!((triggers, said[0].payload["error"].as_str()), (vec!["stop", "exec_failure"], Some("pool_full")));
    w.store.set_capacity(Bytes::gib(1));
    lifecycle(&host, &c, Verb::Start);
    assert_clean(&host, "after a full pool");
}

#[test]
fn pinned_ones_stay_and_others_have_limits_of_their_own() {
    let (w, host, c) = stage(r#"{"stop":{"keep":1}}"#);
    lifecycle(&host, &c, Verb::Stop);
    let first = of_trigger(&host, &c, Trigger::Stop)[0].name.clone();
    host.pin_snapshot(&Caller::default(), &c, first.as_str(), Some("evidence".into())).unwrap();
    for _ in 0..2 {
        lifecycle(&host, &c, Verb::Start);
        lifecycle(&host, &c, Verb::Stop);
    }
    assert_eq!(of_trigger(&host, &c, Trigger::Stop).len(), 2, "the pinned one, and the newest");
    host.restore(&Caller::default(), &c, "before", RestoreOptions::default()).unwrap();
    policy(&w, &c, "{}");
    assert_eq!(of_trigger(&host, &c, Trigger::Restore).len(), 1);
    assert!(host.snapshot(&c, "before").is_ok());
}

#[test]
fn crashes_during_a_stop_with_a_snapshot() {
    crash_at_each_step(
        "container.stop with a snapshot",
        STOP,
        |_, _, _| {},
        |_, h, c| h.lifecycle(&Caller::default(), c, Verb::Stop, None).map(drop),
        |_, h, c, acknowledged| {
            let (status, kept) = (h.container(c).unwrap().status, of_trigger(h, c, Trigger::Stop).len());
            match status {
                Status::Stopped => assert_eq!(kept, 1, "one snapshot for one stop"),
                Status::Running => assert!(kept == 0 && !acknowledged, "before the intent"),
                other => panic!("it is {other}"),
            }
            snapshot(h, c, "afterwards").unwrap();
        },
    );
}
