use super::import::{ImportOptions, import};
use crate::catalog::{Durability, containers, images, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, ImageId, OperationId};
use crate::model::{Image, PageRequest, Paged};
use crate::name::ImageName;
use crate::op::Intent;
use crate::snapshot::Volume;
use crate::units::Bytes;
use std::io::Read;
use std::sync::atomic::Ordering;

impl Host {
    /// A page of images.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn images(&self, page: &PageRequest) -> Result<Paged<Image>> {
        let (rows, total) = self.0.catalog.read(|c| images::page(c, page))?;
        Ok(Paged::new(rows, total, page))
    }

    /// One image, by its name or as the clients write it.
    ///
    /// # Errors
    /// `image_not_found`.
    pub fn image(&self, name: &str) -> Result<Image> {
        self.0.catalog.read(|c| images::resolve(c, Some(name)))
    }

    fn new_image(&self, name: &str, source: &str) -> Result<Image> {
        let name: ImageName = name.parse()?;
        self.0.catalog.read(|c| free(c, &name))?;
        self.guard_space()?;
        Ok(Image {
            id: ImageId::generate(),
            alias: name.clone(),
            image_name: name.clone(),
            name,
            size: Bytes(0),
            files: None,
            source: source.to_owned(),
            is_default: false,
            created_at: self.0.clock.now(),
        })
    }

    /// Makes an image of a tar (plain, gzip or zstd), read to its end. The first image is the default one. A failed or cancelled import leaves nothing.
    ///
    /// # Errors
    /// `invalid_image_name`, `reserved_image_name`, `image_exists`, `image_format`, `image_corrupt`, `image_path_unsafe`, `image_no_root`, `pool_full`,
    /// `operation_cancelled`, `operation_in_progress`.
    pub fn import_image(&self, caller: &Caller, name: &str, tar: &mut dyn Read) -> Result<Image> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let image = self.new_image(name, "import")?;
        let lock = self.0.locks.take(&lock_name(&image.name), "image.import")?;
        let op = self.begin(caller, lock, Durability::Disk, Intent::Import { image: image.clone() }, None, |tx| free(tx.conn, &image.name))?;
        op.progress.cancellable.store(true, Ordering::Relaxed);
        self.perform(op, |op| {
            let staging = Volume::Staging(op.id.clone());
            op.step("create")?;
            self.0.store.create(&staging)?;
            op.step("fill")?;
            let space = self.0.store.space()?;
            let room = space.free - crate::pool::reserve(space.total);
            let progress = std::sync::Arc::clone(&op.progress);
            let options = ImportOptions {
                id_base: self.0.id_base,
                // Of an image's own bytes: what lies above the reserve now.
                max_bytes: Some(room),
                cancelled: &|| progress.cancelled.load(Ordering::Relaxed),
                progress: &|n: Bytes| progress.done.store(n.0, Ordering::Relaxed),
            };
            let imported = match self.0.store.path(&staging) {
                Some(root) => import(tar, &root, &options),
                None => {
                    // A store without files: the tar is still read and judged.
                    let dir = tempfile::tempdir().map_err(|e| Error::io("make a temporary directory", e))?;
                    import(tar, dir.path(), &options)
                }
            };
            let report = imported.map_err(|e| {
                if e.code() != Code::ImageTooLarge {
                    return e;
                }
                let message = format!(
                    "the image needs more than the {room} that the pool has left above its reserve: delete something or grow the pool; nothing is kept of it"
                );
                Error::new(crate::Code::PoolFull, message).with_source(e)
            })?;
            op.step("seal")?;
            op.progress.cancellable.store(false, Ordering::Relaxed);
            self.0.store.seal(&staging, &Volume::Image(image.name.clone()))?;
            op.step("sync")?;
            self.0.store.sync()?;
            let image = Image { size: report.bytes, files: Some(report.files), ..image };
            self.finish_image(op, image)
        })
    }

    fn finish_image(&self, op: &crate::op::Op, image: Image) -> Result<Image> {
        op.finish(Durability::Disk, |tx| {
            tx.insert_image(&image)?;
            Ok(images::by_name(tx.conn, &image.name)?.unwrap_or(image))
        })
    }

    /// Makes an image of a snapshot. Constant cost.
    ///
    /// # Errors
    /// As for an import, and `container_not_found`, `snapshot_not_found`.
    pub fn image_from_snapshot(&self, caller: &Caller, name: &str, container: &ContainerId, snapshot: &str) -> Result<Image> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let image = self.new_image(name, "snapshot")?;
        let row = self.0.catalog.read(|c| {
            containers::get(c, container)?;
            snapshots::get(c, container, snapshot)
        })?;
        let lock = self.0.locks.take(&lock_name(&image.name), "image.from-snapshot")?;
        let _held = self.0.locks.take(container.as_str(), "image.from-snapshot")?;
        let intent = Intent::ImageFromSnapshot { image: image.clone(), container: container.clone(), snapshot: row.snapshot.name.clone() };
        let op = self.begin(caller, lock, Durability::Disk, intent, None, |tx| free(tx.conn, &image.name))?;
        self.perform(op, |op| {
            op.step("snapshot")?;
            let to = Volume::Image(image.name.clone());
            self.0.store.snapshot(&Volume::Snapshot(container.clone(), row.snapshot.name.clone()), &to, &op.id)?;
            let size = self.0.store.delta(&to, None)?;
            self.finish_image(op, Image { size, ..image })
        })
    }

    /// Deletes an image. Containers made from it are not touched.
    ///
    /// # Errors
    /// `image_not_found`, `operation_in_progress`.
    pub fn delete_image(&self, caller: &Caller, name: &str) -> Result<()> {
        if self.replay::<()>(caller)?.is_some() {
            return Ok(());
        }
        let image = self.image(name)?;
        let _lock = self.0.locks.take(&lock_name(&image.name), "image.delete")?;
        let op = OperationId::generate();
        self.0.hook.step("image.delete", "intent")?;
        self.write(Durability::Disk, |tx| {
            let image = images::resolve(tx.conn, Some(image.name.as_str()))?;
            tx.claim_key(caller.idempotency.as_ref(), None)?;
            tx.remove_image(&image)?;
            tx.open_operation(&op, &Intent::DeleteImage { image }, None)?;
            tx.answer_key(caller.idempotency.as_ref(), &())
        })?;
        match self.drop_volume(&Volume::Image(image.name.clone()), &format!("image {}", image.name)) {
            Err(e) if e.code() != Code::Crashed => {
                tracing::warn!(image = %image.name, error = %e, "could not delete its volume yet; trying again");
                self.0.upkeep.expiry();
                Ok(())
            }
            other => other,
        }
    }
}

/// Refuses a name that is taken. Asked under the lock too: undoing an image deletes the volume of that name, which must be nobody else's.
fn free(c: &rusqlite::Connection, name: &ImageName) -> Result<()> {
    images::by_name(c, name)?.map_or(Ok(()), |i| Err(images::exists(&i.name)))
}

/// Images and containers are locked in one table.
pub(crate) fn lock_name(name: &ImageName) -> String {
    format!("image {name}")
}
