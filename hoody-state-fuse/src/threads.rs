//! The only source of mutexes, threads, time and the state of other tasks for the lock service and the sync pool. Tests replace it by an explorer of schedules
//! (`explored`).

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// After how many steps without anything to do the ticker sleeps until it is woken.
pub(crate) const LINGER: u32 = 1000;

/// Starts a thread that is not joined.
pub(crate) fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(f).map(drop)
}

/// A clock that starts when it is created.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub fn new() -> Self {
        Clock(Instant::now())
    }

    /// The time since then, in microseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    task_status(pid)?.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// `/proc/<tid>/status`; `None` if the task has ended.
pub(crate) fn task_status(tid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{tid}/status")).ok()
}
