//! Holding the writes to a container's databases for the moment of a snapshot.

use super::component::{Databases, volume_name};
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, Result};
use crate::freeze::{FreezeGuard, Freezer};
use crate::locked_db::Quiesced;
use crate::model::{Consistency, DatabaseScope, Status};
use std::time::{Duration, Instant};

/// How long a snapshot waits for write transactions that are under way; after that it is taken all the same, as a power cut would leave things.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same when only frozen processes could end theirs.
const FROZEN_PATIENCE: Duration = Duration::from_millis(20);
/// How long writers elsewhere are waited for while the container is frozen. Short: meanwhile a task that is frozen within a transaction holds everybody up.
const STILL_PATIENCE: Duration = Duration::from_millis(5);
/// A hold ends by itself after this, should this process hang.
const LEASE: Duration = Duration::from_secs(10);

/// While this lives nobody writes to the databases of a container, as far as that could be had.
pub(crate) struct WriteHold {
    held: Option<Box<dyn Quiesced>>,
    /// Nobody has the databases open: there is nothing to hold.
    unused: bool,
    since: Instant,
}

impl WriteHold {
    fn without(unused: bool) -> Self {
        WriteHold { held: None, unused, since: Instant::now() }
    }

    /// Ends the hold. What a snapshot that was taken meanwhile promises.
    pub(crate) fn release(self) -> Consistency {
        let since = self.since;
        let quiet = match self.held {
            Some(held) => held.release().unwrap_or_else(|e| {
                tracing::warn!(error = %e, "the hold on databases was lost");
                false
            }),
            None => self.unused,
        };
        tracing::debug!(held_us = since.elapsed().as_micros(), quiet, "databases were held");
        if quiet { Consistency::DatabasesQuiesced } else { Consistency::Crash }
    }
}

/// While this lives nobody writes to the databases of a container, and none of its tasks runs if they had to be stopped for the snapshot.
pub(crate) struct SnapshotHold<'a> {
    // In the order in which they end: the writers first, then the tasks.
    writes: WriteHold,
    tasks: Option<FreezeGuard<'a>>,
}

impl SnapshotHold<'_> {
    /// Ends it. What a snapshot that was taken meanwhile promises of the databases.
    pub(crate) fn release(self) -> Consistency {
        let consistency = self.writes.release();
        drop(self.tasks);
        consistency
    }
}

fn not_held(r: &ContainerRow, why: &Error) -> WriteHold {
    tracing::warn!(container = %r.id, error = %why, "the snapshot is taken without waiting for the databases");
    WriteHold::without(false)
}

impl Databases {
    /// Holds the writes to a container's databases, once those under way have ended. A hold that cannot be had is no error: the snapshot says so then.
    pub(crate) fn hold_writes(&self, r: &ContainerRow) -> WriteHold {
        let only_frozen = r.status == Status::Paused && r.spec.databases == DatabaseScope::Private;
        self.try_hold(r, if only_frozen { FROZEN_PATIENCE } else { PATIENCE }).unwrap_or_else(|e| not_held(r, &e))
    }

    /// Holds what must not move while a container is snapshotted: the writers of its databases, and its tasks if volumes are nested in it and it runs. Several
    /// volumes are snapshotted one after the other, and are of one instant only while the container stands still.
    ///
    /// The tasks are frozen first. A hold makes every task that begins a write transaction wait in a lock request to the databases' daemon, and a task that
    /// waits so freezes only once [`LockedDb::park`](crate::locked_db::LockedDb::park) has ended its wait. And a container that cannot be frozen must not keep
    /// the writers of other containers waiting until that is known. But a task that is frozen within a write transaction cannot end it. Then the tasks go on,
    /// the writers are held once that transaction has ended, and the tasks are frozen again, from waits that are parked.
    ///
    /// Error: `freeze_timeout`; nothing is held then. A hold on the databases that cannot be had is no error: [`SnapshotHold::release`] says so.
    pub(crate) fn hold_for_snapshot<'a>(&self, r: &ContainerRow, nested: bool, freezer: &'a dyn Freezer, timeout: Duration) -> Result<SnapshotHold<'a>> {
        if !nested || r.status != Status::Running {
            return Ok(SnapshotHold { writes: self.hold_writes(r), tasks: None });
        }
        let freeze = || FreezeGuard::waking(freezer, &r.id, timeout, &|pids| self.end_lock_waits(pids));
        let tasks = freeze()?;
        match self.try_hold(r, STILL_PATIENCE) {
            Ok(writes) => return Ok(SnapshotHold { writes, tasks: Some(tasks) }),
            Err(e) if e.code() == Code::DatabasesBusy => drop(tasks),
            Err(e) => return Ok(SnapshotHold { writes: not_held(r, &e), tasks: Some(tasks) }),
        }
        let writes = self.hold_writes(r);
        Ok(SnapshotHold { writes, tasks: Some(freeze()?) })
    }

    fn try_hold(&self, r: &ContainerRow, patience: Duration) -> Result<WriteHold> {
        let Some(db) = &self.db else { return Ok(WriteHold::without(false)) };
        match db.quiesce(&[&volume_name(r)], patience, LEASE) {
            Ok(held) => Ok(WriteHold { held: Some(held), unused: false, since: Instant::now() }),
            // No container that uses it has been started.
            Err(e) if e.code() == Code::VolumeNotFound => Ok(WriteHold::without(true)),
            Err(e) => Err(e),
        }
    }
}
