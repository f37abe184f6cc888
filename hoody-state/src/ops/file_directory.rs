//! Makes one directory of a live volume. It is made or it is not: there is nothing to undo, so it has no journal.

use super::file_change::{Target, changeable_container, check_condition, files};
use super::file_write::{claim, make_directory, make_parents};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{FileWritten, WriteOptions};
use crate::op::Caller;
use crate::tree::{Kind, TreePath};
use crate::world::World;

/// See [`crate::Host::make_directory`].
pub(crate) fn make(world: &World, caller: &Caller, id: &ContainerId, path: &TreePath, options: &WriteOptions) -> Result<FileWritten> {
    let _held = world.engine.lock(caller, claim(id))?;
    let row = changeable_container(world, id)?;
    super::room::check(world, caller, id)?;
    if options.parents {
        make_parents(world, &files(world).writable(&row, path)?, path)?;
    }
    let target = Target::find(world, &row, path)?;
    let now = target.node()?;
    check_condition(&options.condition, path, now.as_ref())?;
    let created = match now.map(|n| n.meta.kind) {
        None => true,
        Some(Kind::Directory) => false,
        Some(other) => return Err(Error::new(Code::NotADirectory, format!("{} is a {}: nothing was changed", path.shown(), other.as_str()))),
    };
    if created {
        make_directory(world, target.dir(), target.place().name.to_bytes())?;
    }
    let made = target.node()?.ok_or_else(|| Error::new(Code::FileNotFound, format!("{} was removed as soon as it was made", path.shown())))?;
    Ok(FileWritten { path: path.shown(), path_encoded: path.encoded(), created, entry: files(world).entry(path, &made)? })
}
