//! `/hoody/snapshots`: what a container sees of its own snapshots, and what it does not reach by it.

use super::isolation::pid_of_init;
use super::subvolumes::install;
use super::{attempt, container, eventually, real};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, RestoreOptions, ShareMode, Verb};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, project, snapshot};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn said(real: &RealHost, c: &ContainerId, line: &str) -> String {
    let out = attempt(real, c, line);
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)).trim_end().to_owned()
}

/// A shell line as user `u` of the container.
fn as_user(real: &RealHost, c: &ContainerId, line: &str) -> String {
    said(real, c, &format!("busybox su -s /bin/sh u -c '{line}'"))
}

fn compile(source: &str, to: &Path) {
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(to).arg(&file).status().expect("this test needs a C compiler");
    assert!(built.success());
}

#[test]
fn a_container_sees_its_snapshots_come_and_go_and_changes_none() {
    let real = real("snapshots");
    let p = project(real.host(), "p");
    let (c, other) = (container(&real, &p, "dev", |_| {}), container(&real, &p, "other", |_| {}));
    assert_eq!(real.sh(&c, "ls -A /hoody/snapshots"), "");
    real.sh(&c, "echo one > /hoody/storage/f; echo private > /root/key; chmod 600 /root/key; chmod 755 /root");
    snapshot(real.host(), &c, "first").unwrap();
    snapshot(real.host(), &other, "foreign").unwrap();
    real.sh(&c, "echo two > /hoody/storage/f; rm /root/key");
    snapshot(real.host(), &c, "second").unwrap();
    assert_eq!(real.sh(&c, "ls -A /hoody/snapshots; cat /hoody/snapshots/*/hoody/storage/f"), "first\nsecond\none\ntwo\n");
    assert_eq!(real.sh(&c, "cat /hoody/snapshots/first/root/key"), "private\n", "root reads what root could read");
    assert_eq!(
        real.sh(&c, "ls -A /hoody/snapshots/first/hoody/snapshots /hoody/snapshots/first/hoody"),
        "/hoody/snapshots/first/hoody:\ndatabases\nshares\nsnapshots\nstorage\n\n/hoody/snapshots/first/hoody/snapshots:\n"
    );
    assert_eq!(
        real.sh(&c, "ls -A /hoody/snapshots/.. /hoody/snapshots/first/.."),
        "/hoody/snapshots/..:\ndatabases\nshares\nsnapshots\nstorage\n\n/hoody/snapshots/first/..:\nfirst\nsecond\n"
    );
    // A plain user reads what a plain user could read.
    real.sh(&c, "echo 'u:x:1000:1000::/:/bin/sh' >> /etc/passwd");
    let user = as_user(&real, &c, "ls /hoody/snapshots; cat /hoody/snapshots/first/hoody/storage/f /hoody/snapshots/first/root/key");
    assert!(user.starts_with("first\nsecond\none\n") && user.contains("Permission denied") && !user.contains("private"), "{user}");
    // Nobody writes.
    for line in [
        "touch /hoody/snapshots/x",
        "mkdir /hoody/snapshots/x",
        "echo x > /hoody/snapshots/first/hoody/storage/f",
        "rm -r /hoody/snapshots/first",
        "mv /hoody/snapshots/first /hoody/snapshots/third",
        "chmod 777 /hoody/snapshots/first",
    ] {
        let said = said(&real, &c, line);
        assert!(said.contains("Read-only file system"), "{line}: {said}");
    }
    assert_ne!(attempt(&real, &c, "mount -o remount,rw /hoody/snapshots").exit_code, 0);
    let flags = real.sh(&c, "grep ' /hoody/snapshots ' /proc/mounts | cut -d' ' -f4");
    for flag in ["ro", "nosuid", "nodev"] {
        assert!(flags.trim().split(',').any(|f| f == flag), "{flags}");
    }
    // In a paused container too, nothing is mounted or taken off.
    real.host().lifecycle(&Caller::default(), &c, Verb::Pause, None).unwrap();
    snapshot(real.host(), &c, "paused").unwrap();
    real.host().delete_snapshot(&Caller::default(), &c, "first").unwrap();
    real.host().lifecycle(&Caller::default(), &c, Verb::Resume, None).unwrap();
    assert_eq!(real.sh(&c, "ls /hoody/snapshots"), "paused\nsecond\n");
    let shown: Vec<String> = real.host().container_detail(&c).unwrap().mounts.into_iter().map(|m| m.path).collect();
    assert!(shown.iter().any(|p| p == "/hoody/snapshots"), "{shown:?}");
    assert_clean(real.host(), "with snapshots in view");
}

