//! The main job on a real pool with real containers: needs root, BTRFS, a loop device, runc and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::Code;
use hoody_state::model::{NewContainer, RestoreOptions, Status, Verb};
use hoody_state::{Caller, Kind};
use hoody_state_workspace::{RealHost, assert_clean, container, fingerprint, project, snapshot};
use std::time::{Duration, Instant};

#[test]
fn an_agent_ruins_the_system_and_one_call_brings_it_back() {
    let real = RealHost::new("story");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running);
    real.sh(&c, "mkdir -p /hoody/storage/work && echo precious > /hoody/storage/work/notes && echo 1 > /etc/marker");
    let s = snapshot(real.host(), &c, "pre-auth-refactor").unwrap();
    assert_eq!(s.name.as_str(), "pre-auth-refactor");
    let before = fingerprint(&real.config.run.join("pool/containers").join(c.as_str()).join("snapshots/pre-auth-refactor"));
    real.sh(&c, "rm -rf /usr/lib /usr/share /etc/* /hoody/storage/work; echo agent > /oops");
    let began = Instant::now();
    let out = real.host().restore(&Caller::default(), &c, "pre-auth-refactor", RestoreOptions::default()).unwrap();
    let took = began.elapsed();
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running);
    assert_eq!(real.sh(&c, "cat /hoody/storage/work/notes /etc/marker"), "precious\n1\n");
    let undo = out.undo.unwrap();
    let ruined = fingerprint(&real.config.run.join("pool/containers").join(c.as_str()).join("snapshots").join(undo.as_str()));
    assert!(ruined.contains_key(std::path::Path::new("oops")), "the ruined state is kept for forensics");
    assert!(!ruined.contains_key(std::path::Path::new("usr/lib")));
    let after = fingerprint(&real.config.run.join("pool/containers").join(c.as_str()).join("snapshots/pre-auth-refactor"));
    assert_eq!(before, after, "the snapshot itself is untouched");
    assert_clean(real.host(), "after the story");
    println!("restore of a running container until its init ran: {took:?}");
    // And the undo of the undo.
    real.host().undo(&Caller::default(), &c).unwrap();
    assert_eq!(real.sh(&c, "cat /oops"), "agent\n");
}

#[test]
fn every_byte_of_a_stopped_container_is_as_before() {
    let real = RealHost::new("bytes");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    real.sh(&c, "i=0; while [ $i -lt 50 ]; do head -c 5000 /dev/urandom > /hoody/storage/f$i; i=$((i+1)); done; chmod 4755 /hoody/storage/f1; ln -s /etc /hoody/storage/link");
    real.host().lifecycle(&Caller::default(), &c, Verb::ForceStop, None).unwrap();
    let before = fingerprint(&real.live(&c));
    snapshot(real.host(), &c, "s").unwrap();
    std::fs::remove_dir_all(real.live(&c).join("usr")).unwrap();
    let r = real.host().restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap();
    assert!(r.success);
    assert_eq!(fingerprint(&real.live(&c)), before);
    assert_eq!(real.host().container(&c).unwrap().status, Status::Stopped, "a container that was stopped stays stopped");
    assert_clean(real.host(), "after a restore of a stopped container");
}

#[test]
fn a_restart_of_the_server_disturbs_no_container_and_a_reboot_starts_them_again() {
    let mut real = RealHost::new("restart");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    let paused = container(real.host(), &p, "paused").unwrap();
    real.host().lifecycle(&Caller::default(), &paused, Verb::Pause, None).unwrap();
    real.sh(&c, "touch /tmp/alive; (while :; do sleep 1; done) & echo $! > /tmp/pid");
    let pid = real.sh(&c, "cat /tmp/pid");
    real.stop();
    real.start();
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running);
    assert_eq!(real.host().container(&paused).unwrap().status, Status::Paused);
    real.sh(&c, &format!("kill -0 {pid}"));
    real.host().lifecycle(&Caller::default(), &paused, Verb::Resume, None).unwrap();
    assert_clean(real.host(), "after a restart of the server");
    // The same as a reboot, for everything but the kernel's own memory.
    real.stop();
    hoody_state::Host::unmount(&real.config).unwrap();
    real.start();
    let end = Instant::now() + Duration::from_secs(10);
    while real.host().container(&c).unwrap().status != Status::Running && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running);
    assert_eq!(real.sh(&c, "cat /tmp/pid"), pid, "the disk is as it was");
    for o in real.host().operations(&hoody_state::model::PageRequest::first()).unwrap().rows {
        real.host().wait_operation(&o.id, Duration::from_secs(10)).unwrap();
    }
    assert_clean(real.host(), "after a reboot");
}

