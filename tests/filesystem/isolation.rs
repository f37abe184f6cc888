//! What containers could do to each other and to the host, since all of them have the same ids there.

use super::{attempt, container, real};
use hoody_state::id::ContainerId;
use hoody_state_workspace::{RealHost, project};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The host's pid of a container's init, from the runtime's record of it.
pub fn pid_of_init(real: &RealHost, c: &ContainerId) -> i64 {
    let record = real.config.run.join("oci/containers").join(c.as_str()).join("run.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["init"]["pid"].as_i64().unwrap()
}

/// Signals, ptrace, `process_vm_readv`, `pidfd_open` and `/proc` all name a process by a number of the caller's own pid namespace, in which there are no
/// processes of others. The ids of both are the same, so that nothing else would refuse it.
#[test]
fn no_container_names_a_process_of_another() {
    let real = real("isolation");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let (a, b) = (container(&real, &p, "a", |_| {}), container(&real, &q, "b", |_| {}));
    real.sh(&b, "echo secret > /root/mine");
    let theirs = pid_of_init(&real, &b);
    let said = |line: &str| {
        let out = attempt(&real, &a, line);
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    };
    assert!(said(&format!("kill -0 {theirs}")).contains("No such process"), "{}", said(&format!("kill -0 {theirs}")));
    for path in ["fd", "root/root/mine", "mem", "ns/user"] {
        assert!(said(&format!("cat /proc/{theirs}/{path}")).contains("No such file or directory"), "{path}");
    }
    let through_all = said("for p in /proc/[0-9]*; do cat $p/root/root/mine $p/cwd/root/mine; done");
    assert!(!through_all.contains("secret"), "{through_all}");
    assert_eq!(real.sh(&b, "cat /root/mine"), "secret\n");
}

/// A device node in a volume opens nothing, on the host neither; a set-user-id program reaches the container's root and no further.
#[test]
fn device_nodes_and_set_user_id_programs_give_nothing_of_the_host() {
    let real = real("nodes");
    let p = project(real.host(), "p");
    let a = container(&real, &p, "a", |_| {});
    // As an import makes it. The memory of the host would be 1:1; its null device is harmless if this fails.
    let node = real.live(&a).join("node");
    mknod(&node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    nix::unistd::chown(&node, Some(100_000.into()), Some(100_000.into())).unwrap();
    assert_eq!(std::fs::File::open(&node).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "the pool is mounted nodev");
    let out = attempt(&real, &a, "cat /node; mknod /other c 1 3; mknod /disk b 7 0; ls /other /disk");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("cat: can't open '/node': Permission denied"), "{said}");
    assert_eq!(said.matches("Operation not permitted").count(), 2, "{said}");
    // busybox drops the rights of a set-user-id program only for its own applets, so a copy of sh would not show it: the file's owner does.
    real.sh(&a, "cp /bin/busybox /tmp/rooted && chmod 4755 /tmp/rooted");
    let rooted = std::fs::metadata(real.live(&a).join("tmp/rooted")).unwrap();
    assert_eq!((rooted.uid(), rooted.permissions().mode() & 0o7777), (100_000, 0o4755), "on the host it is set-user-id to nobody's id");
}
