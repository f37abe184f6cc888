//! What is around a pool: no runtime, no room, somebody else's file system, another server.

use super::me;
use hoody_state::Code;
use hoody_state::model::{NewSnapshot, PageRequest, RestoreOptions, Status, Verb};
use hoody_state::units::Bytes;
use hoody_state::{Host, HostConfig};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, container, project, refused, scratch, snapshot, tiny_image};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn without_a_runtime_everything_except_starting_works() {
    let mut real = RealHost::new("h-norun");
    let p = project(real.host(), "p");
    let old = container(real.host(), &p, "old").unwrap();
    real.stop();
    real.config.runtime = Some("/nonexistent/runc".into());
    real.start();
    let h = real.host();
    assert_eq!(h.container(&old).unwrap().status, Status::Running, "it goes on");
    assert_eq!(h.probe_runtime().unwrap_err().code(), Code::RuntimeNotFound);
    let c = container(h, &p, "dev").unwrap();
    let seen = h.container(&c).unwrap();
    assert_eq!(seen.status, Status::Failed);
    let why = seen.status_message.unwrap();
    assert!(why.contains("/nonexistent/runc") && why.contains("install"), "{why}");
    assert_clean(h, "a container that could not boot");
    snapshot(h, &c, "s").unwrap();
    std::fs::write(real.live(&c).join("x"), "x").unwrap();
    h.restore(&me(), &c, "s", RestoreOptions::default()).unwrap();
    assert!(!real.live(&c).join("x").exists());
    assert_eq!(h.lifecycle(&me(), &c, Verb::Start, None).unwrap_err().code(), Code::RuntimeNotFound);
    assert_eq!(h.container(&c).unwrap().status, Status::Failed);
    let e = h.restore(&me(), &c, "s", RestoreOptions { start: Some(true), ..Default::default() }).unwrap_err();
    assert_eq!(e.code(), Code::RuntimeNotFound);
    // What runs can still be stopped, paused and snapshotted without it.
    for v in [Verb::Pause, Verb::Resume] {
        h.lifecycle(&me(), &old, v, None).unwrap();
    }
    snapshot(h, &old, "s").unwrap();
    h.lifecycle(&me(), &old, Verb::Stop, None).unwrap();
    h.delete_container(&me(), &old).unwrap();
    h.delete_container(&me(), &c).unwrap();
    at_rest(h);
    assert_clean(h, "without a runtime");
}

/// Writes until what is kept in reserve is all that is left.
fn fill(real: &RealHost, at: &std::path::Path) {
    let mut f = std::fs::File::create(at).unwrap();
    let mut block = vec![0u8; 4 << 20];
    let mut x = 1u64;
    while real.host().pool().unwrap().health == "ok" {
        for b in block.chunks_exact_mut(8) {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b.copy_from_slice(&x.to_le_bytes());
        }
        f.write_all(&block).unwrap();
        f.sync_all().unwrap();
    }
}

