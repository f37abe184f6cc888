//! Threads that wait for the disk, so that no event loop does: the holder of a lock may be waiting for a sync.

use super::threads::{self, Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

const MOST: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    ended: bool,
}

/// A pool of threads. It grows while jobs wait, and shrinks when there are none.
#[derive(Clone, Default)]
pub(crate) struct SyncPool(Arc<(Mutex<State>, Condvar)>);

impl SyncPool {
    /// Runs `job` on another thread soon.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let (state, wake) = &*self.0;
        let mut s = state.lock().unwrap_or_else(PoisonError::into_inner);
        s.jobs.push_back(Box::new(job));
        if s.idle >= s.jobs.len() {
            // After the mutex is released, or the thread would wake up only to wait for it.
            drop(s);
            wake.notify_one();
        } else if s.threads < MOST {
            s.threads += 1;
            drop(s);
            let pool = self.clone();
            let spawned = threads::spawn("sync", move || pool.work());
            if spawned.is_err() {
                // No thread can be started, so it runs here.
                let job = {
                    let mut s = state.lock().unwrap_or_else(PoisonError::into_inner);
                    s.threads -= 1;
                    s.jobs.pop_back()
                };
                if let Some(job) = job {
                    job();
                }
            }
        }
    }

    /// Lets the threads end as soon as no job is left.
    pub fn end(&self) {
        let (state, wake) = &*self.0;
        state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        wake.notify_all();
    }

    fn work(&self) {
        let (state, wake) = &*self.0;
        let mut s = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = s.jobs.pop_front() {
                drop(s);
                job();
                s = state.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if s.ended {
                s.threads -= 1;
                return;
            }
            s.idle += 1;
            let (back, timeout) = wake.wait_timeout(s, IDLE).unwrap_or_else(PoisonError::into_inner);
            s = back;
            s.idle -= 1;
            if timeout.timed_out() && s.jobs.is_empty() {
                s.threads -= 1;
                return;
            }
        }
    }
}
