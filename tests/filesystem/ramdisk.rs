use super::{container, real};
use hoody_state::Caller;
use hoody_state::model::{ContainerUpdate, RamdiskScope, Status, Verb};
use hoody_state::units::Bytes;
use hoody_state_workspace::{assert_clean, project};
use std::time::Duration;

/// How long a command may try to fill a RAM disk. It ends in an error, is killed, or waits for memory that the kernel does not find.
const FILLING: Duration = Duration::from_secs(20);

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
        timeout: Some(FILLING),
        ..Default::default()
    };
    let out = real.host().exec(&c, &spec);
    assert!(out.is_err() || out.is_ok_and(|o| o.timed_out || o.exit_code != 0));
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
fn a_ram_disk_is_in_no_snapshot() {
    let real = real("nosnap");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo secret > /ramdisk/f");
    hoody_state_workspace::snapshot(real.host(), &c, "s").unwrap();
    let kept = real.config.run.join("pool/containers").join(c.as_str()).join("snapshots/s/ramdisk");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
}

/// RAM disks of containers without limits are half of the memory each: together they must not be all of it.
#[test]
fn containers_together_leave_memory_to_the_host() {
    let real = real("together");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (a, b) = (container(&real, &p, "a", |_| {}), container(&real, &p, "b", |_| {}));
    let (file, host) = (limit_of_all(&real, &a), host_memory());
    let all: u64 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(all < host && all >= host / 2, "{all} of {host}");
    let most = real.host().stats(&a).unwrap().ramdisk.shared_pool_maximum.unwrap();
    assert!(most.0.abs_diff(host / 2) <= 4096, "half of the host's memory where there is no limit: {most:?} of {host}");
    // The same with less, so that it can be filled.
    std::fs::write(&file, (192 << 20).to_string()).unwrap();
    for c in [&a, &b] {
        // Ends with an error, is killed, or gets nowhere for want of memory; whatever it is, in a container.
        let spec = hoody_state::runtime::ExecSpec {
            command: ["sh", "-c", "head -c 150000000 /dev/zero > /ramdisk/f"].map(String::from).to_vec(),
            output_limit: 4096,
            timeout: Some(Duration::from_secs(3)),
            ..Default::default()
        };
        let began = std::time::Instant::now();
        let out = real.host().exec(c, &spec);
        println!("{:?} after {:?}", out.map(|o| o.exit_code).map_err(|e| e.message().to_owned()), began.elapsed());
    }
    let used: u64 = [&a, &b].iter().filter_map(|c| real.host().stats(c).unwrap().ramdisk.usage).map(|u| u.private.0).sum();
    assert!(used < 192 << 20, "{used}");
    for c in [&a, &b] {
        real.host().delete_container(&me, c).unwrap();
    }
    hoody_state_workspace::at_rest(real.host());
    assert_clean(real.host(), "after RAM disks were filled together");
}

fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap() << 10
}

/// The file with the limit of memory of all containers of a pool.
fn limit_of_all(real: &hoody_state_workspace::RealHost, c: &hoody_state::id::ContainerId) -> std::path::PathBuf {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(real.config.run.join("pool/hoody-pool.json")).unwrap()).unwrap();
    let pool = record["pool_id"].as_str().unwrap().replace('-', "");
    let found = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"].iter().flat_map(|root| {
        let parent = std::path::Path::new(root).join("hoody").join(&pool[..12]);
        assert!(!parent.exists() || parent.join(c.as_str()).exists());
        ["memory.max", "memory.limit_in_bytes"].map(|f| parent.join(f))
    });
    found.into_iter().find(|p| p.exists()).expect("this test needs the memory controller")
}

/// A container whose memory is taken by its RAM disk does not start again by itself; its disk can be let go.
#[test]
fn a_container_whose_ram_disk_fills_its_memory_starts_again_without_it() {
    let real = real("full");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let c = container(&real, &p, "dev", |n| n.memory = Some(48));
    let spec = hoody_state::runtime::ExecSpec {
        command: ["sh", "-c", "cat /dev/zero > /ramdisk/f"].map(String::from).to_vec(),
        output_limit: 4096,
        timeout: Some(FILLING),
        ..Default::default()
    };
    drop(real.host().exec(&c, &spec));
    let again = real.host().lifecycle(&me, &c, Verb::Restart, Some(Duration::ZERO));
    println!("with a full disk: {:?}", again.map(|a| a.status).map_err(|e| e.message().to_owned()));
    real.host().update_container(&me, &c, ContainerUpdate { ramdisk: Some(false), ..Default::default() }).unwrap();
    real.host().lifecycle(&me, &c, Verb::Restart, Some(Duration::ZERO)).unwrap();
    assert_eq!(real.sh(&c, "echo fine"), "fine\n");
    assert_clean(real.host(), "after a disk was let go");
}
