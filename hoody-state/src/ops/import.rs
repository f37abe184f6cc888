//! Makes an image of a tar.

use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::{Durability, images};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ImageId, OperationId};
use crate::image::ImportOptions;
use crate::image::import::{ImportReport, import as fill};
use crate::model::Image;
use crate::name::{ImageName, SnapshotName};
use crate::op::Caller;
use crate::op::Progress;
use crate::snapshot::Volume;
use crate::units::Bytes;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The intent. An import that was cut short is always undone: the tar has gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Import {
    pub image: Image,
}

impl Operation for Import {
    type World = World;
    type Answer = Image;
    const TAG: &'static str = "import";

    fn kind(&self) -> &'static str {
        "image.import"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("image", self.image.name.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("image.import", vec![Want::image(&self.image.name)])
    }

    fn run(self, _: &mut Op) -> Result<Image> {
        Err(Error::internal("an import runs with its tar"))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        undo(r, &self.image)
    }
}

/// Deletes what there is of an image that was not finished.
pub(super) fn undo(r: &Recovery<'_>, image: &Image) -> Result<()> {
    let mut gone = r.world.store.delete(&Volume::Staging(r.id.clone()))?;
    gone.volumes.extend(r.world.store.delete(&Volume::Image(image.name.clone()))?.volumes);
    r.undone(|tx| tx.add_reclaim(&gone.volumes, &format!("image {}", image.name)))?;
    r.world.upkeep.reclaim();
    Ok(())
}

/// An image that is about to be made, if its name is free.
pub(super) fn new_image(world: &World, name: &str, source: &str) -> Result<Image> {
    let name: ImageName = name.parse()?;
    world.read(|c| require_free(c, &name))?;
    world.limits.check_space()?;
    Ok(Image {
        id: ImageId::generate(),
        alias: name.clone(),
        image_name: name.clone(),
        name,
        size: Bytes(0),
        files: None,
        source: source.to_owned(),
        is_default: false,
        created_at: world.now(),
    })
}

/// Refuses a name that is taken. Asked under the lock too: undoing an image deletes the volume of that name, which must not be another image's.
pub(super) fn require_free(c: &rusqlite::Connection, name: &ImageName) -> Result<()> {
    images::by_name(c, name)?.map_or(Ok(()), |i| Err(images::exists(&i.name)))
}

/// Ends an operation that makes an image. `from`: the snapshot that it is made from.
pub(super) fn finish(op: &Op, image: Image, from: Option<(&ContainerId, &SnapshotName)>) -> Result<Image> {
    op.finish(Durability::Disk, |tx| {
        tx.insert_image(&image)?;
        tx.record_image(&image.name, from)?;
        Ok(images::by_name(tx.conn, &image.name)?.unwrap_or(image))
    })
}

/// See [`crate::Host::import_image`].
pub(crate) fn import(world: &World, caller: &Caller, name: &str, tar: &mut dyn Read) -> Result<Image> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let image = new_image(world, name, "import")?;
    let intent = Import { image: image.clone() };
    let held = world.engine.lock(caller, intent.claim())?;
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, None, |tx| require_free(tx.conn, &image.name))?;
    begun.op.progress.cancellable.store(true, Ordering::Relaxed);
    begun.run_with(|intent, op| run(intent.image, op, tar))
}

fn run(image: Image, op: &mut Op, tar: &mut dyn Read) -> Result<Image> {
    let world = op.world.clone();
    let staging = Volume::Staging(op.id.clone());
    op.step("create")?;
    world.store.create(&staging)?;
    op.step("fill")?;
    let report = fill_staging(&world, &op.id, &op.progress, tar)?;
    op.step("seal")?;
    op.progress.cancellable.store(false, Ordering::Relaxed);
    world.store.seal(&staging, &Volume::Image(image.name.clone()))?;
    op.step("sync")?;
    world.store.sync()?;
    finish(op, Image { size: report.bytes, files: Some(report.files), ..image }, None)
}

fn fill_staging(world: &World, op: &OperationId, progress: &Arc<Progress>, tar: &mut dyn Read) -> Result<ImportReport> {
    let space = world.store.space()?;
    let room = space.free - crate::model::space::reserve(space.total);
    let options = ImportOptions {
        id_base: world.id_base,
        // Of an image's own bytes: what lies above the reserve now.
        max_bytes: Some(room),
        cancelled: &|| progress.cancelled.load(Ordering::Relaxed),
        progress: &|n: Bytes| progress.done.store(n.0, Ordering::Relaxed),
    };
    let filled = match world.store.path(&Volume::Staging(op.clone())) {
        Some(root) => fill(tar, &root, &options),
        None => {
            // A store without files: the tar is still read and judged.
            let dir = tempfile::tempdir().map_err(|e| Error::io("make a temporary directory", e))?;
            fill(tar, dir.path(), &options)
        }
    };
    filled.map_err(|e| {
        if e.code() != Code::ImageTooLarge {
            return e;
        }
        let message =
            format!("the image needs more than the {room} that the pool has left above its reserve: delete something or grow the pool; nothing is kept of it");
        Error::new(Code::PoolFull, message).with_source(e)
    })
}