#[test]
fn an_init_that_ends_is_noticed_with_its_code() {
    let real = RealHost::new("exit");
    let p = project(real.host(), "web");
    let new = NewContainer {
        name: Some("short".into()),
        command: Some(vec!["/bin/sh".into(), "-c".into(), "echo bye; sleep 0.3; exit 7".into()]),
        ..Default::default()
    };
    let c = real.host().create_container(&Caller::default(), &p, new).unwrap().id;
    let end = Instant::now() + Duration::from_secs(10);
    while real.host().container(&c).unwrap().status != Status::Stopped && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = real.host().status_logs(&c, &hoody_state::model::PageRequest::first()).unwrap().rows;
    assert_eq!(log[0].to_status, Status::Stopped, "{log:#?}");
    assert_eq!(log[0].metadata.as_ref().unwrap()["exit_code"], 7);
    assert_eq!(String::from_utf8_lossy(&real.host().console(&c, None).unwrap()), "bye\n");
    let e = real.host().exec(&c, &hoody_state::runtime::ExecSpec { command: vec!["/bin/true".into()], ..Default::default() }).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Conflict, Code::ContainerNotRunning));
}

#[test]
fn blocks_a_b_c_then_b_again_are_four_blocks_on_disk() {
    let real = RealHost::new("seed");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    const BLOCK: u64 = 1 << 20;
    for b in ["a", "b", "c"] {
        real.sh(&c, &format!("head -c {BLOCK} /dev/urandom > /hoody/storage/{b}"));
    }
    let one = snapshot(real.host(), &c, "one").unwrap();
    real.sh(&c, &format!("head -c {BLOCK} /dev/urandom > /hoody/storage/b"));
    let two = snapshot(real.host(), &c, "two").unwrap();
    // The first start had written /etc/hostname.
    let name = "dev\n".len() as u64;
    assert_eq!((one.size.0, two.size.0), (3 * BLOCK + name, BLOCK), "3 and 1, not 3 and 3");
    let usage = real.host().usage(&c).unwrap();
    assert_eq!(usage.total.0, 4 * BLOCK + name);
    assert_eq!(usage.live.exclusive.0, 0);
    // A deleted snapshot's blocks that its successor still holds become the successor's.
    real.host().delete_snapshot(&Caller::default(), &c, "one").unwrap();
    assert_eq!(real.host().snapshot(&c, "two").unwrap().snapshot.size.0, 3 * BLOCK + name);
}

#[test]
fn nested_subvolumes_are_snapshotted_restored_and_deleted_with_their_volume() {
    let real = RealHost::new("nested");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    let sub = real.live(&c).join("hoody/storage/sub");
    let made = std::process::Command::new("btrfs").args(["subvolume", "create"]).arg(&sub).output().expect("btrfs-progs");
    assert!(made.status.success());
    std::fs::write(sub.join("file"), "nested").unwrap();
    snapshot(real.host(), &c, "s").unwrap();
    assert_eq!(real.host().container(&c).unwrap().status, Status::Running);
    std::fs::write(sub.join("file"), "changed").unwrap();
    real.host().restore(&Caller::default(), &c, "s", RestoreOptions::default()).unwrap();
    assert_eq!(std::fs::read_to_string(sub.join("file")).unwrap(), "nested");
    std::fs::write(sub.join("file"), "writable again").unwrap();
    real.host().delete_container(&Caller::default(), &c).unwrap();
    for o in real.host().operations(&hoody_state::model::PageRequest::first()).unwrap().rows {
        real.host().wait_operation(&o.id, Duration::from_secs(20)).unwrap();
    }
    assert!(real.host().container(&c).is_err());
    assert_clean(real.host(), "after a delete with nested volumes");
}

#[test]
fn check_finds_nothing_after_an_unmount_and_a_host_that_has_just_closed_can_be_unmounted() {
    let mut real = RealHost::new("unmounted");
    let p = project(real.host(), "web");
    let c = container(real.host(), &p, "dev").unwrap();
    snapshot(real.host(), &c, "s").unwrap();
    real.host().delete_snapshot(&Caller::default(), &c, "s").unwrap();
    real.stop();
    hoody_state::Host::unmount(&real.config).unwrap();
    let found = hoody_state::Host::check_pool(&real.config, false).unwrap();
    assert!(found.is_empty(), "{found:?}");
    real.start();
}
