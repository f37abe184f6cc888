//! Makes an image of a snapshot.

use super::import::{finish, new_image, require_free, undo};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::{Durability, containers, snapshots};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::Image;
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageFromSnapshot {
    pub image: Image,
    pub container: ContainerId,
    pub snapshot: SnapshotName,
}

impl Operation for ImageFromSnapshot {
    type World = World;
    type Answer = Image;
    const TAG: &'static str = "image_from_snapshot";

    fn kind(&self) -> &'static str {
        "image.from-snapshot"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("image", self.image.name.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("image.from-snapshot", vec![Want::container(&self.container), Want::image(&self.image.name)])
    }

    fn run(self, op: &mut Op) -> Result<Image> {
        let world = op.world.clone();
        op.step("snapshot")?;
        let to = Volume::Image(self.image.name.clone());
        world.store.snapshot(&Volume::Snapshot(self.container.clone(), self.snapshot.clone()), &to, &op.id)?;
        let size = world.store.delta(&to, None)?;
        finish(op, Image { size, ..self.image }, Some((&self.container, &self.snapshot)))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        undo(r, &self.image)
    }
}

/// See [`crate::Host::image_from_snapshot`].
pub(crate) fn image_from_snapshot(world: &World, caller: &Caller, name: &str, container: &ContainerId, snapshot: &str) -> Result<Image> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let image = new_image(world, name, "snapshot")?;
    let row = world.read(|c| {
        containers::get(c, container)?;
        snapshots::get(c, container, snapshot)
    })?;
    let intent = ImageFromSnapshot { image, container: container.clone(), snapshot: row.snapshot.name };
    let held = world.engine.lock(caller, intent.claim())?;
    let image = intent.image.name.clone();
    Begun::journal(world, caller, held, Durability::Disk, intent, None, |tx| require_free(tx.conn, &image))?.run_here()
}
