use super::{container, real};
use hoody_state::Caller;
use hoody_state::model::{ContainerUpdate, RamdiskScope, Status, Verb};
use hoody_state::units::Bytes;
use hoody_state_workspace::{assert_clean, project};

#[test]
fn a_ram_disk_is_charged_to_its_container_before_and_after_a_restart() {
    let real = real("charged");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let c = container(&real, &p, "dev", |n| n.memory = Some(96));
    let used = || real.host().stats(&c).unwrap();
    assert_eq!(used().ramdisk.usage.unwrap().private, Bytes(0));
    assert_eq!(used().ramdisk.shared_pool_maximum, Some(Bytes::mib(96)), "no more than the container may have");
    real.sh(&c, "head -c 33554432 /dev/urandom > /ramdisk/f");
    let before = used();
    assert!(before.ramdisk.usage.unwrap().private >= Bytes::mib(32));
    assert!(before.memory.unwrap().usage >= Bytes::mib(32), "{before:?}");
    real.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    let after = used();
    assert!(after.ramdisk.usage.unwrap().private >= Bytes::mib(32));
    assert!(after.memory.unwrap().usage >= Bytes::mib(32), "{after:?}");
    real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
    assert!(used().memory.unwrap().usage >= Bytes::mib(32), "also while it does not run");
    real.host().lifecycle(&me, &c, Verb::Start, None).unwrap();
    // Filling it ends in an error or a kill in the container, and nowhere else.
    let spec = hoody_state::runtime::ExecSpec {
        command: ["sh", "-c", "cat /dev/zero > /ramdisk/g"].map(String::from).to_vec(),
        output_limit: 4096,
        ..Default::default()
    };
    let out = real.host().exec(&c, &spec);
    assert!(out.is_err() || out.unwrap().exit_code != 0);
    let b = container(&real, &p, "neighbour", |_| {});
    assert_eq!(real.sh(&b, "echo fine"), "fine\n");
    assert!(matches!(real.host().container(&c).unwrap().status, Status::Running | Status::Stopped));
    assert_clean(real.host(), "after a RAM disk was filled");
}

#[test]
fn a_ram_disk_can_be_switched_off_and_a_project_has_one() {
    let real = real("scopes");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let a = container(&real, &p, "a", |n| n.ramdisk_scope = Some(RamdiskScope::Project));
    let b = container(&real, &p, "b", |n| n.ramdisk_scope = Some(RamdiskScope::Project));
    let none = container(&real, &p, "none", |n| n.ramdisk = Some(false));
    real.sh(&a, "echo both > /ramdisk/project/f; echo own > /ramdisk/f");
    assert_eq!(real.sh(&b, "cat /ramdisk/project/f; ls /ramdisk"), "both\nproject\n");
    assert_eq!(real.sh(&none, "grep -c ' /ramdisk ' /proc/mounts; true"), "0\n");
    assert!(real.host().stats(&none).unwrap().ramdisk.usage.is_none());
    assert!(real.host().stats(&a).unwrap().ramdisk.usage.unwrap().project.unwrap() > Bytes(0));
    real.host().update_container(&me, &a, ContainerUpdate { ramdisk: Some(false), ..Default::default() }).unwrap();
    assert_eq!(real.sh(&a, "cat /ramdisk/f"), "own\n", "from the next start on");
    real.host().lifecycle(&me, &a, Verb::Restart, None).unwrap();
    assert_eq!(real.sh(&a, "ls -A /ramdisk"), "");
    assert_clean(real.host(), "with RAM disks of all sorts");
}

#[test]
fn what_is_in_memory_is_in_no_snapshot() {
    let real = real("nosnap");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo secret > /ramdisk/f");
    hoody_state_workspace::snapshot(real.host(), &c, "s").unwrap();
    let kept = real.config.run.join("pool/containers").join(c.as_str()).join("snapshots/s/ramdisk");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
}
