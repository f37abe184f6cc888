//! The cases every [`Runtime`] passes. A backend's tests give a [`World`] and call [`run`]; a case that fails panics with what broke.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Cancel, ExecSpec, Exit, ExitListener, Limits, Network, RunSpec, Runtime};
use crate::Code;
use crate::error::Kind;
use crate::id::{ContainerId, RunId};
use crate::units::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where a backend's containers come from.
pub trait World {
    /// The backend, with the listener of [`exits`](Self::exits) set.
    fn runtime(&self) -> &dyn Runtime;
    /// A run whose init does nothing for long, can be [ended](Self::end) and made to [speak](Self::say), and ends on TERM.
    fn spec(&self, container: &ContainerId) -> RunSpec;
    /// A run that cannot be started.
    fn failing(&self, container: &ContainerId) -> RunSpec;
    /// Its init exits with this code.
    fn end(&self, container: &ContainerId, code: i32);
    /// Its init writes this to the console.
    fn say(&self, container: &ContainerId, text: &str);
    /// What was reported.
    fn exits(&self) -> &Exits;
    /// The process of ours ends and begins anew, on the same state.
    fn restart(&mut self);
}

/// Collects what an exit listener is told.
#[derive(Debug, Clone, Default)]
pub struct Exits(Arc<Mutex<Vec<(ContainerId, RunId, Exit)>>>);

impl Exits {
    /// A listener that adds to this.
    #[must_use]
    pub fn listener(&self) -> ExitListener {
        let all = Arc::clone(&self.0);
        Box::new(move |c, r, e| all.lock().unwrap_or_else(PoisonError::into_inner).push((c.clone(), r.clone(), e)))
    }

    /// What was reported of a run.
    #[must_use]
    pub fn of(&self, run: &RunId) -> Vec<Exit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(_, r, _)| r == run).map(|(_, _, e)| e.clone()).collect()
    }

    /// Waits for a run's end.
    ///
    /// # Panics
    /// When it is not reported in 20 s.
    #[must_use]
    pub fn wait(&self, run: &RunId) -> Exit {
        let mut exit = None;
        eventually("the exit to be reported", || {
            exit = self.of(run).first().cloned();
            exit.is_some()
        });
        exit.unwrap()
    }
}

/// Waits until it holds, at most 20 s.
///
/// # Panics
/// When it does not.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A spec with everything at its default.
#[must_use]
pub fn spec(container: &ContainerId, root: Option<&Path>, command: &[&str]) -> RunSpec {
    RunSpec {
        container: container.clone(),
        run: RunId::generate(),
        root: root.map(Path::to_path_buf),
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        env: BTreeMap::new(),
        cwd: "/".to_owned(),
        hostname: "box".to_owned(),
        network: Network::None,
        mounts: Vec::new(),
        shares: None,
        limits: Limits::default(),
    }
}

/// Every case.
pub fn run(w: &mut dyn World) {
    a_run_from_start_to_exit(w);
    one_run_at_a_time(w);
    stop_and_kill_leave_nothing(w);
    a_start_that_fails_leaves_nothing(w);
    a_restart_disturbs_nothing(w);
    commands(w);
    the_console_is_kept(w);
    limits_that_make_no_sense(w);
    removing_takes_everything(w);
}

fn a_run_from_start_to_exit(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    r.prepare(&c, &Limits::default()).unwrap();
    r.prepare(&c, &Limits::default()).unwrap();
    assert_eq!(r.adopt(&c).unwrap(), None);
    for code in [7, 0] {
        let spec = w.spec(&c);
        let running = r.start(&spec).unwrap();
        assert_eq!(running.run, spec.run);
        assert_eq!(r.adopt(&c).unwrap().map(|a| (a.run, a.pid)), Some((spec.run.clone(), running.pid)));
        assert!(r.stats(&c).unwrap().processes > 0);
        w.end(&c, code);
        assert_eq!(w.exits().wait(&spec.run).code, Some(code));
        assert_eq!(r.adopt(&c).unwrap(), None);
        assert_eq!(r.stats(&c).unwrap().processes, 0);
        assert_eq!(w.exits().of(&spec.run).len(), 1, "once");
    }
    r.remove(&c).unwrap();
}

fn one_run_at_a_time(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    let first = w.spec(&c);
    r.start(&first).unwrap();
    let e = r.start(&w.spec(&c)).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Conflict, Code::AlreadyRunning));
    assert_eq!(r.adopt(&c).unwrap().map(|a| a.run), Some(first.run), "the first is not disturbed");
    r.remove(&c).unwrap();
}

