//! Subvolumes that a container makes and deletes: its own, as far as its own rights go, and nobody else's.

use super::{container, real, say, share};
use hoody_state::id::ContainerId;
use hoody_state::model::ShareMode;
use hoody_state_workspace::{RealHost, project};
use std::process::Command;

const PROGRAM: &str = include_str!("subvolumes.c");

pub fn install(real: &RealHost, containers: &[&ContainerId]) {
    let source = real.dir.join("subvolumes.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let program = real.dir.join("subvolumes");
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status().expect("this test needs a C compiler");
    assert!(built.success());
    for c in containers {
        std::fs::copy(&program, real.live(c).join("bin/subvolumes")).unwrap();
    }
}

#[test]
fn a_container_deletes_its_own_subvolumes() {
    let real = real("subvolumes");
    let p = project(real.host(), "p");
    let a = container(&real, &p, "a", |_| {});
    install(&real, &[&a]);
    let run = |line: &str| real.sh(&a, line).trim_end().to_owned();
    assert_eq!(
        run("subvolumes create / s && mkdir /s/d && echo x > /s/d/f && subvolumes destroy / s && ls -d /s 2>&1 || true"),
        "ok\nok\nls: /s: No such file or directory"
    );
    // Somebody who is not root there: what is theirs, and not what is root's.
    run("mkdir -p /home/u && busybox chown 1000:1000 /home/u && subvolumes create / root-owned");
    assert_eq!(run("export AS_USER=1000; subvolumes create /home/u s && subvolumes destroy /home/u s"), "ok\nok");
    assert_eq!(run("AS_USER=1000 subvolumes destroy / root-owned"), "Permission denied");
    assert_eq!(run("subvolumes destroy / root-owned"), "ok");
}

#[test]
fn no_container_reaches_the_subvolumes_of_another() {
    let real = real("subvolumes2");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let (a, theirs) = (container(&real, &p, "a", |_| {}), container(&real, &q, "theirs", |_| {}));
    let friend = container(&real, &p, "friend", |_| {});
    install(&real, &[&a, &theirs, &friend]);
    let run = |line: &str| real.sh(&a, line).trim_end().to_owned();
    // By its number: all containers have the same ids on the host, so that the kernel would not refuse it.
    let id = real.sh(&theirs, "subvolumes create / nested > /dev/null && echo kept > /nested/f && subvolumes id /nested");
    assert!(id.trim().parse::<u64>().is_ok_and(|id| id > 255), "{id}");
    assert_eq!(run(&format!("subvolumes destroy-by-id / {}", id.trim())), "Operation not permitted");
    assert_eq!(real.sh(&theirs, "cat /nested/f"), "kept\n");
    // By a share: what is shared is a directory, and its owner's volume is more.
    real.sh(&friend, "mkdir -p /hoody/storage/d && subvolumes create /hoody/storage/d nested && echo secret > /etc/secret");
    for mode in [ShareMode::Readonly, ShareMode::Readwrite] {
        let s = share(&real, &friend, "/hoody/storage/d", &a, mode);
        say(&real, &a, &s, true);
        let at = run("ls -d /hoody/shares/*");
        let said = run(&format!("subvolumes snapshot {at} / stolen; ls -d /stolen 2>&1 || true"));
        assert!(!said.starts_with("ok") && said.ends_with("No such file or directory"), "{mode:?}: {said}");
        let wanted = if mode == ShareMode::Readonly { "Read-only file system" } else { "ok" };
        assert_eq!(run(&format!("subvolumes destroy {at} nested")), wanted, "{mode:?}");
        say(&real, &a, &s, false);
        real.host().delete_share(&hoody_state::Caller::default(), &s.id).unwrap();
    }
}
