//! A full run directory, and a full disk under the log: the server goes on, says what lacks, and works again once there is room.

use crate::server::{Request, Server};
use crate::world::{World, new_container};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A small file system in memory; taken off again however the test ends.
struct Small(PathBuf);

impl Small {
    /// With a directory in it that `link` leads to.
    fn behind(link: &Path) -> Self {
        let name = link.file_name().unwrap().to_string_lossy();
        let at = hoody_state_workspace::scratch(&format!("faults-small-{name}"));
        mount(Some("small"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=8m,mode=755")).expect("this test needs root");
        std::fs::create_dir(at.join("in")).unwrap();
        std::os::unix::fs::symlink(at.join("in"), link).unwrap();
        Small(at)
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut f = File::create(&path).unwrap();
        while f.write_all(&[7; 4096]).is_ok() {}
        while f.write_all(&[7]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_run_directory_and_a_full_log_lose_nothing() {
    let server = Server::new("faults-rooms");
    let (run, log) = (Small::behind(&server.run()), Small::behind(&server.dir.join("logs")));
    File::create(log.0.join("in/log")).unwrap();
    std::os::unix::fs::symlink(log.0.join("in/log"), server.dir.join("log")).unwrap();
    let mut w = World::with(server);
    let c = w.create(&new_container("agent"));
    w.write(&c, "before");
    w.snapshot(&c, "before");

    let fillers = [run.fill(), log.fill()];
    // What takes no room there works, and is kept.
    w.write(&c, "while full");
    w.snapshot(&c, "while-full");
    // What does take some may fail, with an error of its own and no harm.
    for r in [
        Request::new("POST", format!("/containers/{c}/exec")).json(&serde_json::json!({ "command": ["/bin/true"] })),
        w.verb(&c, "restart"),
        Request::new("PUT", format!("/containers/{c}/snapshots/before")),
    ] {
        let answer = w.send(&r, None).expect("the server answers");
        assert!(answer.status < 600 && answer.data["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
    }
    assert!(!w.server.is_dead(), "the server has died of a full disk");

    fillers.iter().for_each(|f| std::fs::remove_file(f).unwrap());
    w.settle();
    w.bring(&c, "running");
    w.must(&Request::new("PUT", format!("/containers/{c}/snapshots/while-full")));
    assert_eq!(w.view(&c).unwrap().state, "while full");
    w.works(&c);
    assert!(!w.server.log_tail().contains("panicked"), "{}", w.server.log_tail());
    // Not `sound` and `end`: they know the mounts of a run directory by their paths, and this one is behind a link.
    let check = w.server.check();
    assert!(check.status.success() && check.stdout.is_empty(), "{check:?}");
    let dir = w.server.dir.clone();
    drop(w);
    assert!(!dir.exists(), "it is taken down");
}
