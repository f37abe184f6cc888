//! No room: beneath the pool's image, in the pool, and at a disk limit. The server stays up, says so, and loses nothing that it acknowledged. They need root,
//! BTRFS, loop devices, runc, btrfs-progs and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::Code;
use hoody_state::host::Host;
use hoody_state::id::ContainerId;
use hoody_state::model::{ContainerUpdate, NewContainer, NewSnapshot, PageRequest, ProjectInput, RestoreOptions, Status};
use hoody_state::pool::Reserve;
use hoody_state::runtime::ExecSpec;
use hoody_state::units::Bytes;
use hoody_state::{Caller, HostConfig};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, container, project, refused, snapshot};
use nix::mount::{MntFlags, MsFlags};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn me() -> Caller {
    Caller::default()
}

/// A tmpfs, unmounted when dropped: declare it before the host that uses it.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn at(dir: PathBuf, size: Bytes) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let t = Tmpfs(dir);
        t.mount(MsFlags::empty(), size);
        t
    }

    fn resize(&self, size: Bytes) {
        self.mount(MsFlags::MS_REMOUNT, size);
    }

    fn mount(&self, flags: MsFlags, size: Bytes) {
        let options = format!("size={},mode=755", size.0);
        nix::mount::mount(Some("tmpfs"), &self.0, Some("tmpfs"), flags, Some(options.as_str())).expect("a tmpfs (this test needs root)");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, MntFlags::MNT_DETACH);
        // Of the directory of the test, what the host could not remove while this was mounted.
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

/// A host whose pool lies on a tmpfs of `beneath`.
fn small(name: &str, beneath: Bytes, size: Bytes, reserve: Reserve) -> (Tmpfs, RealHost) {
    let mut tmpfs = None;
    let real = RealHost::configured(name, |c| {
        tmpfs = Some(Tmpfs::at(c.data.clone(), beneath));
        c.pool_size = Some(size);
        c.pool_reserve = reserve;
    });
    (tmpfs.unwrap(), real)
}

/// Runs a line in a container, however it ends; what it said.
fn try_sh(host: &Host, c: &ContainerId, line: &str) -> String {
    let spec = ExecSpec {
        command: vec!["/bin/sh".into(), "-c".into(), line.into()],
        output_limit: 1 << 16,
        timeout: Some(Duration::from_secs(120)),
        ..Default::default()
    };
    host.exec(c, &spec).map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned())
}

