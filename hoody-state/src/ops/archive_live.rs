//! Archives the present state of a container from a temporary snapshot: in a directory that changes while it is read, a name that is renamed could be missed.
//!
//! The snapshot is in no list. It is deleted as soon as the archive has ended or nobody takes it any more, and a crash leaves the deletion to recovery. No lock
//! is taken: other operations on the container go on.

use super::diff::{delete_temporary, end_temporary, snapshot_of_now};
use super::{Begun, Claim, Op, Operation, Recovery};
use crate::catalog::Durability;
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long it takes at most until a server that is to stop notices that an archive is still read.
const LOOK: Duration = Duration::from_millis(250);

/// The intent: a temporary snapshot of a container's present state exists until it has been archived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArchiveLive {
    pub container: ContainerId,
}

impl Operation for ArchiveLive {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "archive_live";

    fn kind(&self) -> &'static str {
        "files.archive"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    /// Nothing: what is archived is read, and the temporary snapshot is nobody else's.
    fn claim(&self) -> Claim {
        Claim::short("files.archive", Vec::new())
    }

    fn keeps_locks(&self) -> bool {
        false
    }

    /// Nobody takes the archive of one that the next start takes up.
    fn run(self, op: &mut Op) -> Result<()> {
        end_temporary(op)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        delete_temporary(r)
    }
}

/// The present state of a container, held still. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldState {
    /// The container's own volume.
    pub own: Volume,
    /// The databases of the project, if the container has them.
    pub databases: Option<Volume>,
    /// Its end is the end of the operation.
    _open: SyncSender<()>,
    operation: JoinHandle<Result<()>>,
}

impl HeldState {
    /// Gives it back and waits until it is deleted. What keeps it from being deleted now is tried again by recovery.
    ///
    /// # Errors
    /// Only what stands for a crash.
    pub(crate) fn end(self) -> Result<()> {
        let HeldState { _open, operation, .. } = self;
        drop(_open);
        match operation.join() {
            Ok(Err(e)) if e.code() == Code::Crashed => Err(e),
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "a temporary snapshot is deleted later");
                Ok(())
            }
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(Error::internal("the thread of an archive panicked")),
        }
    }
}

/// Takes the temporary snapshot. Cost: that of a snapshot.
///
/// # Errors
/// Those of a snapshot: `pool_full`, `disk_limit_reached`, `pool_read_only`; `operation_state_conflict` where there is no present state.
pub(crate) fn hold(world: &World, live: &ContainerRow) -> Result<HeldState> {
    let intent = ArchiveLive { container: live.id.clone() };
    let caller = Caller::default();
    let held = world.engine.lock(&caller, intent.claim())?;
    let begun = Begun::journal(world, &caller, held, Durability::Disk, intent, Some(&live.project), |_| Ok(()))?;
    let (send, taken) = sync_channel(1);
    let (open, ended) = sync_channel::<()>(0);
    let live = live.clone();
    let run = move || {
        begun.run_with(move |_, op| {
            let volumes = snapshot_of_now(op, &live)?;
            op.step("archive")?;
            let _ = send.send((volumes.own, volumes.databases));
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) && !op.progress.must_stop() {}
            end_temporary(op)
        })
    };
    let operation = std::thread::Builder::new().name("archive".into()).spawn(run).io(|| "start the thread of an archive")?;
    match taken.recv() {
        Ok((own, databases)) => Ok(HeldState { own, databases, _open: open, operation }),
        // It ended before there was a snapshot: its result says why.
        Err(_) => match operation.join() {
            Ok(Err(e)) => Err(e),
            _ => Err(Error::internal("an archive ended before it began")),
        },
    }
}
