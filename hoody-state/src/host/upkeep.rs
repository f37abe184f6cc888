//! What happens by itself: expired snapshots and shares are deleted, deleted volumes are watched until their space has come back. Nothing wakes while nothing
//! is due. Expiry is a time of day: a suspend, or a clock that is set, puts off none ([`crate::sys::alarm`]).

use super::{Caller, Host};
use crate::Code;
use crate::catalog::{Durability, operations, snapshots, trash};
use crate::error::{Kind, Result};
use crate::services::wake::Wake;
use crate::sys::alarm::Woken;
use crate::units::VolumeId;
use crate::world::{WeakWorld, World};
use jiff::Timestamp;
use std::time::{Duration, Instant, SystemTime};

/// How long a look at all that is being reclaimed takes at least, if anything is left.
const PASS: Duration = Duration::from_millis(100);
/// How long the next look is put off at most while nothing comes back: a program in a container may keep a file of a deleted snapshot open for days, and each
/// look commits the pool.
const LONGEST_PASS: Duration = Duration::from_secs(30);
/// How many volumes are looked at before those that are gone are forgotten, which takes a commit of the pool.
const RECLAIMED_AT_ONCE: usize = 100;

/// Starts the upkeep's thread, which ends with the host.
pub(crate) fn start(host: &Host) -> Result<()> {
    let wake = host.0.upkeep.clone();
    let weak = host.0.downgrade();
    wake.expiry();
    wake.reclaim();
    std::thread::Builder::new().name("upkeep".into()).spawn(move || run(&wake, &weak)).map_err(|e| crate::Error::io("start the upkeep's thread", e))?;
    Ok(())
}

fn run(wake: &Wake, host: &WeakWorld) {
    let mut next: Option<SystemTime> = None;
    loop {
        let woken = wake.wait(next).unwrap_or_else(|e| {
            tracing::warn!(error = %e, "cannot wait for the next expiry; looking again in a second");
            std::thread::sleep(Duration::from_secs(1));
            Woken { due: true, ..Woken::default() }
        });
        let due = wake.take();
        if due.closed {
            return;
        }
        let Some(inner) = host.upgrade() else { return };
        let host = Host(inner);
        if due.reclaim {
            start_reclaim(wake, &host);
        }
        for project in due.room {
            let caller = Caller { by: "expiry".into(), patience: Duration::ZERO, ..Caller::default() };
            if let Err(e) = crate::ops::trash::make_room(&host.0, &caller, &project) {
                tracing::warn!(%project, error = %e, "could not delete a container in the trash to make room");
            }
        }
        if due.expiry || woken.due || woken.clock_changed {
            let after = host.expire_due().unwrap_or_else(|e| {
                tracing::warn!(error = %e, "could not delete what has expired; trying again in a minute");
                Some(Duration::from_secs(60))
            });
            next = after.and_then(|d| SystemTime::now().checked_add(d));
        }
    }
}

fn start_reclaim(wake: &Wake, host: &Host) {
    let (h, w) = (host.0.downgrade(), wake.clone());
    let spawned = std::thread::Builder::new().name("reclaim".into()).spawn(move || {
        watch_reclaim(&h, &w);
        w.reclaim_ended();
    });
    if let Err(e) = spawned {
        tracing::warn!(error = %e, "cannot watch the pool reclaim space");
        wake.reclaim_not_started();
    }
}

