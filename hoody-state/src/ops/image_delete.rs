//! Deletes an image. Containers made from it are not touched.

use super::discarded;
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::{Durability, images};
use crate::error::Result;
use crate::model::Image;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};

/// The intent: the image has left the list in the transaction that journals this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeleteImage {
    pub image: Image,
}

impl DeleteImage {
    fn volume(&self) -> Volume {
        Volume::Image(self.image.name.clone())
    }
}

impl Operation for DeleteImage {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "delete_image";

    fn kind(&self) -> &'static str {
        "image.delete"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("image", self.image.name.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("image.delete", vec![Want::image(&self.image.name)])
    }

    /// It is in no list any more.
    fn keeps_locks(&self) -> bool {
        false
    }

    fn run(self, op: &mut Op) -> Result<()> {
        discarded::delete(op, &[self.volume()], &format!("image {}", self.image.name))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        // An image of the same name may have been imported since: the volume is that one's then.
        if r.world.read(|c| images::by_name(c, &self.image.name))?.is_some() {
            return r.finished(|_| Ok(()));
        }
        discarded::recover(r, &[self.volume()], &format!("image {}", self.image.name))
    }
}

/// See [`crate::Host::delete_image`].
pub(crate) fn delete(world: &World, caller: &Caller, name: &str) -> Result<()> {
    if world.engine.replay::<()>(caller)?.is_some() {
        return Ok(());
    }
    let image = world.read(|c| images::resolve(c, Some(name)))?;
    let held = world.engine.lock(caller, Claim::short("image.delete", vec![Want::image(&image.name)]))?;
    // Under the lock it is the same within the transaction.
    let image = world.read(|c| images::resolve(c, Some(image.name.as_str())))?;
    Begun::journal(world, caller, held, Durability::Disk, DeleteImage { image: image.clone() }, None, |tx| {
        tx.remove_image(&image)?;
        tx.answer_key(caller.idempotency.as_ref(), &())
    })?
    .run_here_or_later()
}
