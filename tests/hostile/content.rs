//! What a container's root can put into its own volume.

use super::me;
use hoody_state::Code;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewSnapshot, OnAliasConflict, RestoreOptions, Status, Verb};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, container, fingerprint, project, snapshot};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn started(name: &str) -> (RealHost, ContainerId) {
    let real = RealHost::new(name);
    let c = container(real.host(), &project(real.host(), "p"), "dev").unwrap();
    (real, c)
}

fn btrfs(args: &[&str], path: &Path) {
    let out = Command::new("btrfs").args(args).arg(path).output().expect("btrfs-progs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Snapshot, ruin, restore: every byte and name is back, and nothing outside has been touched.
fn there_and_back(real: &RealHost, c: &ContainerId) {
    let h = real.host();
    h.lifecycle(&me(), c, Verb::ForceStop, None).unwrap();
    let before = fingerprint(&real.live(c));
    snapshot(h, c, "hostile").unwrap();
    let kept = real.live(c).parent().unwrap().join("snapshots/hostile");
    assert_eq!(fingerprint(&kept), before);
    std::fs::write(real.live(c).join("after"), "x").unwrap();
    let etc = std::fs::read("/etc/passwd").unwrap();
    h.restore(&me(), c, "hostile", RestoreOptions::default()).unwrap();
    assert_eq!(fingerprint(&real.live(c)), before);
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), etc);
    h.image_from_snapshot(&me(), "hostile", c, "hostile").unwrap();
    h.delete_image(&me(), "hostile").unwrap();
    at_rest(h);
    assert_clean(h, "hostile content");
}

#[test]
fn unusual_file_names_and_links() {
    let (real, c) = started("h-names");
    let root = real.live(&c);
    let long = "n".repeat(255);
    let names: [&[u8]; 8] = [long.as_bytes(), b"a\nb", b"\xff\xfe\x80", b"-rf", b" ", b"$(reboot)", b"\x1b[2J", b"*"];
    for n in names {
        std::fs::write(root.join(OsStr::from_bytes(n)), n).unwrap();
        std::fs::create_dir(root.join("hoody/storage").join(OsStr::from_bytes(n))).unwrap();
    }
    let mut deep = root.join("deep");
    for _ in 0..12 {
        deep = deep.join("d".repeat(250));
    }
    std::fs::create_dir_all(&deep).unwrap();
    for (to, at) in [("/etc", "abs"), ("../../../../../../etc", "up"), ("/proc/self/root", "magic"), ("loop", "loop"), ("/dev/loop0", "device")] {
        symlink(to, root.join(at)).unwrap();
    }
    nix::sys::stat::mknod(&root.join("pipe"), nix::sys::stat::SFlag::S_IFIFO, nix::sys::stat::Mode::S_IRWXU, 0).unwrap();
    // A FIFO cannot be read for a fingerprint of its content, and is not: it is no file.
    there_and_back(&real, &c);
    real.host().lifecycle(&me(), &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "cat '/a\nb'"), "a\nb");
    real.host().delete_container(&me(), &c).unwrap();
    at_rest(real.host());
    assert_clean(real.host(), "after a delete");
}

#[test]
fn links_in_place_of_the_paths_that_a_start_uses() {
    let (real, c) = started("h-links");
    let h = real.host();
    h.lifecycle(&me(), &c, Verb::ForceStop, None).unwrap();
    let root = real.live(&c);
    let victim = real.dir.join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::remove_dir_all(root.join("hoody")).unwrap();
    symlink(&victim, root.join("hoody")).unwrap();
    for d in ["proc", "dev", "sys", "run", "tmp"] {
        let _ = std::fs::remove_dir_all(root.join(d));
        symlink(&victim, root.join(d)).unwrap();
    }
    let _ = std::fs::remove_file(root.join("sbin/init"));
    let _ = std::fs::create_dir(root.join("sbin"));
    symlink("../../../../../../../etc/passwd", root.join("sbin/init")).unwrap();
    snapshot(h, &c, "links").unwrap();
    // Whether it starts is its own affair; that it is said, that it is not of the host, and that nothing is left is ours.
    let out = h.lifecycle(&me(), &c, Verb::Start, None);
    let seen = h.container(&c).unwrap();
    match &out {
        Ok(_) => assert_eq!(seen.status, Status::Running),
        Err(e) => assert!(e.code() == Code::StartFailed && seen.status == Status::Failed && seen.status_message.is_some(), "{e:?}"),
    }
    assert_clean(h, "after a start among links");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0, "something of ours went through a link");
    h.lifecycle(&me(), &c, Verb::ForceStop, None).ok();
    h.restore(&me(), &c, "links", RestoreOptions { start: Some(false), ..Default::default() }).unwrap();
    assert!(h.container_detail(&c).is_ok() && h.stats(&c).is_ok());
    h.delete_container(&me(), &c).unwrap();
    at_rest(h);
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    assert_clean(h, "after links");
}