fn stop_and_kill_leave_nothing(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    r.stop(&c, PATIENCE).unwrap();
    r.kill(&c).unwrap();
    let mut spec = w.spec(&c);
    // On a loaded machine TERM may come before init has said that it wants to hear of it; then it is killed, and the next one is asked.
    let heeded = (0..3).any(|n| {
        if n > 0 {
            spec = w.spec(&c);
        }
        r.start(&spec).unwrap();
        let began = Instant::now();
        r.stop(&c, PATIENCE).unwrap();
        began.elapsed() < PATIENCE / 2
    });
    assert!(heeded, "init heeds TERM");
    assert_eq!(r.stats(&c).unwrap().processes, 0);
    assert!(w.exits().wait(&spec.run).code.is_some());
    r.stop(&c, PATIENCE).unwrap();
    let spec = w.spec(&c);
    r.start(&spec).unwrap();
    r.kill(&c).unwrap();
    assert_eq!(r.stats(&c).unwrap().processes, 0);
    assert_eq!(w.exits().wait(&spec.run).code, Some(137));
    assert_eq!(r.adopt(&c).unwrap(), None);
    r.remove(&c).unwrap();
}

fn a_start_that_fails_leaves_nothing(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    let spec = w.failing(&c);
    let e = r.start(&spec).unwrap_err();
    assert_eq!(e.code(), Code::StartFailed, "{e}");
    assert_eq!(r.stats(&c).unwrap().processes, 0);
    assert_eq!(r.adopt(&c).unwrap(), None);
    r.start(&w.spec(&c)).unwrap();
    r.remove(&c).unwrap();
    assert_eq!(w.exits().of(&spec.run), [], "what did not begin does not end");
}

fn a_restart_disturbs_nothing(w: &mut dyn World) {
    let c = ContainerId::generate();
    let spec = w.spec(&c);
    let before = w.runtime().start(&spec).unwrap();
    w.restart();
    let after = w.runtime().adopt(&c).unwrap().expect("it runs on");
    assert_eq!(after, before);
    assert_eq!(w.runtime().adopt(&c).unwrap(), Some(after), "adopting twice is adopting");
    w.end(&c, 9);
    // The code may be lost, the end not.
    assert!(matches!(w.exits().wait(&spec.run).code, Some(9) | None));
    assert_eq!(w.exits().of(&spec.run).len(), 1, "once");
    w.runtime().remove(&c).unwrap();
}

fn commands(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    let cat = ExecSpec { command: vec!["cat".into()], stdin: b"fed".to_vec(), output_limit: 1 << 20, ..ExecSpec::default() };
    assert_eq!(r.exec(&c, &cat).unwrap_err().code(), Code::NotRunning);
    r.start(&w.spec(&c)).unwrap();
    let out = r.exec(&c, &cat).unwrap();
    assert_eq!((out.exit_code, out.stdout.as_slice(), out.truncated, out.timed_out), (0, &b"fed"[..], false, false));
    let out = r.exec(&c, &ExecSpec { output_limit: 2, ..cat.clone() }).unwrap();
    assert_eq!((out.stdout.as_slice(), out.truncated), (&b"fe"[..], true));
    let cancel = Cancel::new().unwrap();
    let long = ExecSpec { command: vec!["sleep".into(), "1000".into()], cancel: Some(cancel.clone()), ..cat.clone() };
    std::thread::scope(|s| {
        let running = s.spawn(|| r.exec(&c, &long));
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
        assert_eq!(running.join().unwrap().unwrap_err().code(), Code::ExecCancelled);
    });
    assert_eq!(r.exec(&c, &long).unwrap_err().code(), Code::ExecCancelled, "one that is cancelled before it begins");
    r.kill(&c).unwrap();
    let e = r.exec(&c, &cat).unwrap_err();
    assert_eq!(e.code(), Code::NotRunning, "{e}");
    r.remove(&c).unwrap();
}

fn the_console_is_kept(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    assert_eq!(r.console(&c, None).unwrap(), b"");
    for text in ["first\n", "second\n"] {
        r.start(&w.spec(&c)).unwrap();
        w.say(&c, text);
        eventually("the console", || r.console(&c, None).unwrap().ends_with(text.as_bytes()));
        r.kill(&c).unwrap();
    }
    assert_eq!(r.console(&c, None).unwrap(), b"first\nsecond\n");
    assert_eq!(r.console(&c, Some(Bytes(7))).unwrap(), b"second\n");
    r.remove(&c).unwrap();
    assert_eq!(r.console(&c, None).unwrap(), b"");
}

fn limits_that_make_no_sense(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    for limits in [Limits { memory: Some(Bytes(1)), cpus: None }, Limits { memory: None, cpus: Some(-1.0) }] {
        assert_eq!(r.prepare(&c, &limits).unwrap_err().code(), Code::InvalidLimit);
    }
    r.remove(&c).unwrap();
}

fn removing_takes_everything(w: &dyn World) {
    let (r, c) = (w.runtime(), ContainerId::generate());
    r.remove(&c).unwrap();
    r.prepare(&c, &Limits::default()).unwrap();
    assert!(r.list().unwrap().contains(&c));
    r.start(&w.spec(&c)).unwrap();
    r.remove(&c).unwrap();
    r.remove(&c).unwrap();
    assert!(!r.list().unwrap().contains(&c));
    assert_eq!(r.stats(&c).unwrap(), super::RuntimeStats::default());
}