#[test]
fn a_restored_and_a_copied_container_see_their_own() {
    let real = real("snapshots-of");
    let p = project(real.host(), "p");
    let me = Caller::default();
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo one > /hoody/storage/f");
    snapshot(real.host(), &c, "one").unwrap();
    real.sh(&c, "echo two > /hoody/storage/f");
    let undo = real.host().restore(&me, &c, "one", RestoreOptions::default()).unwrap().undo.unwrap();
    let seen = |c: &ContainerId| real.sh(c, "cd /hoody/snapshots; for s in *; do echo $s $(cat $s/hoody/storage/f); done");
    let mut both = [format!("{undo} two"), "one one".to_owned()];
    both.sort();
    assert_eq!(seen(&c), both.map(|l| l + "\n").concat());
    real.host().undo(&me, &c).unwrap();
    assert_eq!(real.sh(&c, "cat /hoody/storage/f /hoody/snapshots/one/hoody/storage/f"), "two\none\n");
    let request = CopyRequest { target_project_id: Some(p.to_string()), name: Some("copy".into()), ..Default::default() };
    let copy = real.host().copy_container(&me, &c, request).unwrap().id;
    at_rest(real.host());
    real.host().delete_snapshot(&me, &c, "one").unwrap();
    assert_eq!(real.sh(&copy, "cat /hoody/snapshots/one/hoody/storage/f"), "one\n", "the copy has one of its own");
    assert_eq!(said(&real, &c, "ls -d /hoody/snapshots/one"), "ls: /hoody/snapshots/one: No such file or directory");
    // A container that an earlier version made, and one that has put something else there.
    real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
    let home = real.live(&c).parent().unwrap().to_owned();
    std::fs::set_permissions(home.join("snapshots"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::remove_dir(real.live(&c).join("hoody/snapshots")).unwrap();
    real.host().lifecycle(&me, &c, Verb::Start, None).unwrap();
    assert!(!real.sh(&c, "ls /hoody/snapshots").is_empty());
    real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
    std::fs::remove_dir(real.live(&c).join("hoody/snapshots")).unwrap();
    std::os::unix::fs::symlink("/etc", real.live(&c).join("hoody/snapshots")).unwrap();
    real.host().lifecycle(&me, &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "cat /hoody/snapshots/hostname"), "dev\n", "its own link stays as it is");
    assert_clean(real.host(), "after all");
}

#[test]
fn a_snapshot_in_use_is_deleted_and_its_space_comes_back_when_it_is_closed() {
    let real = real("snapshots-use");
    let p = project(real.host(), "p");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null");
    snapshot(real.host(), &c, "held").unwrap();
    // One has a file open, another works in it.
    real.sh(&c, "rm /big; (exec 3< /hoody/snapshots/held/big; sleep 1000) & (cd /hoody/snapshots/held/etc; exec sleep 1000) & sleep 0.2");
    real.host().delete_snapshot(&Caller::default(), &c, "held").unwrap();
    assert_eq!(real.sh(&c, "ls -A /hoody/snapshots; cat /proc/[0-9]*/fd/3 2>/dev/null | wc -c"), "8388608\n", "what is open can be read on");
    let reclaiming = || !real.host().pool().unwrap().reclaiming.is_empty();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(reclaiming(), "it keeps its space while it is in use");
    snapshot(real.host(), &c, "held").unwrap();
    real.sh(&c, "killall sleep; sleep 0.2");
    // The next deletion makes the server look again at once.
    real.host().delete_snapshot(&Caller::default(), &c, "held").unwrap();
    eventually("free space", || !reclaiming());
    assert_clean(real.host(), "after a snapshot in use was deleted");
}

#[test]
fn no_container_reaches_the_snapshots_of_another() {
    let real = real("snapshots-of-others");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let (a, theirs) = (container(&real, &p, "a", |_| {}), container(&real, &q, "theirs", |_| {}));
    install(&real, &[&a, &theirs]);
    real.sh(&theirs, "echo secret > /secret; chmod 666 /secret");
    real.sh(&a, "echo mine > /secret");
    snapshot(real.host(), &theirs, "s").unwrap();
    snapshot(real.host(), &a, "s").unwrap();
    let run = |line: &str| said(&real, &a, line);
    // The numbers that an attacker would guess, and the directory that holds the other's snapshots.
    let their_id = real.sh(&theirs, "subvolumes id /hoody/snapshots/s").trim().to_owned();
    let own_id = real.sh(&a, "subvolumes id /hoody/snapshots/s").trim().to_owned();
    let directory = |c: &ContainerId| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(real.live(c).parent().unwrap().join("snapshots")).unwrap().ino()
    };
    // The pool's own subvolume: not its list of all subvolumes, not a copy of it, no name of what belongs to another.
    assert_eq!(run("subvolumes children /hoody/snapshots"), "Operation not permitted");
    assert_eq!(run("subvolumes snapshot /hoody/snapshots / stolen; ls -d /stolen"), "Operation not permitted\nls: /stolen: No such file or directory");
    assert_eq!(run(&format!("subvolumes name /hoody/snapshots {own_id} {}", directory(&a))), "s ok", "its own has a name");
    let named = run(&format!("subvolumes name /hoody/snapshots {their_id} {}", directory(&theirs)));
    assert!(named.ends_with("denied") || named.ends_with("directory"), "{named}");
    // Its own is read-only, whatever calls there are; a copy of it in its own volume is its own.
    assert_eq!(run("subvolumes unseal /hoody/snapshots/s"), "Read-only file system");
    assert_eq!(run("subvolumes destroy /hoody/snapshots s"), "Read-only file system");
    assert_eq!(run("subvolumes create /hoody/snapshots x"), "Read-only file system");
    assert_eq!(run(&format!("subvolumes destroy-by-id /hoody/snapshots {their_id}")), "Operation not permitted");
    assert_eq!(run("subvolumes snapshot /hoody/snapshots/s / clone; cat /clone/secret; subvolumes destroy / clone"), "ok\nmine\nok");
    // By file handle: as it is, and as it would be without its system call filter and with every capability in its own user namespace.
    let program = real.dir.join("snapshot_handles");
    compile(include_str!("snapshot_handles.c"), &program);
    std::fs::copy(&program, real.live(&a).join("snapshot_handles")).unwrap();
    let line = format!("/snapshot_handles /hoody/snapshots {their_id} {own_id} 5");
    let filtered = run(&line);
    assert_eq!(filtered.matches("Operation not permitted").count(), 3, "{filtered}");
    let pid = pid_of_init(&real, &a).to_string();
    let enter = ["-t", &pid, "-U", "-m", "-p", "--setuid", "0", "--setgid", "0"];
    let out = Command::new("nsenter").args(enter).args(line.split(' ')).output().expect("this test needs nsenter");
    let unfiltered = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(unfiltered.contains(&format!("tried {their_id}:")) && !unfiltered.contains("secret"), "{unfiltered}");
    assert!(unfiltered.contains("tried 5:"), "the pool's own subvolume is not opened either: {unfiltered}");
    assert_eq!(real.sh(&theirs, "cat /hoody/snapshots/s/secret"), "secret\n");
    // Not by a share.
    let e = real.host().create_share(&Caller::default(), &a, super::offer("/hoody/snapshots/s", ShareMode::Readonly)).unwrap_err();
    assert_eq!(e.code(), hoody_state::Code::InvalidPath);
    real.sh(&a, "ln -s /hoody/snapshots /hoody/storage/link");
    let s = super::share(&real, &a, "/hoody/storage/link", &theirs, ShareMode::Readonly);
    assert_eq!(s.status, hoody_state::model::ShareStatus::Failed, "{s:?}");
}

