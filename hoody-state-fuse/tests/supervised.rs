//! A mount that comes back when its daemon dies, and what its users had begun meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::locked_db::control::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::daemon::{DAEMON, make, open, value};

struct Supervised(tempfile::TempDir);

impl Supervised {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let s = Supervised(dir);
        let mounted = s.run("mount").arg("--supervise").arg("--log").arg(s.at("log")).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        s
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn run(&self, what: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg("30").arg(DAEMON).arg(what).arg(self.at("db")).arg("--control").arg(self.at("sock"));
        command
    }

    fn pid(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.at("sock")).ok()?;
        Client::connect(&self.at("sock")).ok()?.ping().ok()?;
        nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).ok().map(|p| Pid::from_raw(p.pid()))
    }

    /// Kills the daemon; how long until another answers.
    fn kill(&self) -> Duration {
        let was = self.pid().unwrap();
        kill(was, Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        while self.pid().is_none_or(|now| now == was) {
            assert!(killed.elapsed() < Duration::from_secs(20), "it comes back: {}", std::fs::read_to_string(self.at("log")).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        killed.elapsed()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let unmounted = self.run("unmount").status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn parent(pid: Pid) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    Pid::from_raw(stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap())
}

#[test]
fn a_killed_daemon_is_started_again_and_unmount_ends_both() {
    let s = Supervised::start();
    drop(make(s.at("db/a.db"), "wal"));
    for n in 1..3 {
        let took = s.kill();
        assert!(took < Duration::from_secs(10), "{took:?}");
        let c = open(s.at("db/a.db"));
        c.execute("UPDATE t SET v = v + 1", []).unwrap();
        assert_eq!(value(&c), n);
    }
    let supervisor = parent(s.pid().unwrap());
    let state = || std::fs::read_to_string(format!("/proc/{supervisor}/stat")).ok();
    assert!(state().unwrap().contains("hoody-state-fus"));
    drop(s);
    let end = Instant::now() + Duration::from_secs(10);
    while state().is_some_and(|s| !s.contains(") Z ")) {
        assert!(Instant::now() < end, "the supervisor goes with its daemon");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is open goes on to the backing files when the daemon is dead: a transaction that was under way may end beside the new mount. Writers of the new one would
/// have written into the same places of the log.
#[test]
fn a_write_transaction_that_was_under_way_is_waited_for_by_the_next_mount() {
    let s = Supervised::start();
    for journal in ["wal", "delete"] {
        let path = s.at(&format!("db/{journal}.db"));
        drop(make(path.clone(), journal));
        let code = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nc.execute('pragma synchronous=off')\nc.execute('begin immediate')\nc.execute('update t set v=v+1')\nprint('held',flush=True)\nsys.stdin.readline()\ntry:\n c.execute('commit'); print('committed',flush=True)\nexcept sqlite3.Error as e: print(e,flush=True)\nsys.stdin.readline()";
        let mut user = Command::new("python3").args(["-c", code]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(user.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        s.kill();
        let committed = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| open(path.clone()).execute("UPDATE t SET v = v + 10", []).unwrap());
            std::thread::sleep(Duration::from_millis(800));
            assert!(!waiter.is_finished(), "{journal}: it waits for the transaction");
            user.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            line.clear();
            said.read_line(&mut line).unwrap();
            std::thread::sleep(Duration::from_millis(500));
            drop(user.stdin.take());
            user.wait().unwrap();
            waiter.join().unwrap();
            line == "committed\n"
        });
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let c = open(path);
        assert_eq!(value(&c), if committed { 11 } else { 10 }, "{journal}: {line}");
        assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok", "{journal}");
    }
}

/// Locks of a user that has died too are released.
#[test]
fn a_user_that_died_with_the_daemon_holds_nobody_up() {
    let s = Supervised::start();
    drop(make(s.at("db/a.db"), "wal"));
    let mut user = support::daemon::holder(&s.at("db/a.db"));
    user.kill().unwrap();
    s.kill();
    user.wait().unwrap();
    open(s.at("db/a.db")).execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!(value(&open(s.at("db/a.db"))), 1);
}