fn watch_reclaim(host: &WeakWorld, wake: &Wake) {
    let mut pause = PASS;
    loop {
        let Some(inner) = host.upgrade() else { return };
        let rows = match inner.catalog.read(operations::reclaiming) {
            Ok(rows) => rows,
            Err(e) => {
                tracing::warn!(error = %e, "cannot read what is being reclaimed");
                return;
            }
        };
        if rows.is_empty() {
            inner.limits.forget_deleted();
            return;
        }
        let began = Instant::now();
        // What did not come back in the last look is only asked for.
        let patience = if pause == PASS { Duration::from_millis(500) } else { Duration::from_millis(1) };
        let mut came_back = false;
        for some in rows.chunks(RECLAIMED_AT_ONCE) {
            let mut gone = Vec::new();
            for r in some {
                if wake.is_closed() {
                    return;
                }
                match inner.store.reclaimed(r.volume, patience) {
                    Ok(true) => gone.push(r.volume),
                    Ok(false) => {}
                    Err(e) => {
                        tracing::warn!(what = r.what, error = %e, "cannot learn whether space has come back");
                        return;
                    }
                }
            }
            came_back |= !gone.is_empty();
            if let Err(e) = end_reclaim(&inner, &gone) {
                tracing::warn!(error = %e, "cannot note that space has come back");
                return;
            }
        }
        drop(inner);
        // A store may say "not yet" at once.
        pause = if came_back { PASS } else { (pause * 2).min(LONGEST_PASS) };
        if wake.wait_for_reclaim(pause.saturating_sub(began.elapsed())) {
            pause = PASS;
        }
    }
}

/// Forgets volumes that are gone. Their deletion is committed first: a power cut would bring back one whose deletion is not, and nobody would know of it.
fn end_reclaim(host: &World, gone: &[VolumeId]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    host.store.sync()?;
    host.catalog.write(Durability::Process, host.clock.now(), |tx| gone.iter().try_for_each(|volume| tx.end_reclaim(*volume)))
}

impl Host {
    /// Deletes what has expired; when the next one will. Public for hosts without the upkeep thread (a moved clock in tests).
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn expire_due(&self) -> Result<Option<Duration>> {
        // What fails here keeps nothing else from expiring.
        let shares = self.0.shares.expire().unwrap_or_else(|e| {
            tracing::warn!(error = %e, "cannot read which shares have expired; trying again");
            Some(Duration::from_secs(5))
        });
        let shares = shares.into_iter().chain(self.0.shares.retry()).min();
        let now = self.0.clock.now();
        let (due, next) = self.0.catalog.read(|c| snapshots::expired(c, now))?;
        let caller = Caller { by: "expiry".into(), patience: Duration::ZERO, ..Caller::default() };
        let mut again = false;
        let more = due.len() == snapshots::EXPIRED_AT_ONCE;
        for (id, name) in due {
            match crate::ops::snapshot_delete::expire(&self.0, &caller, &id, &name) {
                Ok(_) => {}
                Err(e) if e.kind() == Kind::Busy => again = true,
                Err(e) if e.is_not_found() || e.code() == Code::SnapshotPinned => {}
                Err(e) => {
                    tracing::warn!(container = %id, snapshot = %name, error = %e, "could not delete an expired snapshot");
                    again = true;
                }
            }
        }
        let (trash, failed) = self.expire_trash(&caller, now)?;
        again |= failed;
        if more && !again {
            return Ok(Some(Duration::from_millis(1)));
        }
        let until = next.map(|t| until(now, t));
        let until = until.into_iter().chain(shares).chain(trash).min();
        Ok(if again { Some(until.map_or(Duration::from_secs(5), |u| u.min(Duration::from_secs(5)))) } else { until })
    }

    /// Deletes what has been in the trash for long enough; when the next one will have been, and whether one must be tried again.
    fn expire_trash(&self, caller: &Caller, now: Timestamp) -> Result<(Option<Duration>, bool)> {
        let (due, next) = self.0.catalog.read(|c| trash::expired(c, now))?;
        let mut again = false;
        for id in due {
            match crate::ops::trash::expire(&self.0, caller, &id) {
                Ok(()) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => {
                    if e.kind() != Kind::Busy {
                        tracing::warn!(container = %id, error = %e, "could not delete a container whose time in the trash is over");
                    }
                    again = true;
                }
            }
        }
        Ok((next.map(|t| until(now, t)), again))
    }
}

/// From now until then, at least a millisecond.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from((then.as_millisecond() - now.as_millisecond()).max(1)).unwrap_or(1))
}
