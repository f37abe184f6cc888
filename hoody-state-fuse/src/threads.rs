//! What threads meet by: the lock service and the sync pool take their mutexes, threads, time and news of other tasks from here alone, so that tests can put
//! an explorer of schedules in its place (`explored`).

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Steps of the ticker without anything to do before it sleeps for good.
pub(crate) const LINGER: u32 = 1000;

/// Starts a thread that nobody joins.
pub(crate) fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(f).map(drop)
}

/// Time since it was made.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub fn new() -> Self {
        Clock(Instant::now())
    }

    /// In microseconds.
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

/// `/proc/<tid>/status`; none when the task is gone.
pub(crate) fn task_status(tid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{tid}/status")).ok()
}
