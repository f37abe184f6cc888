//! Kills of `unmount` at any instant: the next one, or the next start, finds its way.

use crate::leftovers;
use crate::server::{Request, Server};
use crate::world::{image, new_container};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn must(s: &Server, r: &Request) -> Value {
    let a = r.send(&s.socket(), None).unwrap_or_else(|| panic!("no answer\n{}", s.log_tail()));
    assert!(a.status < 300, "{}", a.data);
    a.data["data"].clone()
}

pub fn kills(rounds: u32) {
    let mut s = Server::new("kill-unmount");
    s.start();
    let mut import = Request::new("PUT", "/images/busybox");
    import.body = image();
    must(&s, &import);
    let p = must(&s, &Request::new("POST", "/projects").json(&json!({ "alias": "p" })))["id"].as_str().unwrap().to_owned();
    let containers = ["owner", "other"].map(|n| {
        let r = Request::new("POST", format!("/projects/{p}/containers")).json(&new_container(n));
        must(&s, &r)["id"].as_str().unwrap().to_owned()
    });
    let runs = |s: &Server, c: &str| must(s, &Request::new("GET", format!("/containers/{c}")))["status"] == "running";
    let eventually = |s: &Server, what: &str, f: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !f() {
            assert!(Instant::now() < end, "{what}\n{}", s.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let exec = |s: &Server, c: &str, line: &str| {
        let r = Request::new("POST", format!("/containers/{c}/exec")).json(&json!({ "command": ["/bin/sh", "-c", line] }));
        must(s, &r)["stdout"].as_str().unwrap().to_owned()
    };
    for c in &containers {
        eventually(&s, "the first start", &|| runs(&s, c));
    }
    exec(&s, &containers[0], "mkdir /hoody/storage/docs; echo d > /hoody/storage/docs/f; echo b > /hoody/databases/f");
    let offer = json!({ "source_path": "/hoody/storage/docs", "mode": "readonly", "target_project_id": p });
    must(&s, &Request::new("POST", format!("/containers/{}/storage/shares", containers[0])).json(&offer));
    let mut cut = 0;
    for i in 0..rounds {
        s.end();
        // Once, or twice in a row.
        for _ in 0..=i % 2 {
            cut += u32::from(!s.unmount_killed_after(Duration::from_millis(u64::from(i) * 15 + 5)));
        }
        if i % 3 == 2 {
            assert!(s.unmount_killed_after(Duration::from_secs(10)), "it ends");
            assert_eq!(leftovers::of_machine(&s.dir), Vec::<String>::new(), "what was left of {i} is taken down by the next");
        }
        s.start();
        for c in &containers {
            eventually(&s, "the start after an unmount that was cut short", &|| runs(&s, c));
        }
        let other = &containers[1];
        let line = "cat /hoody/shares/docs/f /hoody/databases/f; echo r > /ramdisk/f && cat /ramdisk/f";
        // A daemon that was told to end may answer the new server once more before it does.
        eventually(&s, "its paths", &|| exec(&s, other, line) == "d\nb\nr\n");
        eventually(&s, "a silent check", &|| s.check().status.success());
    }
    println!("{cut} of {rounds} and more were cut short");
    assert!(cut > 0);
    s.end();
    s.take_down().unwrap();
}