#[test]
fn a_full_pool_refuses_before_anything_changes_and_can_be_emptied() {
    let mut real = RealHost::sized("h-full", Bytes::mib(512));
    let h = real.host();
    let p = project(h, "p");
    let c = container(h, &p, "dev").unwrap();
    let big = container(h, &p, "big").unwrap();
    snapshot(h, &c, "s").unwrap();
    fill(&real, &real.live(&big).join("fill"));
    snapshot_refused(&real, &c, &p);
    // Even when not one byte more can be written.
    let mut last = std::fs::File::create(real.live(&big).join("last")).unwrap();
    while last.write_all(&[7; 65536]).and_then(|()| last.sync_all()).is_ok() {}
    drop(last);
    snapshot_refused(&real, &c, &p);
    // Nor can a server that starts now, and once more, write any more than that.
    for _ in 0..2 {
        real.stop();
        real.start();
        let mut last = std::fs::File::options().append(true).open(real.live(&big).join("last")).unwrap();
        while last.write_all(&[7; 4096]).and_then(|()| last.sync_all()).is_ok() {}
    }
    let h = real.host();
    snapshot_refused(&real, &c, &p);
    // What takes no room still works.
    h.rename_snapshot(&me(), &c, "s", Some("t".into())).unwrap();
    h.lifecycle(&me(), &c, Verb::Stop, None).unwrap();
    h.delete_snapshot(&me(), &c, "t").unwrap();
    h.delete_container(&me(), &big).unwrap();
    at_rest(h);
    let end = Instant::now() + Duration::from_secs(60);
    while h.pool().unwrap().health != "ok" || !h.pool().unwrap().reclaiming.is_empty() {
        assert!(Instant::now() < end, "the room does not come back: {:?}", h.pool().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    snapshot(h, &c, "again").unwrap();
    h.lifecycle(&me(), &c, Verb::Start, None).unwrap();
    h.restore(&me(), &c, "again", RestoreOptions::default()).unwrap();
    container(h, &p, "new").unwrap();
    h.import_image(&me(), "new", &mut &tiny_image()[..]).unwrap();
    assert_clean(h, "after a full pool");
}

fn snapshot_refused(real: &RealHost, c: &hoody_state::id::ContainerId, p: &hoody_state::id::ProjectId) {
    let h = real.host();
    refused(h, Code::PoolFull, || h.create_snapshot(&me(), c, NewSnapshot::default()));
    refused(h, Code::PoolFull, || h.restore(&me(), c, "s", RestoreOptions::default()));
    refused(h, Code::PoolFull, || container(h, p, "more"));
    refused(h, Code::PoolFull, || h.import_image(&me(), "more", &mut &tiny_image()[..]));
    refused(h, Code::PoolFull, || h.image_from_snapshot(&me(), "more", c, "s"));
}

struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_system_that_is_not_ours_is_left_alone() {
    let dir = Removed(scratch("h-foreign"));
    for (n, mkfs) in [vec!["mkfs.ext4", "-q", "-F"], vec!["mkfs.btrfs", "-q", "-f"], vec!["mkswap"]].into_iter().enumerate() {
        let config = HostConfig::new(dir.0.join(format!("data{n}")), dir.0.join(format!("run{n}")));
        std::fs::create_dir_all(&config.data).unwrap();
        let image = config.data.join("pool.img");
        std::fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
        let made = Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image).output().unwrap();
        assert!(made.status.success(), "{mkfs:?}: {}", String::from_utf8_lossy(&made.stderr));
        let sum = || Command::new("sha256sum").arg(&image).output().unwrap().stdout;
        let before = sum();
        let e = Host::open(&config).err().expect(mkfs[0]);
        assert_eq!(e.code(), Code::PoolForeign, "{mkfs:?}: {e}");
        assert!(e.message().contains("pool.img"), "{e}");
        assert_eq!(sum(), before, "{mkfs:?}: it was written to");
        let left = hoody_state::mountinfo::of_this_process().unwrap();
        assert!(!left.iter().any(|m| m.at.starts_with(&config.run)), "a mount is left");
    }
    let loops = String::from_utf8(Command::new("losetup").arg("-a").output().unwrap().stdout).unwrap();
    assert!(!loops.contains("h-foreign"), "a loop device is left: {loops}");
}

#[test]
fn one_server_per_data_directory_and_two_pools_side_by_side() {
    let one = RealHost::new("h-one");
    let e = Host::open(&one.config).err().unwrap();
    assert_eq!(e.code(), Code::DataInUse);
    assert_eq!(Host::unmount(&one.config).unwrap_err().code(), Code::DataInUse);
    // Another run directory does not help.
    let elsewhere = HostConfig { run: one.dir.join("other-run"), ..one.config.clone() };
    assert_eq!(Host::open(&elsewhere).err().unwrap().code(), Code::DataInUse);
    let two = RealHost::new("h-two");
    // Nor does another's: the mount point is taken.
    let third = Removed(scratch("h-third"));
    let crossed = HostConfig { data: third.0.join("data"), run: one.config.run.clone(), ..one.config.clone() };
    assert_eq!(Host::open(&crossed).err().unwrap().code(), Code::MountPointInUse);
    let (p1, p2) = (project(one.host(), "p"), project(two.host(), "p"));
    let (c1, c2) = (container(one.host(), &p1, "dev").unwrap(), container(two.host(), &p2, "dev").unwrap());
    one.sh(&c1, "echo one > /which");
    two.sh(&c2, "echo two > /which");
    assert_eq!(one.host().container(&c2).unwrap_err().code(), Code::ContainerNotFound);
    assert_eq!((one.sh(&c1, "cat /which"), two.sh(&c2, "cat /which")), ("one\n".into(), "two\n".into()));
    assert_clean(one.host(), "one of two");
    assert_clean(two.host(), "two of two");
    drop(one);
    assert_eq!(two.sh(&c2, "cat /which"), "two\n", "taking one down leaves the other");
    assert_eq!(two.host().containers(&PageRequest::first(), None, None).unwrap().rows.len(), 1);
    assert_clean(two.host(), "the one that is left");
}
