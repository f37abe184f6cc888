//! Containers that end by themselves: `status_message`, the status log, the event and the answer of a start say why.

use super::me;
use hoody_state::id::ContainerId;
use hoody_state::model::{EventFilter, NewContainer, PageRequest, Status, Verb};
use hoody_state_workspace::{RealHost, project};
use std::time::{Duration, Instant};

fn create(real: &RealHost, name: &str, script: &str, memory: Option<u64>) -> ContainerId {
    let h = real.host();
    let p = project(h, name);
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    h.create_container(&me(), &p, NewContainer { name: Some(name.into()), command: Some(command), memory, ..Default::default() }).unwrap().id
}

/// Waits until the container has ended; why, by its `status_message`.
fn ended(real: &RealHost, c: &ContainerId) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let now = real.host().container(c).unwrap();
        if now.status == Status::Stopped {
            return now.status_message.unwrap_or_else(|| panic!("it is stopped and does not say why"));
        }
        assert!(Instant::now() < until, "it is still {}", now.status);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_end_of_a_container_has_a_reason() {
    let real = RealHost::new("h-ends");
    let h = real.host();

    // An init that ends at once, as systemd does in a container that it cannot run in.
    let c = create(&real, "early", "[ -e /again ] && exit 3; touch /again; echo mounting; echo Failed to mount api filesystems >&2; exit 255", None);
    assert_eq!(ended(&real, &c), "the container's init ended with exit code 255; the console ends with: mounting | Failed to mount api filesystems");
    let log = h.status_logs(&c, &PageRequest::first()).unwrap().rows;
    let meta = log[0].metadata.clone().unwrap();
    assert_eq!((log[0].triggered_by.as_str(), &meta["exit_code"]), ("init", &serde_json::json!(255)));
    assert!(meta["reason"].as_str().unwrap().contains("255") && meta["console"].as_str().unwrap().contains("Failed to mount"), "{meta}");
    let events = h.events(&EventFilter { limit: 100, ..Default::default() }).unwrap().0;
    let event = events.iter().find(|e| e.event_type == "container.stopped" && e.resource_id == c.as_str()).unwrap();
    assert!(event.payload["reason"].as_str().unwrap().contains("exit code 255"), "{}", event.payload);

    // What an earlier run wrote is not this run's.
    let answer = h.lifecycle(&me(), &c, Verb::Start, None).unwrap();
    assert_eq!(ended(&real, &c), "the container's init ended with exit code 3");
    // It may have ended before the answer, which then says so.
    assert!(answer.status == Status::Running || answer.message.contains("exit code 3"), "{answer:?}");

    // A stop that somebody asked for is no riddle.
    let c = create(&real, "asked", "trap 'exit 0' TERM; while :; do sleep 0.05; done", None);
    h.lifecycle(&me(), &c, Verb::Stop, None).unwrap();
    assert_eq!(h.container(&c).unwrap().status_message, None);

    // Killed from outside: nothing inside can do that to init.
    let c = create(&real, "killed", "sleep 1000", None);
    let record = real.config.run.join("oci/containers").join(c.as_str()).join("run.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let pid = nix::unistd::Pid::from_raw(record["init"]["pid"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let why = ended(&real, &c);
    assert!(why.contains("SIGKILL") && why.contains("process of the host"), "{why}");
}

#[test]
fn an_end_for_lack_of_memory_has_that_reason() {
    let real = RealHost::new("h-oom");
    let h = real.host();
    // init itself is the largest.
    let c = create(&real, "greedy", "[ -e /again ] && exit 4; touch /again; x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo survived", Some(32));
    let why = ended(&real, &c);
    assert!(why.contains("the kernel") && why.contains("its memory (32.0 MiB) was used up"), "{why}");
    let meta = h.status_logs(&c, &PageRequest::first()).unwrap().rows[0].metadata.clone().unwrap();
    assert!(meta["killed_for_memory"].as_u64().unwrap() > 0, "{meta}");
    // A later end for another reason is not blamed on it.
    h.lifecycle(&me(), &c, Verb::Start, None).unwrap();
    assert_eq!(ended(&real, &c), "the container's init ended with exit code 4");
}
