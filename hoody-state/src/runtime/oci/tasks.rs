//! Fork bombs in real containers, with limits so small that the machine does not notice.

use super::testing::Fixture;
use super::*;
use crate::cgroup::Layout;
use crate::error::Kind;
use crate::runtime::suite::eventually;
use std::time::Duration;

const PER_CONTAINER: u64 = 64;
const TOGETHER: u64 = 230;
/// Forks whenever it can. Its children sleep, so that the bomb takes process numbers and nothing else.
const BOMB: &str = "#include <unistd.h>\nint main(void) { for (;;) { int p = fork(); if (p == 0) for (;;) pause(); if (p < 0) usleep(10000); } }\n";

fn build_bomb(f: &Fixture) {
    let source = f.dir.path().join("bomb.c");
    std::fs::write(&source, BOMB).unwrap();
    let mut cc = std::process::Command::new("cc");
    assert!(cc.args(["-static", "-O1", "-o"]).arg(f.root().join("bin/bomb")).arg(&source).status().unwrap().success(), "this test needs a C compiler");
}

fn runtime(f: &Fixture) -> OciRuntime {
    let mut config = Fixture::config(f.dir.path(), &f.parent);
    config.pids_limit = Some(PER_CONTAINER);
    config.cgroups = CgroupTree::with_layout(Layout::detect().unwrap(), &f.parent).unwrap().with_task_limit(Some(TOGETHER));
    OciRuntime::new(config).unwrap()
}

fn exec(r: &OciRuntime, c: &ContainerId) -> Result<ExecOutput> {
    let command = ["/bin/sh", "-c", "echo ran"].map(str::to_owned).to_vec();
    r.exec(c, &ExecSpec { command, output_limit: 1000, timeout: Some(Duration::from_secs(20)), ..ExecSpec::default() })
}

#[test]
fn fork_bombs_in_several_containers_leave_the_host_its_process_numbers() {
    let f = Fixture::new();
    build_bomb(&f);
    let r = runtime(&f);
    assert_eq!(r.all_tasks(), Some(TaskStats { usage: 0, limit: Some(TOGETHER) }), "as long as nothing runs");
    let all: Vec<ContainerId> = (0..4).map(|_| ContainerId::generate()).collect();
    // One alone meets its own limit.
    r.start(&f.spec(&all[0], &["bomb"])).unwrap();
    eventually("the first container's limit", || r.stats(&all[0]).unwrap().tasks == Some(TaskStats { usage: PER_CONTAINER, limit: Some(PER_CONTAINER) }));
    // A command that needs no more than its own process may run there all the same; if not, the reason is said.
    assert!(exec(&r, &all[0]).map_or_else(|e| e.code() == Code::ContainerTaskLimit, |out| out.stdout == b"ran\n"));
    // A neighbour is not touched by that.
    r.start(&f.sh(&all[1], "sleep 1000")).unwrap();
    assert_eq!(exec(&r, &all[1]).unwrap().stdout, b"ran\n");
    r.kill(&all[1]).unwrap();
    // Together they meet the limit of all.
    for c in &all[1..] {
        r.start(&f.spec(c, &["bomb"])).unwrap();
    }
    eventually("the limit of all containers", || r.all_tasks() == Some(TaskStats { usage: TOGETHER, limit: Some(TOGETHER) }));
    assert!(all.iter().all(|c| r.stats(c).unwrap().tasks.unwrap().usage <= PER_CONTAINER));
    let late = ContainerId::generate();
    let e = r.start(&f.sh(&late, "sleep 1000")).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Unavailable, Code::PoolTaskLimit), "{e}");
    assert!(e.message().contains("230") && e.message().contains("--pool-tasks"), "{e}");
    assert!(!r.cgroups().populated(&late).unwrap(), "nothing of it is left");
    // The host starts what it wants, and the bombs end.
    assert!(std::process::Command::new("true").status().unwrap().success());
    for c in &all {
        r.kill(c).unwrap();
        // The kernel counts a dead process until its last reference is gone.
        eventually("the count to come down", || r.stats(c).unwrap().tasks.is_some_and(|t| t.usage == 0));
    }
    r.start(&f.sh(&late, "sleep 1000")).unwrap();
    assert_eq!(exec(&r, &late).unwrap().stdout, b"ran\n");
    for c in all.iter().chain([&late]) {
        r.remove(c).unwrap();
    }
}

#[test]
fn the_limit_of_all_follows_the_setting() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "sleep 1000")).unwrap();
    let host = f.rt().all_tasks().unwrap().limit.unwrap();
    let pid_max: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    assert!(host < pid_max && host > TOGETHER, "{host} of {pid_max}: some are left to the host");
    // A server that begins anew with another setting, while the container runs.
    let again = runtime(&f);
    assert_eq!(again.all_tasks().unwrap().limit, Some(TOGETHER));
    again.prepare(&c, &Limits::default()).unwrap();
    assert_eq!(again.stats(&c).unwrap().tasks.unwrap().limit, Some(PER_CONTAINER));
}

#[test]
fn a_container_that_may_have_too_few_to_start_says_so() {
    let f = Fixture::new();
    let mut config = Fixture::config(f.dir.path(), &f.parent);
    config.pids_limit = Some(2);
    let r = OciRuntime::new(config).unwrap();
    let c = ContainerId::generate();
    let e = r.start(&f.sh(&c, "sleep 1000")).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Conflict, Code::ContainerTaskLimit), "{e}");
    assert!(e.message().contains("may have 2") && e.message().contains(c.as_str()), "{e}");
    r.remove(&c).unwrap();
}
