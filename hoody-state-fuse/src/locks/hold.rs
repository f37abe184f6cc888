//! Holding the writes of some volumes for the moment of a snapshot.

use super::{LockService, Tick, VolumeId, deliver};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// How often somebody who waits for quiet is asked whether to go on.
const STEP: Duration = Duration::from_millis(25);

/// Writes are held until this is dropped or its lease runs out.
#[derive(Debug)]
pub struct Held {
    service: Weak<LockService>,
    id: u64,
}

/// Volumes did not become quiet in time; nothing is held.
#[derive(Debug, thiserror::Error)]
#[error("a write transaction was still open after {waited:?}, by process {}: let it end, or take the snapshot without waiting", .pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
pub struct Unquiet {
    /// How long was waited.
    pub waited: Duration,
    /// Processes that were writing.
    pub pids: Vec<u32>,
}

impl LockService {
    /// Holds every write of these volumes: on return no write transaction is open in them and none begins. Readers go on. Ends when the guard is dropped
    /// or after `lease`, whichever is first.
    ///
    /// # Errors
    /// [`Unquiet`] when somebody still writes after `timeout`; nothing is held then.
    pub fn quiesce(self: &Arc<Self>, volumes: &[VolumeId], timeout: Duration, lease: Duration) -> Result<Held, Unquiet> {
        self.hold_when_quiet(volumes, timeout, lease, None)
    }

    /// The same, given up soon after `stop` says so: nobody waits for it any more, and meanwhile it holds others up.
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
                // Not under the lock: it is somebody else's code.
                drop(table);
                stopped = stop();
                look_at = self.now() + micros(STEP);
                table = self.lock();
            }
        }
    }

    /// Lets go of a hold; false when its lease had run out already.
    pub(super) fn end_hold(&self, id: u64) -> bool {
        let now = self.now();
        let mut table = self.lock();
        let Some((_, volumes)) = table.leases.remove(&id) else { return false };
        let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| broker.release(now, look, &volumes, out));
        drop(table);
        deliver(ready);
        true
    }

    /// Holds whose lease has run out.
    pub(super) fn overdue(&self, now: Tick) -> Vec<u64> {
        self.lock().leases.iter().filter(|(_, (until, _))| now >= *until).map(|(id, _)| *id).collect()
    }
}

impl Held {
    /// Lets go; false when the lease had run out before: the moment was not quiet to its end.
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
