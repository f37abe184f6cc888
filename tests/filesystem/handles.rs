//! File handles: what a container could open without a name.

use super::{container, real};
use hoody_state_workspace::project;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// A program that asks for a file's handle, then opens handles: its own, and those of other inodes of the same file system, which it makes up.
const PROGRAM: &str = include_str!("handles.c");

/// One project's container tries to open another project's databases by file handle: as it is, and as it would be without its system call filter and with
/// every capability in its own user namespace.
#[test]
fn no_file_handle_leads_to_another_projects_databases() {
    let real = real("handles");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let (a, other) = (container(&real, &p, "a", |_| {}), container(&real, &q, "other", |_| {}));
    real.sh(&other, "mkdir /hoody/databases/d; for i in 1 2 3; do echo secret > /hoody/databases/d/f$i; done");
    real.sh(&a, "echo own > /hoody/databases/own");
    // The numbers that the daemon gives out: an attacker would have to guess them.
    let theirs = real.config.run.join("databases").join(format!("project-{q}"));
    let mut numbers: Vec<String> = ["", "d", "d/f1", "d/f2", "d/f3"].iter().map(|n| std::fs::metadata(theirs.join(n)).unwrap().ino().to_string()).collect();
    numbers.push("1".into());
    let source = real.dir.join("handles.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let program = real.live(&a).join("handles");
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status().expect("this test needs a C compiler");
    assert!(built.success());
    let line = format!("/handles /hoody/databases/own {}", numbers.join(" "));
    let said = real.sh(&a, &line);
    println!("in the container:\n{said}");
    assert!(!said.contains("opened"), "a container opens nothing by handle");
    // The stronger one.
    let pid = pid_of_init(&real, &a);
    let out = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-U", "-m", "-p", "--setuid", "0", "--setgid", "0", "/handles", "/hoody/databases/own"])
        .args(&numbers)
        .output()
        .expect("this test needs nsenter");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    println!("with every capability:\n{said}{}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("tried"), "it has tried");
    assert!(!said.contains("secret") && !said.contains("opened other"), "{said}");
}

/// The host's pid of a container's init, from the runtime's record of it.
fn pid_of_init(real: &hoody_state_workspace::RealHost, c: &hoody_state::id::ContainerId) -> i64 {
    let record = real.config.run.join("oci/containers").join(c.as_str()).join("run.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["init"]["pid"].as_i64().unwrap()
}
