//! Work that is tried again after a pause, on one thread that ends when there is none.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Try = Box<dyn FnOnce() + Send>;

struct Pending {
    due: Instant,
    work: Try,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    thread: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What waits for another try. Dropping it drops what waits.
#[derive(Default)]
pub(super) struct Retries(Arc<Shared>);

impl Retries {
    /// Runs `work` after a pause, unless this is closed before.
    pub(super) fn later(&self, pause: Duration, work: Try) {
        let mut queue = self.0.queue();
        if queue.closed {
            return;
        }
        queue.pending.push(Pending { due: Instant::now() + pause, work });
        if !queue.thread {
            let shared = Arc::clone(&self.0);
            queue.thread = std::thread::Builder::new().name("recovery".into()).spawn(move || shared.work()).is_ok();
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Tries no more.
    pub(super) fn close(&self) {
        let pending = {
            let mut queue = self.0.queue();
            queue.closed = true;
            std::mem::take(&mut queue.pending)
        };
        self.0.changed.notify_all();
        drop(pending);
    }
}

impl Drop for Retries {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(work) = self.next() {
            work();
        }
    }

    /// The next one that is due, waited for; nothing when there is none.
    fn next(&self) -> Option<Try> {
        let mut queue = self.queue();
        loop {
            let first = (0..queue.pending.len()).min_by_key(|&i| queue.pending[i].due);
            let Some(first) = first.filter(|_| !queue.closed) else {
                queue.thread = false;
                return None;
            };
            let left = queue.pending[first].due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(queue.pending.swap_remove(first).work);
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
