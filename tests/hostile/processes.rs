//! What runs in a container.

use super::me;
use hoody_state::Code;
use hoody_state::model::{Status, Verb};
use hoody_state::runtime::ExecSpec;
use hoody_state_workspace::{RealHost, assert_clean, container, project, snapshot};
use std::time::{Duration, Instant};

fn pids(real: &RealHost, c: &hoody_state::id::ContainerId) -> u64 {
    real.host().stats(c).unwrap().processes
}

#[test]
fn a_fork_bomb_is_paused_snapshotted_stopped_and_deleted() {
    let real = RealHost::new("h-bomb");
    let h = real.host();
    let c = container(h, &project(h, "p"), "dev").unwrap();
    let bomb = "i=0; while [ $i -lt 100 ]; do (while :; do /bin/true & /bin/true & wait; done) > /dev/null 2>&1 & i=$((i+1)); done";
    let spec = ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), bomb.into()], timeout: Some(Duration::from_secs(5)), ..Default::default() };
    let _ = h.exec(&c, &spec);
    std::thread::sleep(Duration::from_millis(700));
    let before = pids(&real, &c);
    assert!(before > 50, "only {before} processes: no bomb");
    let t = Instant::now();
    match h.lifecycle(&me(), &c, Verb::Pause, None) {
        Ok(_) => {
            assert_eq!(h.container(&c).unwrap().status, Status::Paused);
            let n = pids(&real, &c);
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(pids(&real, &c), n, "it stands still");
            snapshot(h, &c, "s").unwrap();
            h.lifecycle(&me(), &c, Verb::Resume, None).unwrap();
        }
        // It says so, and the container goes on.
        Err(e) => {
            assert_eq!(e.code(), Code::FreezeTimeout);
            assert_eq!(h.container(&c).unwrap().status, Status::Running);
        }
    }
    let paused = t.elapsed();
    let t = Instant::now();
    h.lifecycle(&me(), &c, Verb::ForceStop, None).unwrap();
    let killed = t.elapsed();
    assert_eq!(pids(&real, &c), 0);
    assert_clean(h, "after a fork bomb");
    h.lifecycle(&me(), &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "echo alive"), "alive\n");
    println!("a fork bomb of {before} processes: paused and resumed in {paused:?}, killed in {killed:?}");
}

#[test]
fn an_init_killed_from_outside_while_paused_is_noticed_and_the_container_starts_again() {
    let real = RealHost::new("h-kill");
    let h = real.host();
    let c = container(h, &project(h, "p"), "dev").unwrap();
    real.sh(&c, "(sleep 1234 &) ; true");
    h.lifecycle(&me(), &c, Verb::Pause, None).unwrap();
    // Somebody who does not ask: the whole group is killed under us.
    let found = std::process::Command::new("sh").arg("-c").arg(format!("find /sys/fs/cgroup -type d -path '*{c}*'")).output().unwrap();
    let mut killed = 0;
    for dir in String::from_utf8(found.stdout).unwrap().lines() {
        let procs = std::fs::read_to_string(format!("{dir}/cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|p| p.parse().ok()).filter(|p| *p > 1) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            killed += 1;
        }
    }
    assert!(killed > 0, "no process of the container was found");
    let end = Instant::now() + Duration::from_secs(3);
    while h.container(&c).unwrap().status == Status::Paused && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    // A v1 group that is frozen holds even those that are killed, until it is thawed.
    if h.container(&c).unwrap().status == Status::Paused {
        h.lifecycle(&me(), &c, Verb::Resume, None).unwrap();
    }
    let end = Instant::now() + Duration::from_secs(5);
    while h.container(&c).unwrap().status != Status::Stopped {
        assert!(Instant::now() < end, "its end is not noticed: {:?}", h.container(&c).unwrap().status);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_clean(h, "after an init that was killed while paused");
    h.lifecycle(&me(), &c, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&c, "echo alive"), "alive\n");
    assert_clean(h, "started again");
}
