//! The threads of background operations: a bounded number, started when there is work, ended when there is none.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many threads each lane may have.
const MOST: usize = 16;
/// How long a thread waits for more work before it ends.
const IDLE: Duration = Duration::from_secs(2);

/// Which threads a background operation runs on. Work of one lane never waits for work of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Shared threads, for what takes seconds at most.
    Short,
    /// Shared threads, for what takes as long as its data.
    Long,
    /// A thread of its own: it may wait for another server for as long as that takes.
    Own,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                // What panics here has been recovered already: see `run::catch`.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                queue = self.queue();
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let (q, waited) = self.changed.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = q;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
    }
}

/// The threads of one engine.
#[derive(Default)]
pub(crate) struct Workers {
    short: Arc<Shared>,
    long: Arc<Shared>,
}

impl Workers {
    /// Runs `job` in the background; here, where no thread is to be had. After [`Workers::close`] it is dropped.
    pub(super) fn run(&self, lane: Lane, job: Job) {
        match lane {
            Lane::Short => run_shared(&self.short, job),
            Lane::Long => run_shared(&self.long, job),
            Lane::Own => {
                if !self.long.queue().closed {
                    spawn_or_here(job);
                }
            }
        }
    }

    /// Drops what waits for a thread. What runs goes on.
    pub(super) fn close(&self) {
        for shared in [&self.short, &self.long] {
            let waiting = {
                let mut queue = shared.queue();
                queue.closed = true;
                std::mem::take(&mut queue.jobs)
            };
            shared.changed.notify_all();
            drop(waiting);
        }
    }
}

fn run_shared(shared: &Arc<Shared>, job: Job) {
    let mut queue = shared.queue();
    if queue.closed {
        return;
    }
    queue.jobs.push_back(job);
    if queue.idle >= queue.jobs.len() || queue.threads >= MOST {
        drop(queue);
        shared.changed.notify_one();
        return;
    }
    queue.threads += 1;
    drop(queue);
    let theirs = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("operation".into()).spawn(move || theirs.work());
    if spawned.is_err() {
        // As one of the lane's threads, until nothing waits.
        let mut queue = shared.queue();
        queue.threads -= 1;
        let job = if queue.threads == 0 { queue.jobs.pop_front() } else { None };
        drop(queue);
        if let Some(job) = job {
            job();
        }
    }
}

/// Kept outside the thread until it runs, so that it is not lost where there is none.
fn spawn_or_here(job: Job) {
    let job = Arc::new(Mutex::new(Some(job)));
    let take = |job: &Mutex<Option<Job>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&job);
    let spawned = std::thread::Builder::new().name("operation".into()).spawn(move || {
        if let Some(job) = take(&theirs) {
            job();
        }
    });
    if spawned.is_err()
        && let Some(job) = take(&job)
    {
        job();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn two_hundred_jobs_share_a_bounded_number_of_threads_and_all_run() {
        let w = Workers::default();
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (send, done) = mpsc::channel();
        for n in 0..200 {
            let (at_once, most, send) = (Arc::clone(&at_once), Arc::clone(&most), send.clone());
            w.run(
                Lane::Short,
                Box::new(move || {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    send.send(n).unwrap();
                }),
            );
        }
        drop(send);
        assert_eq!(done.iter().count(), 200);
        let most = most.load(Ordering::SeqCst);
        assert!((2..=MOST).contains(&most), "{most} at once");
    }

    #[test]
    fn a_lane_full_of_long_work_keeps_no_short_work_waiting() {
        let w = Workers::default();
        let (send, ran) = mpsc::channel();
        let (block, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        for _ in 0..MOST + 5 {
            let blocked = Arc::clone(&blocked);
            w.run(Lane::Long, Box::new(move || assert!(blocked.lock().unwrap().recv().is_err())));
        }
        w.run(Lane::Short, Box::new(move || send.send(()).unwrap()));
        ran.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(block);
    }

    #[test]
    fn what_waits_when_it_is_closed_is_dropped() {
        let w = Workers::default();
        let (block, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        for _ in 0..MOST {
            let blocked = Arc::clone(&blocked);
            w.run(Lane::Long, Box::new(move || assert!(blocked.lock().unwrap().recv().is_err())));
        }
        let (send, ran) = mpsc::channel::<()>();
        w.run(Lane::Long, Box::new(move || send.send(()).unwrap()));
        w.close();
        assert!(ran.recv_timeout(Duration::from_secs(20)).is_err(), "it was dropped, not run");
        drop(block);
    }
}
