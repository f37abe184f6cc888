use crate::catalog::{Durability, containers};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::ContainerId;
use crate::model::Status;
use crate::op::{Intent, Op};

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it is looked whether a snapshot is still being sent.
const SENT: Duration = Duration::from_millis(500);
/// How soon a delete that failed is tried again, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The error for a change of a container that is on its way out.
pub(super) fn deleting(id: &ContainerId) -> Error {
    Error::new(Code::OperationStateConflict, format!("container {id} is being deleted"))
}

impl Host {
    /// Deletes a container with all its snapshots. It is `deleting` for good when this returns, however many snapshots it has; the rest is done in the background.
    ///
    /// # Errors
    /// `container_not_found`, `operation_in_progress`, `snapshot_pinned`.
    pub fn delete_container(&self, caller: &Caller, id: &ContainerId) -> Result<()> {
        if self.replay::<()>(caller)?.is_some() {
            return Ok(());
        }
        if self.0.catalog.read(|c| containers::get(c, id))?.status == Status::Deleting {
            return Ok(());
        }
        let lock = self.0.locks.take(id.as_str(), "container.delete")?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        let mut gone = Vec::new();
        let op = self.begin(caller, lock, Durability::Disk, Intent::Delete { container: id.clone() }, Some(&row.project), |tx| {
            super::snapshots::none_pinned(tx.conn, id)?;
            tx.change_container(id, &caller.by, None, |r| r.status = Status::Deleting)?;
            gone = tx.delete_shares_of(id)?;
            tx.answer_key(caller.idempotency.as_ref(), &())
        })?;
        self.shares_ended(&gone);
        self.behind(op, Duration::ZERO, |host, op| host.delete_steps(op)).map(|_| ())
    }

    /// What a delete does behind. There is no way back from it, and nothing else can be done with what is half deleted: so what fails is done again, until it
    /// succeeds or the host is closed.
    pub(crate) fn delete_steps(&self, op: &mut Op) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(e) = self.delete_once(op) else { return Ok(()) };
            if e.code() == Code::Crashed {
                return Err(e);
            }
            tracing::warn!(operation = %op.id, container = op.intent.resource().1, error = %e, "a container could not be deleted; trying again in {pause:?}");
            let end = Instant::now() + pause;
            while Instant::now() < end {
                if self.0.upkeep.is_closed() {
                    return Err(e);
                }
                std::thread::sleep(FIRST_PAUSE);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// May be repeated from its beginning after a failure or a crash.
    fn delete_once(&self, op: &mut Op) -> Result<()> {
        let Intent::Delete { container: id } = op.intent.clone() else { return Err(Error::internal("not a delete")) };
        op.step("kill")?;
        self.0.runtime.kill(&id)?;
        self.drop_places(&id)?;
        op.step("trash")?;
        self.0.store.trash_home(&id, &op.id)?;
        op.step("runtime")?;
        self.0.runtime.remove(&id)?;
        let progress = std::sync::Arc::clone(&op.progress);
        op.step("empty")?;
        let mut gone = crate::snapshot::Deleted::default();
        loop {
            let emptied = self.0.store.empty_trash(&op.id, &mut |done, total| {
                progress.done.store(done, Ordering::Relaxed);
                progress.total.store(total, Ordering::Relaxed);
            });
            match emptied {
                Ok(more) => {
                    gone.volumes.extend(more.volumes);
                    break;
                }
                // A snapshot that is being sent to another server goes when that has ended.
                Err(e) if e.code() == Code::VolumeInUse && !self.0.upkeep.is_closed() => std::thread::sleep(SENT),
                Err(e) => return Err(e),
            }
        }
        op.step("sync")?;
        self.0.store.sync()?;
        let mut ended = Vec::new();
        op.finish(Durability::Disk, |tx| {
            if let Some(mut r) = containers::find(tx.conn, &id)? {
                r.status = Status::Deleted;
                ended = tx.delete_container(&id)?.0;
                tx.emit_container("container.deleted", &r, serde_json::json!({}))?;
            }
            tx.add_reclaim(&gone.volumes, &format!("container {id}"))
        })?;
        // Those that were made while it was being deleted.
        self.0.shares.ended(&ended);
        self.0.upkeep.reclaim();
        Ok(())
    }
}
