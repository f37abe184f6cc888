//! A server, and a daemon of databases, that may have few descriptors open.

use crate::server::{Request, Server};
use crate::world::{World, new_container};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The fewest with which the daemon starts.
const DESCRIPTORS: u64 = 256;

fn few_descriptors(command: &mut Command) {
    limit(command, DESCRIPTORS);
}

fn too_few_descriptors(command: &mut Command) {
    limit(command, 64);
}

fn limit(command: &mut Command, descriptors: u64) {
    let limit = move || nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, descriptors, descriptors).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(limit);
    }
}

#[test]
fn with_sixty_four_descriptors_a_server_says_what_it_needs_and_leaves_nothing() {
    let mut server = Server::new("faults-too-few-descriptors");
    server.prepare = Some(too_few_descriptors);
    server.spawn();
    let end = Instant::now() + Duration::from_secs(20);
    while !server.is_dead() {
        assert!(Instant::now() < end, "it neither works nor ends\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = server.log_tail();
    assert!(log.contains("limit of open files is 64") && log.contains("ulimit -n") && !log.contains("panicked"), "{log}");
    // With enough of them the same pool serves.
    server.prepare = None;
    let mut w = World::with(server);
    let c = w.create(&new_container("agent"));
    w.write(&c, "state");
    w.works(&c);
    w.sound();
    w.end();
}

#[test]
fn few_descriptors_are_enough_to_work_and_to_report_a_shortage() {
    let mut server = Server::new("faults-descriptors");
    server.prepare = Some(few_descriptors);
    let mut w = World::with(server);
    let c = w.create(&new_container("agent"));
    for n in 0..3 {
        w.write(&c, &format!("state {n}"));
        w.snapshot(&c, &format!("s{n}"));
    }
    w.must(&Request::new("PUT", format!("/containers/{c}/snapshots/s1")));
    w.works(&c);

    // More connections than there are descriptors: those that were there are served, and so is everybody once they have gone.
    let held: Vec<UnixStream> = (0..2 * DESCRIPTORS).map_while(|_| UnixStream::connect(w.server.socket()).ok()).collect();
    assert!(held.len() as u64 > DESCRIPTORS / 2, "only {} connections", held.len());
    std::thread::sleep(Duration::from_millis(500));
    assert!(!w.server.is_dead(), "the server has died of too many connections\n{}", w.server.log_tail());
    drop(held);
    w.must(&Request::new("GET", "/pool"));

    // A file is open for each of a container's descriptors of the mount: the daemon runs out, and says so to who asks for more.
    let out = w.must(&Request::new("POST", format!("/containers/{c}/exec")).json(&json!({
        "command": ["/bin/sh", "-c", "cd /hoody/databases; i=0; while [ $i -lt 400 ]; do echo $i > f$i || break; i=$((i+1)); done; sh -c 'i=3; while [ $i -lt 400 ]; do eval \"exec $i<f$i\" || exit 7; i=$((i+1)); done'; echo ended with $?"]
    })));
    assert!(out["stderr"].as_str().unwrap().contains("Too many open files"), "400 files of a mount whose daemon has {DESCRIPTORS} descriptors: {out}");
    w.works(&c);
    w.snapshot(&c, "after");
    let status = w.send(&Request::new("GET", "/pool"), None).expect("the server serves");
    assert_eq!(status.status, 200);
    assert!(!w.server.log_tail().contains("panicked"), "{}", w.server.log_tail());
    w.sound();
    w.end();
}
