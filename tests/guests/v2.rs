//! A host whose only control groups are version 2, with the controllers for memory, processors and processes: as most servers have it, and unlike the
//! machines on which the other tests run. Its kernel is also an old one (6.1): what it lacks must be said clearly, and everything else must work.

use crate::guest::Agent;
use crate::load::waiting;
use crate::server::{Host, RUN, Storage, get, must, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

struct World {
    host: Host,
    project: String,
}

impl World {
    fn create(&self, new: &Value) -> String {
        let id = must("POST", &format!("/projects/{}/containers", self.project), new)["id"].as_str().unwrap().to_owned();
        self.host.await_status(&id, "running");
        id
    }

    /// A file of a container's control group.
    fn group(&self, id: &str, file: &str) -> String {
        let path = format!("/sys/fs/cgroup/hoody/*/{id}/{file}");
        Agent::connect().unwrap().sh(&format!("cat {path}")).trim().to_owned()
    }

    fn stats(&self, id: &str) -> Value {
        get(&format!("/containers/{id}/stats"))
    }
}

#[test]
fn a_host_with_cgroup_v2_alone() {
    // A machine's network is that of a thread.
    std::thread::spawn(|| {
        let host = Host::new("v2", Storage::Image);
        host.import("busybox");
        let project = must("POST", "/projects", &json!({ "alias": "p" }))["id"].as_str().unwrap().to_owned();
        let mut w = World { host, project };
        let mounts = Agent::connect().unwrap().sh("grep cgroup /proc/mounts");
        assert_eq!(mounts.lines().count(), 1, "cgroup v2 alone: {mounts}");
        assert!(mounts.contains(" cgroup2 "), "{mounts}");
        limits_hold(&w);
        a_kill_for_memory_is_seen(&w);
        a_paused_container_stands_still(&w);
        a_killed_server_adopts_what_runs(&mut w);
        what_an_old_kernel_lacks_is_said(&w);
        w.host.settle();
        w.host.check();
        let (code, out, err) = {
            Agent::connect().unwrap().sh("kill -TERM $(pidof hoody-state-http); while pidof hoody-state-http >/dev/null; do sleep 0.05; done");
            w.host.command("unmount")
        };
        assert_eq!(code, Some(0), "unmount: {out}{err}");
        let left = Agent::connect()
            .unwrap()
            .sh("ls -d /sys/fs/cgroup/hoody/*/* 2>/dev/null | grep -v cgroup[.] | grep -v memory | grep -v cpu | grep -v pids | grep -v io || true");
        let groups: Vec<&str> = left.lines().filter(|l| !l.contains('.')).collect();
        assert!(groups.is_empty(), "control groups are left after unmount: {groups:?}");
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn limits_hold(w: &World) {
    let id = w.create(&json!({ "name": "limited", "command": waiting(), "memory": 64, "cpu": 0.5 }));
    assert_eq!(w.group(&id, "memory.max"), (64u64 << 20).to_string());
    assert_eq!(w.group(&id, "cpu.max"), "50000 100000");
    let tasks: u64 = w.group(&id, "pids.max").parse().expect("processes are limited");
    let stats = w.stats(&id);
    assert!(stats["memory"]["usage"].as_u64().unwrap() > 0 && stats["cpu"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!(stats["tasks"]["limit"].as_u64(), Some(tasks), "{stats}");

    // Half of the processor and not more.
    let began = Instant::now();
    let used = || w.group(&id, "cpu.stat").lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse::<u64>().ok()).unwrap();
    let before = used();
    w.host.exec(&id, "timeout 3 sh -c 'while :; do :; done'; true");
    let (used, time) = (used() - before, began.elapsed().as_micros() as u64);
    assert!(used < time * 6 / 10, "{used} µs of processor time in {time} µs");

    // No more processes than there may be; those that are there go on.
    w.group(&id, "pids.current").parse::<u64>().unwrap();
    Agent::connect().unwrap().sh(&format!("echo 20 > $(echo /sys/fs/cgroup/hoody/*/{id})/pids.max"));
    let (_, out) = w.host.exec(&id, "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; true");
    assert!(out.contains("fork"), "the twentieth process was not refused: {out}");
    Agent::connect().unwrap().sh(&format!("echo {tasks} > $(echo /sys/fs/cgroup/hoody/*/{id})/pids.max"));
    must("POST", &format!("/containers/{id}/force-stop"), &Value::Null);
    assert!(!w.group(&id, "cgroup.events").contains("populated 1"), "a process is left in a stopped container");
    must("DELETE", &format!("/containers/{id}"), &Value::Null);
}

fn a_kill_for_memory_is_seen(w: &World) {
    let id = w.create(&json!({ "name": "hungry", "command": waiting(), "memory": 24 }));
    // One block of more memory than there is.
    let hungry = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let out = must("POST", &format!("/containers/{id}/exec"), &json!({ "command": ["/bin/sh", "-c", hungry] }));
    assert_eq!(out["exit_code"], 137, "a command that takes more memory than there is: {out}");
    let kills = |events: String| events.lines().find_map(|l| l.strip_prefix("oom_kill ")?.parse::<u64>().ok()).unwrap();
    assert!(kills(w.group(&id, "memory.events")) > 0);
    assert_eq!(get(&format!("/containers/{id}"))["status"], "running", "the container itself goes on");
    must("DELETE", &format!("/containers/{id}"), &Value::Null);

    // When it is the container's first process, the container stops.
    let id =
        must("POST", &format!("/projects/{}/containers", w.project), &json!({ "name": "greedy", "command": ["/bin/sh", "-c", hungry], "memory": 24 }))["id"]
            .as_str()
            .unwrap()
            .to_owned();
    w.host.await_status(&id, "stopped");
    let now = get(&format!("/containers/{id}"));
    assert!(now["status_message"].as_str().is_some_and(|m| m.contains("memory")), "the reason of its end is not said: {now}");
    must("DELETE", &format!("/containers/{id}"), &Value::Null);
}

fn a_paused_container_stands_still(w: &World) {
    let count = "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.05; done";
    let id = w.create(&json!({ "name": "counter", "command": ["/bin/sh", "-c", count] }));
    let counted = || Agent::connect().unwrap().read(&format!("{RUN}/pool/containers/{id}/live/count")).unwrap();
    must("POST", &format!("/containers/{id}/pause"), &Value::Null);
    assert!(w.group(&id, "cgroup.events").contains("frozen 1"));
    let then = counted();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(counted(), then, "a paused container goes on");
    must("POST", &format!("/containers/{id}/resume"), &Value::Null);
    let end = Instant::now() + Duration::from_secs(30);
    while counted() == then {
        assert!(Instant::now() < end, "a resumed container stands still");
        std::thread::sleep(Duration::from_millis(50));
    }
    must("DELETE", &format!("/containers/{id}"), &Value::Null);
}

fn a_killed_server_adopts_what_runs(w: &mut World) {
    let [running, paused] = ["running", "paused"].map(|name| w.create(&json!({ "name": name, "command": waiting(), "memory": 64 })));
    must("POST", &format!("/containers/{paused}/pause"), &Value::Null);
    let processes = |w: &World, id: &str| w.group(id, "run/cgroup.procs");
    let before = [&running, &paused].map(|id| processes(w, id));
    Agent::connect().unwrap().sh("kill -9 $(pidof hoody-state-http); while pidof hoody-state-http >/dev/null; do sleep 0.05; done");
    w.host.serve();
    assert_eq!([&running, &paused].map(|id| processes(w, id)), before, "the same processes");
    assert_eq!([&running, &paused].map(|id| get(&format!("/containers/{id}"))["status"].clone()), ["running", "paused"]);
    assert_eq!(w.host.exec(&running, "echo here"), (0, "here\n".into()));
    assert_eq!(w.group(&running, "memory.max"), (64u64 << 20).to_string(), "limits stay");
    for id in [running, paused] {
        must("POST", &format!("/containers/{id}/stop"), &json!({ "timeout": 5 }));
        w.host.await_status(&id, "stopped");
        must("POST", &format!("/containers/{id}/start"), &Value::Null);
        w.host.await_status(&id, "running");
        must("DELETE", &format!("/containers/{id}"), &Value::Null);
    }
}

/// Linux 6.1 has no FUSE passthrough.
fn what_an_old_kernel_lacks_is_said(w: &World) {
    let said = std::fs::read_to_string(w.host.machine.console()).unwrap();
    assert!(said.contains("no FUSE passthrough: reads and writes go through the page cache"), "the lack of passthrough is not said:\n{said}");
    assert!(!said.contains("panicked"), "something panicked:\n{said}");
    assert_eq!(send("GET", "/pool", b"").unwrap().status, 200);
}