#[test]
fn a_plain_user_of_the_host_reaches_no_snapshot_and_old_programs_have_no_rights() {
    let real = real("snapshots-host");
    let p = project(real.host(), "p");
    let c = container(&real, &p, "dev", |_| {});
    let program = real.dir.join("whoami");
    compile("#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d\\n\", geteuid()); return 0; }\n", &program);
    std::fs::copy(&program, real.live(&c).join("bin/whoami-really")).unwrap();
    real.sh(&c, "echo 'u:x:1000:1000::/:/bin/sh' >> /etc/passwd; cp /bin/whoami-really /bin/rights; chmod 4755 /bin/rights; echo open > /f; chmod 644 /f");
    snapshot(real.host(), &c, "old").unwrap();
    assert_eq!(as_user(&real, &c, "/bin/rights").lines().last(), Some("0"), "now it has the right");
    assert_eq!(as_user(&real, &c, "/hoody/snapshots/old/bin/rights").lines().last(), Some("1000"), "in a snapshot it has none");
    let file = real.live(&c).parent().unwrap().join("snapshots/old/f");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "open\n");
    let reads = Command::new("cat").arg(&file).uid(65_534).gid(65_534).output().unwrap();
    assert!(!reads.status.success(), "a plain user of the host reads a snapshot");
}
