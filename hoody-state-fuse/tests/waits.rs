//! Who waits for a lock meets signals as it would natively: a handler of its own does not make a database locked, an alarm ends a wait for an ordinary file,
//! and whoever is killed is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use support::daemon::{Daemon, holder, make, open, value};

/// A python program that has said its first line.
struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    fn start(code: &str, path: &Path) -> Self {
        let mut child = Command::new("python3").arg("-c").arg(code).arg(path).stdout(Stdio::piped()).spawn().expect("python3");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Program { child, out }
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// What it says until it ends, and whether it ended well.
    fn end(mut self) -> (String, bool) {
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        (said, self.child.wait().unwrap().success())
    }
}

/// Waits until the daemon has that many waiters.
fn until_waiting(d: &Daemon, waits: u64) {
    let begun = Instant::now();
    while support::daemon::counter(d, "waits") < waits {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that holds an exclusive lock on an ordinary file until it is killed.
fn plain_holder(path: &Path) -> Program {
    std::fs::write(path, b"x").unwrap();
    Program::start("import fcntl,sys,time\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('ready',flush=True)\ntime.sleep(60)", path)
}

#[test]
fn a_service_with_a_handler_for_term_writes_after_the_holder_and_meets_no_error() {
    for journal in ["wal", "delete"] {
        let d = Daemon::start(false);
        drop(make(d.at("data.db"), journal));
        let mut holds = holder(&d.at("data.db"));
        let before = support::daemon::counter(&d, "waits");
        let service = Program::start(
            "import signal,sqlite3,sys\nsignal.signal(signal.SIGTERM,lambda *_: print('heard',flush=True))\nsignal.signal(signal.SIGHUP,lambda *_: print('heard',flush=True))\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nprint('ready',flush=True)\nc.execute('update t set v=v+10')\nprint('written',flush=True)",
            &d.at("data.db"),
        );
        until_waiting(&d, before + 1);
        service.send(Signal::SIGTERM);
        service.send(Signal::SIGHUP);
        // Long enough to be looked at many times.
        std::thread::sleep(Duration::from_millis(300));
        holds.kill().unwrap();
        holds.wait().unwrap();
        let (said, well) = service.end();
        assert!(well && said.contains("written"), "{journal}: {said}");
        assert_eq!(said.matches("heard").count(), 2, "{said}");
        assert_eq!(value(&open(d.at("data.db"))), 10, "the holder's write was not committed");
    }
}

#[test]
fn an_alarm_ends_the_wait_for_an_ordinary_file() {
    let d = Daemon::start(false);
    let holds = plain_holder(&d.at("plain"));
    // The handler raises an exception, so the wait is not continued; a second wait continues after a handler that does not.
    let waits = Program::start(
        "import fcntl,signal,sys,time\nclass Alarm(Exception): pass\ndef ring(*_): raise Alarm()\nsignal.signal(signal.SIGALRM,ring)\nf=open(sys.argv[1],'r+')\nprint('ready',flush=True)\nat=time.monotonic()+0.3\nsignal.setitimer(signal.ITIMER_REAL,0.3)\ntry:\n  fcntl.lockf(f,fcntl.LOCK_EX)\n  print('locked',flush=True)\nexcept Alarm: print(int((time.monotonic()-at)*1000),flush=True)\nsignal.signal(signal.SIGALRM,lambda *_: print('again',flush=True))\nsignal.setitimer(signal.ITIMER_REAL,0.1)\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('locked',flush=True)",
        &d.at("plain"),
    );
    std::thread::sleep(Duration::from_millis(900));
    holds.send(Signal::SIGKILL);
    assert!(!holds.end().1);
    let (said, well) = waits.end();
    let lines: Vec<&str> = said.lines().collect();
    assert!(well && lines.get(1..) == Some(&["again", "locked"]), "{said}");
    assert!(lines[0].parse::<u64>().is_ok_and(|late| late <= 200), "{said}");
}

#[test]
fn an_alarm_reaches_the_main_thread_and_no_other_that_waits() {
    let d = Daemon::start(false);
    let holds = plain_holder(&d.at("plain"));
    // Both wait, so the signal is there for both to be seen until the main thread is answered. Were the other one told, it would see errno 512.
    let code = "import fcntl,signal,sys,threading,time
f=open(sys.argv[1],'r+')
def wait():
  try: fcntl.lockf(f,fcntl.LOCK_EX,1,0); print('locked',flush=True)
  except OSError as e: print('errno',e.errno,flush=True)
t=threading.Thread(target=wait)
t.start()
heard=0
def ring(*_):
  global heard
  heard+=1
signal.signal(signal.SIGALRM,ring)
print('ready',flush=True)
signal.setitimer(signal.ITIMER_REAL,0.1,0.1)
fcntl.lockf(f,fcntl.LOCK_EX,1,1)
signal.setitimer(signal.ITIMER_REAL,0)
t.join()
print('heard' if heard>=4 else heard,flush=True)";
    let waits = Program::start(code, &d.at("plain"));
    std::thread::sleep(Duration::from_millis(1500));
    holds.send(Signal::SIGKILL);
    assert!(!holds.end().1);
    let (said, well) = waits.end();
    assert!(well && said == "locked\nheard\n", "{said}");
}

#[test]
fn a_killed_waiter_is_gone_at_once() {
    let d = Daemon::start(false);
    drop(make(d.at("data.db"), "wal"));
    let mut holds = holder(&d.at("data.db"));
    let plain = plain_holder(&d.at("plain"));
    let programs = [
        (
            "data.db",
            "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\nprint('ready',flush=True)\nc.execute('update t set v=v+10')",
        ),
        ("plain", "import fcntl,sys\nf=open(sys.argv[1],'r+')\nprint('ready',flush=True)\nfcntl.lockf(f,fcntl.LOCK_EX)"),
    ];
    for (name, code) in programs {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let before = support::daemon::counter(&d, "waits");
            let mut waits = Program::start(code, &d.at(name));
            until_waiting(&d, before + 1);
            std::thread::sleep(Duration::from_millis(30));
            let begun = Instant::now();
            waits.send(signal);
            assert!(!waits.child.wait().unwrap().success());
            assert!(begun.elapsed() < Duration::from_millis(100), "{name}, {signal}: {:?}", begun.elapsed());
        }
    }
    plain.send(Signal::SIGKILL);
    plain.end();
    holds.kill().unwrap();
    holds.wait().unwrap();
}
