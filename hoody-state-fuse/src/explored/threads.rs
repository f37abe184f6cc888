//! `crate::threads` for the explorer. At every lock, wait and start of a thread it can switch to another thread, and time only passes when a thread sleeps.

pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Soon, so that its waking is explored as well.
pub const LINGER: u32 = 2;

pub fn spawn(_name: &str, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    drop(shuttle::thread::spawn(f));
    Ok(())
}

#[derive(Debug, Clone)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    pub fn new() -> Self {
        Clock(Arc::default())
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn sleep(&self, how_long: Duration) {
        self.0.fetch_add(u64::try_from(how_long.as_micros()).unwrap(), Ordering::Relaxed);
        shuttle::thread::yield_now();
    }
}

/// Tasks from this number on are gone.
pub const DEAD: u32 = 1 << 30;

pub fn task_status(tid: u32) -> Option<String> {
    (tid < DEAD).then(String::new)
}
