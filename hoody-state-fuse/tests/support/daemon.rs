//! The daemon for a test, and what tests do with databases on it.

use hoody_state::locked_db::LockedDb as _;
use hoody_state::locked_db::fuse::FuseLockedDb;
use rusqlite::Connection;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const DAEMON: &str = env!("CARGO_BIN_EXE_hoody-state-fuse");

/// The daemon as a process, gone with this.
pub struct Daemon {
    pub child: Child,
    pub dir: tempfile::TempDir,
}

impl Daemon {
    pub fn start(volumes: bool) -> Self {
        Self::start_with(volumes, &[])
    }

    pub fn start_with(volumes: bool, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for d in ["back", "mnt"] {
            std::fs::create_dir(dir.path().join(d)).unwrap();
        }
        let child = Self::spawn_with(&dir, volumes, options);
        Daemon { child, dir }
    }

    pub fn spawn(dir: &tempfile::TempDir, volumes: bool) -> Child {
        Self::spawn_with(dir, volumes, &[])
    }

    fn spawn_with(dir: &tempfile::TempDir, volumes: bool, options: &[&str]) -> Child {
        let backing = if volumes { PathBuf::from("-") } else { dir.path().join("back") };
        let mut child = Command::new(DAEMON)
            .arg("mount")
            .arg(backing)
            .arg(dir.path().join("mnt"))
            .arg("--control")
            .arg(dir.path().join("sock"))
            .arg("--foreground")
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("mounted"), "mounting needs root and /dev/fuse: {line}");
        child
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    pub fn locked_db_is_idle(&self) -> bool {
        self.locked_db().status().unwrap().files.is_empty()
    }

    pub fn locked_db(&self) -> FuseLockedDb {
        FuseLockedDb::new(&self.dir.path().join("sock"), &self.dir.path().join("mnt"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap()), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = nix::mount::umount2(&self.dir.path().join("mnt"), nix::mount::MntFlags::MNT_DETACH);
    }
}

pub fn open(path: PathBuf) -> Connection {
    let c = Connection::open(path).unwrap();
    c.busy_timeout(Duration::ZERO).unwrap();
    c
}

pub fn make(path: PathBuf, journal: &str) -> Connection {
    let c = open(path);
    c.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(())).unwrap();
    c.execute_batch("CREATE TABLE t(v INTEGER); INSERT INTO t VALUES(0)").unwrap();
    c
}

pub fn counter(d: &Daemon, name: &str) -> u64 {
    d.locked_db().status().unwrap().counters.get(name).copied().unwrap_or(0)
}

pub fn value(c: &Connection) -> i64 {
    c.query_row("SELECT v FROM t", [], |r| r.get(0)).unwrap()
}

/// A process that holds a write transaction until it is killed.
pub fn holder(path: &std::path::Path) -> Child {
    let code = "import sqlite3,sys,time\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nc.execute('begin immediate')\nc.execute('update t set v=v+1')\nprint('held',flush=True)\ntime.sleep(60)";
    held_by(code, path)
}

/// A process that runs `code` on a path, once it has said that it holds what it should.
pub fn held_by(code: &str, path: &std::path::Path) -> Child {
    let mut child = Command::new("python3").arg("-c").arg(code).arg(path).stdout(Stdio::piped()).spawn().expect("python3");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    child
}