#[test]
fn a_volume_that_its_owner_made_read_only() {
    let (real, c) = started("h-ro");
    let h = real.host();
    real.sh(&c, "echo 1 > /x");
    snapshot(h, &c, "one").unwrap();
    let nested = real.live(&c).join("nested");
    btrfs(&["subvolume", "create"], &nested);
    std::fs::write(nested.join("f"), "n").unwrap();
    btrfs(&["property", "set", "-ts", nested.to_str().unwrap(), "ro"], Path::new("true"));
    for running in [true, false] {
        btrfs(&["property", "set", "-ts", real.live(&c).to_str().unwrap(), "ro"], Path::new("true"));
        if !running {
            h.lifecycle(&me(), &c, Verb::ForceStop, None).unwrap();
        }
        let name = format!("ro-{running}");
        snapshot(h, &c, &name).unwrap();
        h.restore(&me(), &c, "one", RestoreOptions::default()).unwrap();
        assert_eq!(std::fs::read_to_string(real.live(&c).join("x")).unwrap(), "1\n");
        std::fs::write(real.live(&c).join("x"), "it is writable").unwrap();
        h.restore(&me(), &c, &name, RestoreOptions::default()).unwrap();
        if running {
            assert_eq!(std::fs::read_to_string(real.live(&c).join("nested/f")).unwrap(), "n");
        }
        assert_clean(h, &name);
    }
    btrfs(&["property", "set", "-ts", real.live(&c).to_str().unwrap(), "ro"], Path::new("true"));
    h.delete_container(&me(), &c).unwrap();
    at_rest(h);
    assert_clean(h, "after a delete of what was read-only");
}

#[test]
fn hundreds_of_nested_volumes() {
    let (real, c) = started("h-nest");
    let h = real.host();
    for i in 0..200 {
        let at = real.live(&c).join(format!("hoody/storage/v{i}"));
        btrfs(&["subvolume", "create"], &at);
        std::fs::write(at.join("f"), i.to_string()).unwrap();
    }
    let mut deep = real.live(&c).join("deep");
    for _ in 0..20 {
        btrfs(&["subvolume", "create"], &deep);
        deep = deep.join("d");
    }
    let began = Instant::now();
    snapshot(h, &c, "s").unwrap();
    let snapped = began.elapsed();
    for i in 0..200 {
        std::fs::write(real.live(&c).join(format!("hoody/storage/v{i}/f")), "ruined").unwrap();
    }
    h.restore(&me(), &c, "s", RestoreOptions::default()).unwrap();
    let restored = began.elapsed() - snapped;
    for i in 0..200 {
        assert_eq!(std::fs::read_to_string(real.live(&c).join(format!("hoody/storage/v{i}/f"))).unwrap(), i.to_string());
    }
    assert_eq!(h.container(&c).unwrap().status, Status::Running);
    assert_clean(h, "220 nested volumes");
    h.delete_snapshot(&me(), &c, "s").unwrap();
    h.delete_container(&me(), &c).unwrap();
    at_rest(h);
    assert_clean(h, "after a delete of nested volumes");
    println!("220 nested volumes: snapshot {snapped:?}, write and restore {restored:?}");
}

#[test]
fn a_snapshot_in_the_middle_of_writing_is_a_prefix() {
    let (real, c) = started("h-write");
    let h = real.host();
    real.sh(
        &c,
        "(i=0; while :; do echo $i; i=$((i+1)); done >> /hoody/storage/seq) & (i=0; while :; do echo $i > /hoody/storage/f$i; i=$((i+1)); done) & true",
    );
    let mut last = 0;
    for n in 0..15 {
        std::thread::sleep(Duration::from_millis(60));
        let s = snapshot(h, &c, &format!("s{n}")).unwrap();
        let at = real.live(&c).parent().unwrap().join("snapshots").join(s.name.as_str()).join("hoody/storage");
        let text = std::fs::read_to_string(at.join("seq")).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(w, _)| w);
        let count = whole.lines().enumerate().map(|(i, l)| assert_eq!(l, i.to_string(), "a gap in the sequence")).count();
        assert!(count >= last, "the {n}th snapshot holds less than the one before");
        last = count;
        let files = std::fs::read_dir(&at).unwrap().filter(|e| e.as_ref().unwrap().file_name().as_bytes().starts_with(b"f")).count();
        for i in 0..files {
            assert!(at.join(format!("f{i}")).exists(), "f{i} of {files} is missing: not one instant");
        }
    }
    assert!(last > 1000, "only {last} lines were written");
    assert_clean(h, "snapshots in the middle of writing");
}

#[test]
fn a_snapshot_that_is_being_sent_is_deleted_afterwards() {
    let (real, c) = started("h-send");
    let h = real.host();
    real.sh(&c, "head -c 20000000 /dev/urandom > /hoody/storage/big");
    let rolling = || NewSnapshot { alias: Some("r".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() };
    h.create_snapshot(&me(), &c, rolling()).unwrap();
    let at = real.live(&c).parent().unwrap().join("snapshots/r");
    let mut send = Command::new("btrfs").arg("send").arg(&at).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let new = h.create_snapshot(&me(), &c, rolling()).unwrap().snapshot;
    let list = h.snapshots(&c).unwrap().snapshots;
    assert_eq!(list.iter().map(|s| &s.name).collect::<Vec<_>>(), [&new.name], "the list is as was asked");
    let held = at.exists();
    send.kill().unwrap();
    send.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while at.exists() || h.container(&c).unwrap().operation_id.is_some() {
        assert!(Instant::now() < end, "it is not deleted when it could be");
        std::thread::sleep(Duration::from_millis(50));
    }
    h.restore(&me(), &c, "r", RestoreOptions::default()).unwrap();
    assert_clean(h, "after a snapshot that was being sent");
    println!("the kernel held the snapshot that was being sent: {held}");
}
