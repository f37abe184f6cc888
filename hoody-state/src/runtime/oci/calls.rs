//! The system call filter as a container meets it: each rule by every calling convention of this processor.

use super::testing::Fixture;
use crate::id::ContainerId;
use crate::runtime::suite::eventually;
use crate::runtime::{ExecSpec, Runtime};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PROGRAM: &str = include_str!("calls.c");
/// What a program in a container may do. Everything else that the program tries must be refused.
const PERMITTED: [&str; 18] = [
    "socket-unix",
    "socket-inet",
    "socket-inet6",
    "socket-netlink",
    "socket-packet",
    "socket-unix-high",
    "socketpair-unix",
    "clone-plain",
    "personality-linux",
    "personality-32-bit",
    "personality-ask",
    "ioctl-other",
    "ioctl-zero",
    "ioctl-all-ones",
    "ioctl-destroy-by-name",
    "ioctl-almost-destroy-by-id",
    "ioctl-almost-subvolumes",
    "getpid",
];

fn build(to: &Path) {
    let source = to.with_extension("c");
    std::fs::write(&source, PROGRAM).unwrap();
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(to).arg(&source).status().expect("this test needs a C compiler");
    assert!(built.success());
}

fn read(said: &str) -> BTreeMap<(String, String), String> {
    assert!(said.ends_with("done\n"), "the program came to its end: {said}");
    let lines = said.lines().filter_map(|l| {
        let mut words = l.split(' ').map(str::to_owned);
        Some(((words.next()?, words.next()?), words.next()?))
    });
    lines.collect()
}

/// EPERM and ENOSYS are the filter's words; SIGSYS is its end of a process.
fn refused(result: &str) -> bool {
    matches!(result, "1" | "38" | "killed-31")
}

#[test]
#[cfg(target_arch = "x86_64")]
fn no_calling_convention_passes_the_filter() {
    let f = Fixture::new();
    build(&f.root().join("bin/calls"));
    let outside = Command::new(f.root().join("bin/calls")).output().unwrap();
    let outside = read(&String::from_utf8_lossy(&outside.stdout));
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
    let exec = ExecSpec { command: vec!["/bin/calls".into()], output_limit: 1 << 20, timeout: Some(Duration::from_secs(60)), ..ExecSpec::default() };
    let by_exec = f.rt().exec(&c, &exec).unwrap();
    f.rt().kill(&c).unwrap();
    f.rt().start(&f.sh(&c, "calls; sleep 1000")).unwrap();
    eventually("the program's end", || f.rt().console(&c, None).unwrap().ends_with(b"done\n"));
    let by_init = f.rt().console(&c, None).unwrap();
    for said in [by_exec.stdout, by_init] {
        let inside = read(&String::from_utf8_lossy(&said));
        assert_eq!(inside.len(), outside.len());
        let mut wrong = Vec::new();
        for ((convention, name), result) in &inside {
            let here = &outside[&(convention.clone(), name.clone())];
            let permitted = convention != "x32" && PERMITTED.contains(&name.as_str());
            if permitted && result != here || !permitted && !refused(result) {
                wrong.push(format!("{convention} {name}: {result} in the container, {here} on the host"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        // A filter that refuses everything would pass so far.
        assert_eq!(inside[&("native".to_owned(), "socket-unix".to_owned())], "ok");
    }
}
