//! Snapshots at events and the trash, with real containers.

use super::{attempt, container, eventually, real};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{DatabaseScope, NewSnapshot, PageRequest, PolicyTarget, RecoverRequest, ShareMode, Snapshot, SnapshotPolicy, Status, Trigger, Verb};
use hoody_state_workspace::{RealHost, assert_clean, project};

fn policy(real: &RealHost, c: &ContainerId, on: &str) {
    let policy: SnapshotPolicy = serde_json::from_str(&format!(r#"{{"on":{on}}}"#)).unwrap();
    real.host().set_snapshot_policy(&Caller::default(), &PolicyTarget::Container(c.clone()), &policy).unwrap();
}

fn of_trigger(real: &RealHost, c: &ContainerId, trigger: Trigger) -> Vec<Snapshot> {
    real.host().snapshots(c).unwrap().snapshots.into_iter().filter(|s| s.trigger == trigger).collect()
}

#[test]
fn the_kernel_says_that_memory_was_used_up_while_the_container_runs_on() {
    let real = real("auto-oom");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |new| new.memory = Some(24));
    let quiet = container(&real, &p, "quiet", |_| {});
    policy(&real, &c, r#"{"oom":{"max_age":"2h","keep":2},"stop":true}"#);
    policy(&real, &quiet, r#"{"oom":true}"#);
    real.sh(&c, "echo evidence > /root/f");
    let killed = attempt(&real, &c, "dd if=/dev/zero of=/dev/null bs=256M count=1");
    assert_eq!(killed.exit_code, 137, "{:?}", String::from_utf8_lossy(&killed.stderr));
    eventually("the snapshot", || of_trigger(&real, &c, Trigger::Oom).len() == 1);
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running, "only a process of it was killed");
    for _ in 0..3 {
        attempt(&real, &c, "dd if=/dev/zero of=/dev/null bs=256M count=1");
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let kept = of_trigger(&real, &c, Trigger::Oom);
    assert_eq!(kept.len(), 1, "a loop makes no hundreds");
    assert_eq!(kept[0].expires_at.unwrap().duration_since(kept[0].created_at).as_hours(), 2);
    assert!(of_trigger(&real, &quiet, Trigger::Oom).is_empty(), "another container's memory is no matter of this one");
    real.host().lifecycle(&Caller::default(), &c, Verb::Stop, None).unwrap();
    assert_eq!(of_trigger(&real, &c, Trigger::Stop).len(), 1);
    real.host().restore(&Caller::default(), &c, kept[0].name.as_str(), Default::default()).unwrap();
    real.host().lifecycle(&Caller::default(), &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "cat /root/f"), "evidence\n");
    assert_clean(real.host(), "after a lack of memory");
}

#[test]
fn a_deleted_container_comes_back_with_its_databases_and_nested_volumes() {
    let real = real("auto-trash");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |new| new.databases = Some(DatabaseScope::Private));
    let other = container(&real, &p, "other", |_| {});
    policy(&real, &c, r#"{"before_delete":{"max_age":"7d"}}"#);
    real.sh(&c, "echo one > /root/f; echo rows > /hoody/databases/list; mkdir -p /hoody/storage/docs");
    super::share(&real, &c, "/hoody/storage/docs", &other, ShareMode::Readonly);
    real.host().create_snapshot(&Caller::default(), &c, NewSnapshot { alias: Some("one".into()), ..Default::default() }).unwrap();
    real.sh(&c, "echo two > /root/f");
    real.host().delete_container(&Caller::default(), &c).unwrap();
    eventually("its place in the trash", || real.host().trash(&PageRequest::first(), None).unwrap().containers.len() == 1);
    assert!(real.host().container(&c).is_err());
    let second = container(&real, &p, "dev", |_| {});
    assert_clean(real.host(), "with a container in the trash");

    let back = real.host().recover_trashed(&Caller::default(), &c, RecoverRequest { name: Some("rescued".into()), project_id: None }).unwrap();
    assert_eq!((back.container.status, back.snapshot_count), (Status::Stopped, 1));
    assert!(back.not_recovered.iter().any(|l| l.contains("share")), "{:?}", back.not_recovered);
    real.host().lifecycle(&Caller::default(), &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "cat /root/f /hoody/databases/list"), "two\nrows\n");
    real.host().restore(&Caller::default(), &c, "one", Default::default()).unwrap();
    assert_eq!(real.sh(&c, "cat /root/f"), "one\n");
    assert_clean(real.host(), "recovered");

    // For good, this time.
    real.host().delete_container(&Caller::default(), &c).unwrap();
    eventually("its place in the trash", || real.host().trashed(&c).is_ok());
    real.host().delete_trashed(&Caller::default(), &c).unwrap();
    eventually("its end", || real.host().pool().unwrap().reclaiming.is_empty() && real.host().running_operations().unwrap() == 0);
    assert!(std::fs::read_dir(real.config.run.join("pool/trash")).unwrap().next().is_none(), "nothing is left of it");
    assert!(real.host().container(&second).is_ok());
    assert_clean(real.host(), "deleted for good");
}
