//! Commands with a snapshot before them, and with an undo if they fail.

use super::{container, real};
use hoody_state::host::Executed;
use hoody_state::id::ContainerId;
use hoody_state::model::{DatabasesChoice, ExecRecord, ExecSnapshot, Status, Verb};
use hoody_state::runtime::{Cancel, ExecSpec};
use hoody_state::{Caller, Code, Result};
use hoody_state_workspace::worker::{import, line};
use hoody_state_workspace::{RealHost, assert_clean, project};
use std::time::Duration;

fn spec(line: &str) -> ExecSpec {
    let timeout = Some(Duration::from_secs(120));
    ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), line.into()], output_limit: 1 << 20, timeout, ..Default::default() }
}

fn run(real: &RealHost, c: &ContainerId, line: &str, snapshot: ExecSnapshot) -> Result<Executed> {
    let record = ExecRecord { snapshot: Some(snapshot), ..Default::default() };
    real.host().exec_recorded(&Caller::default(), c, &spec(line), &record)
}

fn snapshots(real: &RealHost, c: &ContainerId) -> usize {
    real.host().snapshots(c).unwrap().snapshots.len()
}

#[test]
fn a_command_that_fails_is_undone_and_one_that_does_not_is_kept() {
    let real = real("exec");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo good > /root/f");

    let kept = run(&real, &c, "echo better > /root/f", ExecSnapshot::OnFailureUndo).unwrap();
    assert_eq!((kept.output.exit_code, kept.undone), (0, None));
    assert_eq!(real.sh(&c, "cat /root/f"), "better\n");

    let failed = run(&real, &c, "echo said; echo bad > /root/f; rm -rf /etc; exit 7", ExecSnapshot::OnFailureUndo).unwrap();
    assert_eq!((failed.output.exit_code, failed.output.stdout.as_slice()), (7, b"said\n".as_slice()));
    let undone = failed.undone.expect("it was undone");
    assert_eq!(undone.snapshot.unwrap().name, failed.snapshot.unwrap().name);
    assert_eq!(real.sh(&c, "cat /root/f; ls /etc/passwd"), "better\n/etc/passwd\n");
    // What the command left is kept.
    real.host().undo(&Caller::default(), &c).unwrap();
    assert_eq!(real.sh(&c, "cat /root/f"), "bad\n");

    let before = run(&real, &c, "exit 3", ExecSnapshot::Before).unwrap();
    assert_eq!((before.output.exit_code, before.undone), (3, None));
    let snapshot = before.snapshot.unwrap();
    assert!(snapshot.description.unwrap().contains("exit 3") && snapshot.expires_at.is_some());
    assert_clean(real.host(), "after commands");
}

#[test]
fn the_answer_to_a_command_says_what_it_changed() {
    let real = real("exec-diff");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo old > /root/changed; echo gone > /root/gone; echo same > /root/same");
    let (host, me) = (real.host(), Caller::default());
    let run = |line: &str, snapshot| host.exec_recorded(&me, &c, &spec(line), &ExecRecord { snapshot, diff: true, ..Default::default() }).unwrap();
    let seen = |done: &Executed| -> Vec<String> {
        let diff = done.diff.as_ref().unwrap().as_ref().unwrap();
        assert_eq!((diff.summary.records, diff.summary.next_cursor.as_ref()), (diff.records.len() as u64, None));
        diff.records.iter().map(|r| format!("{} {}", serde_json::to_value(r.kind).unwrap().as_str().unwrap(), r.path)).collect()
    };
    let line = "echo new >> /root/changed; rm /root/gone; echo x > /root/added; exit 1";
    let wanted = ["added /root/added", "modified /root/changed", "deleted /root/gone"];

    let undone = run(line, Some(ExecSnapshot::OnFailureUndo));
    assert_eq!(seen(&undone), wanted);
    assert!(undone.undone.is_some());
    assert_eq!(real.sh(&c, "ls /root"), "changed\ngone\nsame\n");

    let had = snapshots(&real, &c);
    let plain = run(line, None);
    assert_eq!(seen(&plain), wanted);
    assert_eq!((plain.snapshot, snapshots(&real, &c)), (None, had), "the state before is not kept");
    assert_eq!(seen(&run("true", Some(ExecSnapshot::Before))), [""; 0]);
    assert_clean(host, "after commands with a diff");
}

#[test]
fn a_command_that_is_cut_short_is_undone() {
    let real = real("exec-cut");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    let record = ExecRecord { snapshot: Some(ExecSnapshot::OnFailureUndo), ..Default::default() };
    let (host, me) = (real.host(), Caller::default());

    let slow = ExecSpec { timeout: Some(Duration::from_millis(300)), ..spec("echo bad > /root/f; sleep 60") };
    let out = host.exec_recorded(&me, &c, &slow, &record).unwrap();
    assert!(out.output.timed_out && out.undone.is_some());
    assert_eq!(real.sh(&c, "ls /root"), "");

    let cancel = Cancel::new().unwrap();
    let spec = ExecSpec { cancel: Some(cancel.clone()), ..spec("echo bad > /root/f; sleep 60") };
    let error = std::thread::scope(|s| {
        let running = s.spawn(|| host.exec_recorded(&me, &c, &spec, &record));
        super::eventually("the command", || real.live(&c).join("root/f").exists());
        cancel.cancel();
        running.join().unwrap().unwrap_err()
    });
    assert_eq!(error.code(), Code::ExecCancelled);
    assert_eq!(real.sh(&c, "ls /root"), "");
    assert_clean(host, "after commands that were cut short");
}

#[test]
fn a_command_that_cannot_run_or_be_undone_leaves_no_snapshot() {
    let real = real("exec-refused");
    import(&real);
    let p = project(real.host(), "web");
    let worker = |n: &mut hoody_state::model::NewContainer| n.container_image = Some("worker".into());
    let (c, other) = (container(&real, &p, "dev", worker), container(&real, &p, "other", worker));
    real.sh(&c, &line("init /hoody/databases/data.db"));
    let me = Caller::default();
    let refused = run(&real, &c, "echo bad > /root/f", ExecSnapshot::OnFailureUndo).unwrap_err();
    assert_eq!((refused.code(), snapshots(&real, &c)), (Code::DatabasesShared, 0), "{refused}");
    assert!(refused.message().contains("nothing was changed"), "{refused}");
    assert_eq!(real.sh(&c, "ls /root"), "");
    let keep = ExecRecord { snapshot: Some(ExecSnapshot::OnFailureUndo), databases: Some(DatabasesChoice::Keep), diff: false };
    assert!(real.host().exec_recorded(&me, &c, &spec("exit 1"), &keep).unwrap().undone.is_some());
    let had = snapshots(&real, &c);
    let nothing = ExecSpec { cwd: Some("/no/such/directory".into()), ..spec("true") };
    let error = real.host().exec_recorded(&me, &c, &nothing, &keep).unwrap_err();
    assert_eq!((error.code(), snapshots(&real, &c)), (Code::WorkingDirectoryNotFound, had));
    real.host().lifecycle(&me, &c, Verb::Stop, None).unwrap();
    let error = run(&real, &c, "true", ExecSnapshot::Before).unwrap_err();
    assert_eq!((error.code(), snapshots(&real, &c)), (Code::ContainerNotRunning, had));
    assert_eq!(real.host().container(&other).unwrap().status, Status::Running);
    assert_clean(real.host(), "after refusals");
}
