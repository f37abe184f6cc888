//! The thread that makes time pass for the broker. It sleeps for good while nobody waits.

use super::{Cause, LockService, signals};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

const STEP: Duration = Duration::from_millis(1);
/// A wait is looked at for signals when it is this old, in microseconds.
const WATCHED: u64 = 10_000;
const WATCH_EVERY: u32 = 20;
/// Steps without anything to do before it sleeps for good.
const LINGER: u32 = 1000;

pub(super) fn start(service: &Arc<LockService>) {
    let weak = Arc::downgrade(service);
    let spawned = std::thread::Builder::new().name("lock-ticker".into()).spawn(move || run(&weak));
    if let Err(e) = spawned {
        tracing::error!("no thread for the lock ticker ({e}): waits will not time out and killed waiters stay until they are served");
    }
}

fn run(service: &Weak<LockService>) {
    let mut idle = 0;
    let mut step: u32 = 0;
    loop {
        let Some(service) = service.upgrade() else { return };
        step = step.wrapping_add(1);
        let now = service.now();
        service.change(|broker, look, now, out| broker.tick(now, look, out));
        if step.is_multiple_of(WATCH_EVERY) {
            watch_signals(&service);
        }
        for id in service.overdue(now) {
            tracing::warn!("a hold on writes outlived its lease and was let go");
            service.end_hold(id);
        }
        let table = service.lock();
        let busy = table.broker.needs_ticks() || !table.leases.is_empty();
        idle = if busy { 0 } else { idle + 1 };
        if idle < LINGER {
            service.ticking.store(true, Ordering::Relaxed);
            drop(table);
            drop(service);
            std::thread::sleep(STEP);
            continue;
        }
        service.ticking.store(false, Ordering::Relaxed);
        // Woken by the next wait; the timeout only lets the thread end with the service.
        drop(service.wake.wait_timeout(table, Duration::from_secs(10)).unwrap_or_else(PoisonError::into_inner));
        idle = LINGER.saturating_sub(2);
    }
}

fn watch_signals(service: &LockService) {
    let now = service.now();
    let waits = service.lock().broker.waiting_since(now, WATCHED);
    for (tid, file, ticket) in waits {
        if signals::should_end(tid) {
            service.change(|broker, look, now, out| broker.cancel(now, look, file, ticket, Cause::Interrupted, out));
        }
    }
}
