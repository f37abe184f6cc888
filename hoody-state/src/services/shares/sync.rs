//! Bringing what running containers see in line with what they are to see.

use super::component::Shares;
use super::source::OpenedSources;
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::shares;
use crate::error::{Code, Result};
use crate::id::ContainerId;
use crate::model::{Share, Status};
use crate::share::{Detached, Receiver};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Shares {
    /// The names that a container sees.
    pub(crate) fn seen_by(&self, id: &ContainerId) -> Result<Vec<String>> {
        let Some(receiver) = self.receiver(id)? else { return Ok(Vec::new()) };
        match self.mounts.attached(&receiver) {
            Err(e) if e.code() == Code::ReceiverEnded => Ok(Vec::new()),
            r => Ok(r?.into_keys().collect()),
        }
    }

    fn receiver(&self, id: &ContainerId) -> Result<Option<Receiver>> {
        Ok(self.runtime.running(id)?.map(|r| Receiver { container: id.clone(), pid: r.pid }))
    }

    /// Brings what a container that runs sees in line with what it is to see; whether it still uses something that was taken away. What is right already is
    /// not touched. A container that is being started looks by itself once it runs. After a failure it is tried again.
    fn sync(&self, id: &ContainerId, known: &mut OpenedSources) -> Result<bool> {
        let gate = Arc::clone(self.gates.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default());
        let _one = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.sync_alone(id, known);
        match &done {
            Ok(_) => self.note_in_line(id),
            Err(_) => self.note_behind(id),
        }
        done
    }

    fn sync_alone(&self, id: &ContainerId, known: &mut OpenedSources) -> Result<bool> {
        let Some(row) = self.records.read(|c| containers::find(c, id))? else { return Ok(false) };
        let Some(receiver) = self.receiver(id)? else { return Ok(false) };
        match self.bring_in_line(&row, &receiver, known) {
            // With it ends what it saw; its next start looks for itself.
            Err(e) if e.code() == Code::ReceiverEnded => Ok(false),
            r => r,
        }
    }

    fn bring_in_line(&self, row: &ContainerRow, receiver: &Receiver, known: &mut OpenedSources) -> Result<bool> {
        let wanted = self.wanted_by(row, known)?;
        let seen = self.mounts.attached(receiver)?;
        let mut held = false;
        for name in seen.keys().filter(|n| !wanted.contains_key(*n)) {
            held |= self.mounts.detach(receiver, name)? == Detached::Held;
        }
        for (name, tree) in wanted.iter().filter(|(n, t)| seen.get(*n) != Some(&t.identity)) {
            held |= self.mounts.attach(receiver, name, tree)? == Detached::Held;
        }
        Ok(held)
    }

    pub(super) fn sync_or_warn(&self, id: &ContainerId, known: &mut OpenedSources) {
        if let Err(e) = self.sync(id, known) {
            tracing::error!(container = %id, error = %e, "what it sees of shares is not what it should see; trying again");
        }
    }

    /// Brings these containers in line. Failures are logged and tried again.
    pub(crate) fn sync_each(&self, ids: &[&ContainerId]) {
        let mut known = OpenedSources::default();
        ids.iter().for_each(|id| self.sync_or_warn(id, &mut known));
    }

    /// After a start of the server: what every running container sees is put right. Error: that of the catalog.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let rows = self.records.read(|c| containers::all(c, None))?;
        let running: Vec<&ContainerId> = rows.iter().filter(|r| matches!(r.status, Status::Running | Status::Paused)).map(|r| &r.id).collect();
        self.sync_each(&running);
        Ok(())
    }

    /// A receiver sees what is true of its shares now; whether it still uses something that was taken away.
    pub(super) fn receiver_changed(&self, receiver: &ContainerId) -> Result<bool> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.sync(receiver, &mut OpenedSources::default())
    }

    /// Every receiver of a share sees what is true of it now; those that still use something that was taken away. Error: that of a receiver that could not be
    /// brought in line. All others are, and that one is tried again.
    pub(super) fn share_changed(&self, s: &Share) -> Result<Vec<ContainerId>> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.wake.expiry();
        let receivers: Vec<ContainerId> = match (&s.target_container_id, &s.target_project_id) {
            (Some(c), _) => vec![c.clone()],
            (None, Some(p)) => {
                let rows = self.records.read(|c| containers::all(c, Some(p))).inspect_err(|_| self.note_all_behind())?;
                rows.into_iter().map(|r| r.id).collect()
            }
            (None, None) => Vec::new(),
        };
        let mut failed = Ok(());
        let mut held = Vec::new();
        let mut known = OpenedSources::default();
        for r in receivers.into_iter().filter(|r| *r != s.source_container_id) {
            match self.sync(&r, &mut known) {
                Ok(true) => held.push(r),
                Ok(false) => {}
                Err(e) => {
                    tracing::error!(container = %r, error = %e, "what it sees of shares is not what it should see; trying again");
                    failed = Err(e);
                }
            }
        }
        failed.map(|()| held)
    }

    /// Receivers see what these shares, which have been deleted or whose source is another, leave.
    pub(crate) fn ended(&self, gone: &[Share]) {
        for s in gone {
            match self.share_changed(s) {
                Ok(held) if held.is_empty() => {}
                Ok(held) => tracing::warn!(share = %s.id, ?held, "a share has ended of which receivers still have something open"),
                Err(e) => tracing::error!(share = %s.id, error = %e, "a receiver still sees a share that has ended; trying again"),
            }
        }
    }

    /// The volume of `owner` is another one: its receivers see that.
    pub(crate) fn owner_exchanged(&self, owner: &ContainerId) {
        // Somebody may have looked for what it shares of its own databases just before. Once it runs it has those that are there now.
        let forgotten = self.runtime.adopt(owner).and_then(|runs| if runs.is_none() { self.databases.forget_private(owner) } else { Ok(()) });
        if let Err(e) = forgotten {
            tracing::warn!(container = %owner, error = %e, "its databases before the exchange may still be served");
        }
        match self.records.read(|c| shares::of_owner(c, Some(owner), None)) {
            Ok(all) => self.ended(&all),
            Err(e) => {
                tracing::error!(container = %owner, error = %e, "cannot read what it shares");
                self.note_all_behind();
            }
        }
    }
}
