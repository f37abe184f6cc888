//! The exchange of a container's live volume with one that was prepared at [`Volume::Next`]: what a restore, a promote and a reset share.
//!
//! Order of the steps: stop, prepare `next`, swap, boot, keep the old state. Until [`Exchange::swap`] everything can be undone ([`Exchange::undo`]), after it
//! everything can be finished ([`Exchange::keep_old`], [`Exchange::boot_if_needed`]). Which of the two is due is read from the pool ([`Exchange::took_place`]).

use super::event_limits::limits;
use super::observed::{Observed, boot_again, note_failed, note_observed, observe, thaw_unless_paused};
use super::snapshot_row::{free_name, measured, unmeasured};
use super::{Op, Recovery};
use crate::catalog::containers::{ContainerRow, Desired};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, ms};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, RunId};
use crate::model::{AutomaticEvent, Snapshot, Status, Trigger};
use crate::name::{Alias, SnapshotName};
use crate::runtime::Running;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::units::{Generation, VolumeId};
use crate::world::World;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the journal holds of an exchange. It is part of an operation's intent, flattened into its fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub container: ContainerId,
    /// Under which name the state before is kept.
    pub keep: Box<SnapshotRow>,
    /// The volume that was live: if another one is, the exchange has taken place.
    pub live: VolumeId,
    /// Whether it boots afterwards.
    pub boot: bool,
    pub was_running: bool,
    pub run: RunId,
    pub by: String,
    /// What becomes of the project's databases.
    #[serde(default)]
    pub databases: DatabasesPlan,
    /// The state before is not kept: it is in a snapshot already.
    #[serde(default)]
    pub discard: bool,
}

/// How a boot after an exchange ended: when it started, and why it did not.
pub(super) type Boot = (Option<i64>, Option<String>);

/// How long the undo snapshot is kept, and under which name.
pub(super) struct Kept {
    pub name: SnapshotName,
    pub alias: Option<Alias>,
    pub expires_at: Option<Timestamp>,
    /// For people: what came after it.
    pub why: String,
}

impl Kept {
    /// An undo snapshot that expires by itself. `why`: for people, what came after it.
    pub(super) fn for_undo(world: &World, id: &ContainerId, why: String) -> Result<Self> {
        let now = world.now();
        let wanted = now.strftime("undo-%Y%m%d-%H%M%S").to_string().parse()?;
        let (name, kept) = world.read(|c| Ok((free_name(c, id, wanted)?, limits(c, id, AutomaticEvent::Restore)?)))?;
        let expires_at = match kept.and_then(|l| l.max_age) {
            Some(age) => Some(age.after(now)),
            None => now.checked_add(world.settings.undo_expiry).ok(),
        };
        Ok(Kept { name, alias: None, expires_at, why })
    }

    /// Its row, as far as it is known before the volume exists.
    pub(super) fn row(self, now: Timestamp, parent: Option<SnapshotName>) -> Box<SnapshotRow> {
        let Kept { name, alias, expires_at, why } = self;
        let snapshot = Snapshot { expires_at, parent, description: Some(why), trigger: Trigger::Restore, ..unmeasured(name, alias, now) };
        Box::new(SnapshotRow { snapshot, generation: Generation(0) })
    }
}

impl Exchange {
    /// What an exchange of this container's volume needs, as the container is now. `start`: whether it boots afterwards; absent: if it runs or is paused now.
    /// Error: `volume_not_found`.
    pub(super) fn plan(world: &World, row: &ContainerRow, kept: Kept, start: Option<bool>, databases: DatabasesPlan, by: &str) -> Result<Self> {
        let id = &row.id;
        let live = world.store.info(&Volume::Live(id.clone()))?;
        let live = live.ok_or_else(|| Error::new(Code::VolumeNotFound, format!("container {id} has no live volume: run `check`")))?;
        let was_running = matches!(row.status, Status::Running | Status::Paused);
        Ok(Exchange {
            container: id.clone(),
            keep: kept.row(world.now(), row.state.head.clone()),
            live: live.id,
            boot: start.unwrap_or(was_running),
            was_running,
            run: RunId::generate(),
            by: by.to_owned(),
            databases,
            discard: false,
        })
    }

    pub(super) fn next(&self) -> Volume {
        Volume::Next(self.container.clone())
    }

    /// Ends what runs and everything that uses the live volume. May be repeated.
    pub(super) fn stop(&self, world: &World) -> Result<()> {
        let id = &self.container;
        if self.was_running {
            world.runtime.kill(id)?;
        }
        world.databases.forget_private(id)?;
        world.roots.release(id)
    }

    /// Exchanges the live volume with the prepared one, in one step.
    pub(super) fn swap(&self, world: &World) -> Result<()> {
        world.store.exchange(&Volume::Live(self.container.clone()), &self.next())
    }

    /// Whether the exchange has taken place: the volume that was live is no longer at `live`.
    pub(super) fn took_place(&self, world: &World) -> Result<bool> {
        Ok(world.store.info(&Volume::Live(self.container.clone()))?.is_some_and(|i| i.id != self.live))
    }