fn until(what: &str, f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !f() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes until there is no room, at the pace of the disk; then small files.
const FILL: &str =
    "mkdir /fill; i=0; while dd if=/dev/zero of=/fill/$i bs=4M count=1 conv=fsync; do i=$((i+1)); done; dd if=/dev/zero of=/fill/last bs=4k conv=fsync";

#[test]
fn a_container_that_fills_the_pool_does_not_stop_the_others() {
    let (_beneath, real) = small("f-brick", Bytes::mib(1000), Bytes::gib(8), Reserve::Ahead(Bytes::mib(192)));
    let h = real.host();
    let p = project(h, "p");
    let (quiet, greedy) = (container(h, &p, "quiet").unwrap(), container(h, &p, "greedy").unwrap());
    snapshot(h, &quiet, "s").unwrap();
    snapshot(h, &greedy, "before").unwrap();
    let said = try_sh(h, &greedy, FILL);
    assert!(said.contains("No space left"), "{said}");
    let filled = h.usage(&greedy).unwrap().live.exclusive;
    assert!(filled > Bytes::mib(500), "the pool grew with its use: {filled}");
    // The server says what is up, and refuses what would add to it.
    h.ready().unwrap();
    let pool = h.pool().unwrap();
    assert!(!pool.read_only && pool.health == "low", "{pool:?}");
    let image = pool.image.unwrap();
    assert!(image.reserved >= image.offered && image.size == Bytes::gib(8) && image.reserve_ahead == Some(Bytes::mib(192)), "{image:?}");
    assert_eq!(h.create_snapshot(&me(), &quiet, NewSnapshot::default()).unwrap_err().code(), Code::PoolFull);
    // A new start of the server changes nothing of that.
    let mut real = real;
    real.stop();
    real.start();
    let h = real.host();
    h.ready().unwrap();
    // Deleting works, and gives the room back.
    h.delete_snapshot(&me(), &greedy, "before").unwrap();
    h.delete_container(&me(), &greedy).unwrap();
    at_rest(h);
    until("the room does not come back", || h.pool().unwrap().health == "ok" && h.pool().unwrap().reclaiming.is_empty());
    snapshot(h, &quiet, "again").unwrap();
    h.restore(&me(), &quiet, "s", RestoreOptions::default()).unwrap();
    assert_eq!(h.container(&quiet).unwrap().status, Status::Running);
    until("what is free goes back to the disk beneath", || h.pool().unwrap().image.unwrap().reserved < Bytes::mib(520));
    assert_clean(h, "after a container has written all it could");
}

#[test]
fn a_read_only_pool_is_reported_and_mounted_again_when_there_is_room() {
    let (beneath, mut real) = small("f-ro", Bytes::mib(420), Bytes::gib(4), Reserve::None);
    let h = real.host();
    let p = project(h, "p");
    let (quiet, greedy) = (container(h, &p, "quiet").unwrap(), container(h, &p, "greedy").unwrap());
    real.sh(&quiet, "echo kept > /kept && sync");
    snapshot(h, &quiet, "s").unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let _listening = h.subscribe(Box::new(move |e| seen.lock().unwrap().push(e.event_type.clone())));
    try_sh(h, &greedy, FILL);
    try_sh(h, &greedy, "sync");
    until("the kernel leaves it writable", || h.pool().unwrap().read_only);
    // It is said everywhere.
    assert_eq!(h.ready().unwrap_err().code(), Code::PoolReadOnly);
    let pool = h.pool().unwrap();
    assert_eq!(pool.health, "read_only");
    let why = pool.read_only_reason.unwrap();
    assert!(why.contains("beneath its image") && why.contains("free at least"), "{why}");
    until("nobody is told", || events.lock().unwrap().iter().any(|e| e == "pool.read_only"));
    // Reading works, changing is refused.
    let reads = |h: &Host| {
        assert_eq!(h.containers(&PageRequest::first(), None, None).unwrap().rows.len(), 2);
        h.snapshots(&quiet).unwrap();
        assert_eq!(h.create_snapshot(&me(), &quiet, NewSnapshot::default()).unwrap_err().code(), Code::PoolReadOnly);
        assert_eq!(h.delete_container(&me(), &greedy).unwrap_err().code(), Code::PoolReadOnly);
    };
    reads(h);
    // So do the tools, beside the server and without it.
    tools(&real.config);
    real.stop();
    tools(&real.config);
    // Without room a new server serves what there is to read.
    real.start();
    reads(real.host());
    assert_eq!(real.host().ready().unwrap_err().code(), Code::PoolReadOnly);
    real.stop();
    // With room it mounts the pool anew, and its containers run again.
    beneath.resize(Bytes::gib(2));
    real.start();
    let h = real.host();
    h.ready().unwrap();
    until("it does not run again", || h.container(&quiet).unwrap().status == Status::Running);
    assert_eq!(real.sh(&quiet, "cat /kept"), "kept\n");
    assert_eq!(h.snapshots(&quiet).unwrap().snapshots.len(), 1);
    h.delete_container(&me(), &greedy).unwrap();
    at_rest(h);
    snapshot(h, &quiet, "again").unwrap();
    h.restore(&me(), &quiet, "s", RestoreOptions::default()).unwrap();
    assert_clean(h, "after a pool was read-only");
}

#[test]
fn a_read_only_pool_can_be_unmounted_and_its_containers_start_again_with_it() {
    let (beneath, mut real) = small("f-ro-unmount", Bytes::mib(420), Bytes::gib(4), Reserve::None);
    let h = real.host();
    let p = project(h, "p");
    let greedy = container(h, &p, "greedy").unwrap();
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    h.on_recoverable(Box::new(move || *count.lock().unwrap() += 1));
    try_sh(h, &greedy, FILL);
    try_sh(h, &greedy, "sync");
    until("the kernel leaves it writable", || h.pool().unwrap().read_only);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(*told.lock().unwrap(), 0, "there is no room yet");
    beneath.resize(Bytes::gib(2));
    until("a server is not told that it may start anew", || *told.lock().unwrap() == 1);
    real.stop();
    Host::unmount(&real.config).unwrap();
    assert!(!real.config.run.join("pool").exists());
    real.start();
    real.host().ready().unwrap();
    until("it does not run again", || real.host().container(&greedy).unwrap().status == Status::Running);
    assert_clean(real.host(), "after an unmount of a read-only pool");
}

#[test]
fn a_disk_limit_stops_only_its_container_and_can_change_while_it_runs() {
    let real = RealHost::new("f-disk");
    let h = real.host();
    let p = project(h, "p");
    let limited = |name: &str, disk| NewContainer { name: Some(name.into()), disk: Some(disk), ..Default::default() };
    let e = h.create_container(&me(), &p, limited("tiny", Some(Bytes::mib(1)))).unwrap_err();
    assert_eq!(e.code(), Code::ValidationError);
    let c = h.create_container(&me(), &p, limited("dev", Some(Bytes::mib(64)))).unwrap();
    assert_eq!(c.disk, Some(Bytes::mib(64)));
    let (c, other) = (c.id, container(h, &p, "other").unwrap());
    snapshot(h, &c, "before").unwrap();
    let said = try_sh(h, &c, FILL);
    assert!(said.contains("uota exceeded"), "{said}");
    real.sh(&other, "dd if=/dev/zero of=/f bs=1M count=100 conv=fsync && sync");
    // What it has written is said, and everything of ours works at the limit.
    let used = |c: &ContainerId| h.usage(c).unwrap().disk.unwrap();
    until("the figures do not come", || used(&c).used > Bytes::mib(56));
    assert_eq!((used(&c).limit, h.stats(&c).unwrap().disk.root.counted.unwrap().limit), (Some(Bytes::mib(64)), Some(Bytes::mib(64))));
    until("the project's figures do not come", || used(&other).used >= Bytes::mib(100));
    snapshot(h, &c, "full").unwrap();
    h.restore(&me(), &c, "before", RestoreOptions::default()).unwrap();
    assert_eq!(h.container(&c).unwrap().status, Status::Running);
    // More, while it runs; then none.
    h.update_container(&me(), &c, ContainerUpdate { disk: Some(Some(Bytes::mib(128))), ..Default::default() }).unwrap();
    real.sh(&c, "dd if=/dev/zero of=/more bs=1M count=40 conv=fsync");
    h.update_container(&me(), &c, ContainerUpdate { disk: Some(None), ..Default::default() }).unwrap();
    real.sh(&c, "dd if=/dev/zero of=/more bs=1M count=100 conv=fsync");
    assert_eq!(h.container(&c).unwrap().disk, None);
    // The project's limit holds for all of it.
    h.update_project(&me(), &p, ProjectInput { disk: Some(Some(Bytes::mib(330))), ..Default::default() }).unwrap();
    assert!(try_sh(h, &other, "dd if=/dev/zero of=/g bs=1M count=300 conv=fsync").contains("uota exceeded"));
    for s in ["before", "full"] {
        h.delete_snapshot(&me(), &c, s).unwrap();
    }
    h.delete_container(&me(), &c).unwrap();
    h.delete_container(&me(), &other).unwrap();
    at_rest(h);
    until("the groups of deleted containers stay", || {
        let groups = std::fs::read_dir(qgroups(&real)).unwrap().filter_map(Result::ok);
        groups.filter(|g| g.file_name().to_string_lossy().starts_with("1_")).count() == 0
    });
    assert_clean(h, "after disk limits");
}

fn qgroups(real: &RealHost) -> PathBuf {
    let pool = std::fs::read_to_string(real.config.run.join("pool/hoody-pool.json")).unwrap();
    let pool: serde_json::Value = serde_json::from_str(&pool).unwrap();
    PathBuf::from("/sys/fs/btrfs").join(pool["pool_id"].as_str().unwrap()).join("qgroups")
}

#[test]
fn too_many_nested_volumes_are_refused_before_anything_is_frozen() {
    let mut real = RealHost::new("f-nested");
    real.stop();
    real.config.settings.max_nested_volumes = 3;
    real.start();
    let h = real.host();
    let p = project(h, "p");
    let c = container(h, &p, "dev").unwrap();
    let make = |n: u32| {
        let at = real.live(&c).join(format!("v{n}"));
        assert!(std::process::Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(at).status().unwrap().success());
    };
    (0..3).for_each(make);
    snapshot(h, &c, "three").unwrap();
    make(3);
    refused(h, Code::TooManyNestedVolumes, || h.create_snapshot(&me(), &c, NewSnapshot::default()));
    let usage = h.usage(&c).unwrap();
    assert_eq!((usage.nested_volumes, usage.max_nested_volumes), (4, 3));
}

fn tools(config: &HostConfig) {
    let found = Host::check_pool(config, false).unwrap();
    assert!(found.iter().any(|f| f.code == "pool_read_only"), "{found:?}");
    Host::with_tokens(config, |t| {
        assert!(t.list().is_ok());
        let e = t.create(Some("new"), None, hoody_state::model::Rights::Full).map(drop).unwrap_err();
        assert_eq!(e.code(), Code::PoolReadOnly);
        Ok(())
    })
    .unwrap();
}
