//! How soon waits end: writes that were held for a snapshot, a killed waiter, a dead holder. Prints one JSON line for each; slowness is not a failure.
//!
//! `cargo bench -p hoody-state-fuse --bench liveness -- --dir DIR` (a directory of the file system to measure; needs root and `/dev/fuse`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state_fuse::mount::{Mount, MountOptions};
use nix::time::{ClockId, clock_gettime};
use rusqlite::Connection;
use serde_json::json;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WRITERS: usize = 8;
const HOLDS: usize = 60;
const KILLS: usize = 30;

fn main() {
    let raw: Vec<String> = std::env::args().collect();
    if let [_, word, what, db] = &raw[..]
        && word == "worker"
    {
        return work(what, Path::new(db));
    }
    let Some(at) = raw.iter().position(|a| a == "--dir") else {
        println!("liveness: give --dir DIR (see the head of benches/liveness.rs)");
        return;
    };
    let place = PathBuf::from(raw.get(at + 1).expect("a directory")).join(format!("liveness-{}", std::process::id()));
    let (back, mnt) = (place.join("back"), place.join("mnt"));
    std::fs::create_dir_all(&back).expect("make the backing");
    std::fs::create_dir_all(&mnt).expect("make the mountpoint");
    let mount = Mount::single(&back, &mnt, &MountOptions::default()).expect("mount");
    for journal in ["wal", "delete"] {
        let db = mnt.join(format!("{journal}.db"));
        let c = Connection::open(&db).unwrap();
        c.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(())).unwrap();
        c.execute_batch("CREATE TABLE t(v INTEGER); INSERT INTO t VALUES(0)").unwrap();
        drop(c);
        quiesce(&mount, &db, journal);
        say("killed waiter is gone", journal, 100_000, &killed_waiters(&db));
        say("dead holder's lock is handed on", journal, 10_000, &dead_holders(&db));
    }
    mount.unmount().expect("unmount");
    drop(mount);
    std::fs::remove_dir_all(&place).expect("clean up");
}

/// A worker: writes for ever, holds a write for ever, or says when it got to write.
fn work(what: &str, db: &Path) {
    let c = Connection::open(db).unwrap();
    c.busy_timeout(Duration::ZERO).unwrap();
    let say = |line: String| std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
    match what {
        "write" => {
            say("ready".into());
            loop {
                c.execute("UPDATE t SET v = v + 1", []).unwrap();
            }
        }
        "hold" => {
            c.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = v + 1").unwrap();
            say("held".into());
            std::thread::sleep(Duration::from_secs(3600));
        }
        _ => {
            say("asking".into());
            c.execute_batch("BEGIN IMMEDIATE").unwrap();
            say(now_us().to_string());
            c.execute_batch("COMMIT").unwrap();
        }
    }
}

/// Of a clock that all processes share.
fn now_us() -> u64 {
    let t = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    u64::try_from(t.as_micros()).unwrap()
}

struct Worker(Child, BufReader<std::process::ChildStdout>);

impl Worker {
    fn start(what: &str, db: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap()).args(["worker", what]).arg(db).stdout(Stdio::piped()).spawn().expect("start a worker");
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Worker(child, out);
        worker.line();
        worker
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn quiesce(mount: &Mount, db: &Path, journal: &str) {
    let writers: Vec<Worker> = (0..WRITERS).map(|_| Worker::start("write", db)).collect();
    let id = mount.volume_id(OsStr::new("")).unwrap();
    let mut took = Vec::new();
    for _ in 0..HOLDS {
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let held = mount.locks().quiesce(&[id], Duration::from_secs(10), Duration::from_secs(10)).expect("quiet");
        took.push(u64::try_from(began.elapsed().as_micros()).unwrap());
        assert!(held.release());
    }
    drop(writers);
    say("writes of 8 processes are held", journal, 20_000, &took);
}

fn killed_waiters(db: &Path) -> Vec<u64> {
    let _holder = Worker::start("hold", db);
    let one = |_| {
        let mut waiter = Worker::start("ask", db);
        std::thread::sleep(Duration::from_millis(30));
        let began = Instant::now();
        waiter.kill();
        u64::try_from(began.elapsed().as_micros()).unwrap()
    };
    (0..KILLS).map(one).collect()
}

fn dead_holders(db: &Path) -> Vec<u64> {
    let one = |_| {
        let mut holder = Worker::start("hold", db);
        let mut waiter = Worker::start("ask", db);
        std::thread::sleep(Duration::from_millis(30));
        let killed = now_us();
        holder.kill();
        waiter.line().parse::<u64>().expect("it got to write").saturating_sub(killed)
    };
    (0..KILLS).map(one).collect()
}

fn say(what: &str, journal: &str, target_us: u64, took: &[u64]) {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let (median, worst) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let late = sorted.iter().filter(|t| **t > target_us).count();
    println!(
        "{}",
        json!({ "liveness": what, "journal": journal, "n": sorted.len(), "median_us": median, "worst_us": worst, "target_us": target_us, "over_target": late })
    );
}