    /// After the exchange it is only a matter of finishing: the new state boots while the old one is kept. The inner result is that of the boot.
    #[allow(clippy::type_complexity)]
    pub(super) fn boot_and_keep(&self, op: &Op, row: &ContainerRow) -> Result<(Result<Option<Running>>, Option<SnapshotRow>)> {
        let world = &op.world;
        op.step("boot")?;
        let (started, kept) = std::thread::scope(|s| {
            let keep = || -> Result<Option<SnapshotRow>> {
                op.step("seal")?;
                self.keep_old(world, || op.step("sync"))
            };
            let beside = std::thread::Builder::new().spawn_scoped(s, keep);
            let started = if self.boot { Some(world.starter.start(row, &self.run)) } else { None };
            let kept = match beside {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the exchange panicked"))),
                Err(_) => keep(),
            };
            (started, kept)
        });
        Ok((started.transpose(), kept?))
    }

    /// After the exchange: keeps what was live under its name, or deletes it. Durable when it returns. May be repeated.
    pub(super) fn keep_old(&self, world: &World, before_sync: impl FnOnce() -> Result<()>) -> Result<Option<SnapshotRow>> {
        let (id, keep) = (&self.container, &self.keep.snapshot.name);
        if self.discard {
            let mut gone = world.store.delete(&self.next())?;
            gone.volumes.extend(world.store.delete(&Volume::NextDatabases(id.clone()))?.volumes);
            before_sync()?;
            world.store.sync()?;
            world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, &format!("what container {id} was before")))?;
            world.upkeep.reclaim();
            return Ok(None);
        }
        world.store.seal(&self.next(), &Volume::Snapshot(id.clone(), keep.clone()))?;
        world.databases.keep(id, keep, &self.databases)?;
        before_sync()?;
        world.store.sync()?;
        measured(world, id, (*self.keep).clone()).map(Some)
    }

    /// How the boot ended, for the container's row; nothing if it was not to boot.
    pub(super) fn boot_result(&self, started: &Result<Option<Running>>) -> Option<Boot> {
        let failed = started.as_ref().err().map(|e| e.message().to_owned());
        let at = started.as_ref().ok().and_then(Option::as_ref).map(|r| ms(r.started_at));
        self.boot.then_some((at, failed))
    }

    /// Recovery after the exchange: adopts what runs, or boots it, if it was to boot.
    pub(super) fn boot_if_needed(&self, world: &World) -> Result<Option<Boot>> {
        if !self.boot {
            return Ok(None);
        }
        let id = &self.container;
        Ok(Some(match observe(world, id)? {
            Observed::Running(at, _) | Observed::Frozen(at, _) => (at, None),
            Observed::Nothing => {
                world.runtime.kill(id)?;
                match boot_again(world, id, &self.run) {
                    Ok(Observed::Running(at, _) | Observed::Frozen(at, _)) => (at, None),
                    Ok(Observed::Nothing) => (None, Some("it did not start".to_owned())),
                    Err(why) => (None, Some(why)),
                }
            }
        }))
    }

    /// Writes into the container's row what it does after the exchange. `head`: the snapshot that it grows from now.
    pub(super) fn note(&self, c: &mut ContainerRow, now: Timestamp, head: Option<SnapshotName>, undo: Option<SnapshotName>, boot: Option<Boot>) {
        c.state.head = head;
        c.state.since_ms = ms(now);
        c.state.undo = undo;
        match boot {
            None => {
                c.status = Status::Stopped;
                c.state.desired = Desired::Stopped;
                c.state.message = None;
            }
            Some((started, failed)) => {
                c.status = if failed.is_some() { Status::Failed } else { Status::Running };
                c.state.run = Some(self.run.clone());
                c.state.desired = Desired::Running;
                c.state.started_ms = started.or(c.state.started_ms);
                c.state.message = failed;
            }
        }
    }

    /// Recovery before the exchange: deletes what was prepared, boots the old state again if it ran, and closes the operation as undone. `what`: for the list
    /// of what is being reclaimed; `gone`: further volumes that were deleted.
    pub(super) fn undo(&self, r: &Recovery<'_>, what: &str, gone: Vec<VolumeId>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        thaw_unless_paused(world, id)?;
        let mut gone = gone;
        gone.extend(world.store.delete(&self.next())?.volumes);
        gone.extend(world.store.delete(&Volume::Staging(r.id.clone()))?.volumes);
        gone.extend(world.databases.unprepare(id, &self.keep.snapshot.name, &self.databases)?);
        let observed = match observe(world, id)? {
            Observed::Nothing if self.was_running => boot_again(world, id, &RunId::generate()).map(Some),
            // It did not run before either, and its status says why.
            Observed::Nothing => Ok(None),
            other => Ok(Some(other)),
        };
        r.undone(|tx: &mut Tx<'_>| {
            tx.add_reclaim(&gone, &format!("{what} of container {id} that was undone"))?;
            match &observed {
                Ok(Some(observed)) => note_observed(tx, id, observed),
                Ok(None) => Ok(()),
                Err(why) => note_failed(tx, id, why),
            }
        })?;
        world.upkeep.reclaim();
        Ok(())
    }
}
