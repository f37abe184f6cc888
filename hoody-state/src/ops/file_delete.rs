//! Deletes one name of a live volume. A directory disappears in one step: it is renamed, then emptied and removed.

use super::file_change::{Target, changeable_container, check_condition, encoded_parts, files, temporary};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::Durability;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{FileCondition, FileDeleted};
use crate::op::Caller;
use crate::tree::{Kind, Place, TreePath, sync_directory};
use crate::world::World;
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeleteFile {
    pub container: ContainerId,
    /// The path of the directory that it is in, percent-encoded.
    pub dir: String,
    /// The name in it, percent-encoded.
    pub name: String,
}

impl Operation for DeleteFile {
    type World = World;
    type Answer = FileDeleted;
    const TAG: &'static str = "delete_file";

    fn kind(&self) -> &'static str {
        "file.delete"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        claim(&self.container)
    }

    /// All that is left to do is to remove a name that no other operation has.
    fn keeps_locks(&self) -> bool {
        false
    }

    fn run(self, _: &mut Op) -> Result<FileDeleted> {
        Err(Error::internal("a file is deleted by the descriptor that was checked"))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let Some(target) = Target::again(r.world, &self.container, &self.dir, &self.name)? else { return r.finished(|_| Ok(())) };
        let temporary = temporary(r.id)?;
        let renamed = target.beside(&temporary).stat()?.is_some();
        crate::tree::remove(target.root.as_fd(), target.beside(&temporary))?;
        let left = !renamed && target.node()?.is_some();
        sync_directory(target.dir())?;
        if left { r.undone(|_| Ok(())) } else { r.finished(|_| Ok(())) }
    }
}

fn claim(container: &ContainerId) -> Claim {
    Claim::short("file.delete", vec![Want::container(container)])
}

/// See [`crate::Host::delete_file`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ContainerId, path: &TreePath, recursive: bool, condition: &FileCondition) -> Result<FileDeleted> {
    changeable_container(world, id)?;
    let held = world.engine.lock(caller, claim(id))?;
    let row = changeable_container(world, id)?;
    let target = Target::find(world, &row, path)?;
    let node = target.node()?.ok_or_else(|| Error::new(Code::FileNotFound, format!("there is nothing at {}", path.shown())))?;
    check_condition(condition, path, Some(&node))?;
    let directory = node.meta.kind == Kind::Directory;
    if directory && !recursive {
        return Err(Error::new(Code::IsADirectory, format!("{} is a directory: it is deleted only with `recursive`", path.shown())));
    }
    let deleted = FileDeleted { path: path.shown(), path_encoded: path.encoded(), entry: files(world).entry(path, &node)? };
    let (dir, name) = encoded_parts(path)?;
    let intent = DeleteFile { container: id.clone(), dir, name };
    let begun = Begun::journal(world, caller, held, Durability::Process, intent, Some(&row.project), |_| Ok(()))?;
    begun.run_with(|_, op| run(op, &target, directory, deleted))
}

fn run(op: &mut Op, target: &Target, directory: bool, deleted: FileDeleted) -> Result<FileDeleted> {
    let Place { dir, name } = target.place();
    let changed = |e: Errno| match e {
        Errno::NOENT => Error::new(Code::FileNotFound, format!("{} is gone by now", deleted.path)),
        Errno::ISDIR => Error::new(Code::IsADirectory, format!("{} has become a directory; nothing was deleted", deleted.path)),
        e => Error::io("delete a file of a container", e),
    };
    if !directory {
        op.step("unlink")?;
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(changed)?;
        op.step("sync")?;
        sync_directory(dir)?;
        return op.finish(Durability::Process, |_| Ok(deleted));
    }
    let temporary = temporary(&op.id)?;
    op.step("rename")?;
    rustix::fs::renameat_with(dir, name, dir, &temporary, RenameFlags::NOREPLACE).map_err(changed)?;
    op.step("sync")?;
    sync_directory(dir)?;
    op.step("remove")?;
    crate::tree::remove(target.root.as_fd(), target.beside(&temporary))?;
    sync_directory(dir)?;
    op.finish(Durability::Process, |_| Ok(deleted))
}
