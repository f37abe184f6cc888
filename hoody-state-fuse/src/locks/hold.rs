//! Holds the writes of some volumes while a snapshot is taken.

use super::{LockService, Tick, VolumeId, deliver};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// How often a request for a hold checks whether to give up.
const STEP: Duration = Duration::from_millis(25);

/// A hold on writes. It ends when this is dropped or when its lease ends.
#[derive(Debug)]
pub struct Held {
    service: Weak<LockService>,
    id: u64,
}

/// A write transaction did not end in time. Nothing is held.
#[derive(Debug, thiserror::Error)]
#[error("a write transaction was still open after {waited:?}, by process {}: wait until it ends, or take the snapshot without waiting", .pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
pub struct Unquiet {
    /// How long the wait was.
    pub waited: Duration,
    /// Processes that were writing.
    pub pids: Vec<u32>,
}

impl LockService {
    /// Holds all writes of these volumes: on return no write transaction is open in them, and none begins. Readers are not affected. The hold ends when the guard
    /// is dropped, or after `lease`.
    ///
    /// # Errors
    /// [`Unquiet`] if somebody still writes after `timeout`. Nothing is held then.
    pub fn quiesce(self: &Arc<Self>, volumes: &[VolumeId], timeout: Duration, lease: Duration) -> Result<Held, Unquiet> {
        self.hold_when_quiet(volumes, timeout, lease, None)
    }

    /// The same, but it gives up soon after `stop` returns true: if nobody waits for the hold any more, it must not delay others.
    ///
    /// # Errors
    /// [`Unquiet`], as for [`LockService::quiesce`].
    pub fn quiesce_unless(self: &Arc<Self>, volumes: &[VolumeId], timeout: Duration, lease: Duration, stop: &dyn Fn() -> bool) -> Result<Held, Unquiet> {
        self.hold_when_quiet(volumes, timeout, lease, Some(stop))
    }

    fn hold_when_quiet(self: &Arc<Self>, volumes: &[VolumeId], timeout: Duration, lease: Duration, stop: Option<&dyn Fn() -> bool>) -> Result<Held, Unquiet> {
        let began = self.now();
        let deadline = began + micros(timeout);
        let (mut look_at, mut stopped) = (began + micros(STEP), false);
        let mut table = self.lock();
        table.broker.hold(volumes);
        table.quiescers += 1;
        loop {
            let writing = table.broker.being_written(volumes);
            let now = self.now();
            if writing.is_empty() {
                table.quiescers -= 1;
                let id = table.next_ticket;
                table.next_ticket += 1;
                table.leases.insert(id, (now + micros(lease), volumes.to_vec()));
                let asleep = !table.ticking;
                drop(table);
                if asleep {
                    self.bell.ring();
                }
                return Ok(Held { service: Arc::downgrade(self), id });
            }
            if stopped || now >= deadline {
                table.quiescers -= 1;
                let pids = table.broker.status(now).iter().filter(|f| writing.contains(&f.file)).flat_map(|f| f.holders.iter().map(|h| h.task.pid)).collect();
                let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| broker.release(now, look, volumes, out));
                drop(table);
                deliver(ready);
                return Err(Unquiet { waited: Duration::from_micros(now - began), pids });
            }
            let until = if stop.is_some() { deadline.min(look_at) } else { deadline };
            table = self.quiet.wait_timeout(table, Duration::from_micros(until.saturating_sub(now))).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(stop) = stop
                && self.now() >= look_at
            {
                // Not under the lock: `stop` is code of the caller.
                drop(table);
                stopped = stop();
                look_at = self.now() + micros(STEP);
                table = self.lock();
            }
        }
    }

    /// Ends a hold. Returns false if its lease had ended already.
    pub(super) fn end_hold(&self, id: u64) -> bool {
        let now = self.now();
        let mut table = self.lock();
        let Some((_, volumes)) = table.leases.remove(&id) else { return false };
        let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| broker.release(now, look, &volumes, out));
        drop(table);
        deliver(ready);
        true
    }

    /// The holds whose lease has ended.
    pub(super) fn overdue(&self, now: Tick) -> Vec<u64> {
        self.lock().leases.iter().filter(|(_, (until, _))| now >= *until).map(|(id, _)| *id).collect()
    }
}

impl Held {
    /// Ends the hold. Returns false if the lease had ended before: then writes were not held all the time.
    #[must_use]
    pub fn release(self) -> bool {
        self.end()
    }

    fn end(&self) -> bool {
        self.service.upgrade().is_some_and(|s| s.end_hold(self.id))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

fn micros(d: Duration) -> Tick {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX / 4)
}
