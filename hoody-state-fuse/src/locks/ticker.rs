//! The thread that makes time pass for the broker. It sleeps while nobody waits.

use super::super::threads::{self, Condvar, LINGER, Mutex};
use super::{Cause, LockService, Ticket, signals};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

const STEP_US: u64 = 1_000;
const STEP: Duration = Duration::from_micros(STEP_US);
/// Waits older than this, in microseconds, are checked for signals.
const WATCHED: u64 = 10_000;
const WATCH_EVERY: u32 = 20;
/// How many waits are checked in one round; the others follow in the next. A check costs about ten microseconds.
const WATCHED_AT_ONCE: usize = 256;

/// Wakes the ticker. If it is rung before the ticker sleeps, the ticker does not sleep.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *rung) {
            rung = self.heard.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(super) fn start(service: &Arc<LockService>) {
    let weak = Arc::downgrade(service);
    if let Err(e) = threads::spawn("lock-ticker", move || run(&weak)) {
        tracing::error!("the thread of the lock ticker cannot be started ({e}): waits will not time out, and killed waiters stay until they are answered");
    }
}

fn run(service: &Weak<LockService>) {
    let mut idle = 0;
    let mut step: u32 = 0;
    let mut last = None;
    let mut watched = 0;
    loop {
        let Some(service) = service.upgrade() else { return };
        step = step.wrapping_add(1);
        let now = service.now();
        let unresponsive = service.is_unresponsive(now);
        // If this thread had to wait for a processor, so did those that it watches.
        let late = last.map_or(0, |last| now.saturating_sub(last + STEP_US));
        last = Some(now);
        service.change(|broker, look, now, out| {
            broker.set_paused(unresponsive);
            if late > STEP_US {
                broker.excuse(now, late);
            }
            broker.tick(now, look, out);
        });
        if step.is_multiple_of(WATCH_EVERY) {
            watch_signals(&service, &mut watched);
        }
        for id in service.overdue(now) {
            tracing::warn!("a hold on writes was ended because its lease was over");
            service.end_hold(id);
        }
        let mut table = service.lock();
        let busy = table.broker.needs_ticks() || !table.leases.is_empty();
        idle = if busy { 0 } else { idle + 1 };
        table.ticking = idle < LINGER;
        drop(table);
        let (clock, bell) = (service.clock.clone(), service.bell.clone());
        // The service is not kept alive while this sleeps: it ends with its last handle, and rings then.
        drop(service);
        if idle < LINGER {
            clock.sleep(STEP);
        } else {
            bell.wait();
            idle = 0;
            last = None;
        }
    }
}

/// Checks waiting threads for signals. `last` is the request that was checked last.
fn watch_signals(service: &LockService, last: &mut Ticket) {
    let now = service.now();
    let mut waits = service.lock().broker.waiting_since(now, WATCHED);
    waits.sort_unstable_by_key(|w| w.ticket);
    let next = waits.partition_point(|w| w.ticket <= *last);
    waits.rotate_left(next);
    for some in waits.chunks(WATCHED_AT_ONCE) {
        *last = some.last().map_or(0, |w| w.ticket);
        let over: Vec<_> = some.iter().filter(|w| signals::should_end(w.tid, w.asked_to_wait)).map(|w| (w.file, w.ticket)).collect();
        if over.is_empty() {
            return;
        }
        service.change(|broker, look, now, out| broker.cancel_all(now, look, &over, Cause::Interrupted, out));
        // If some have ended, others may have too: a process with many threads was killed.
    }
}
