//! Directories of the pool that are removed once they are empty.

use super::BtrfsStore;
use crate::error::{Error, Result};
use crate::id::OperationId;
use crate::pool::layout;
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::path::Path;

/// Removes the staging directory of a deleted volume.
pub(super) fn drop_staging_dir(store: &BtrfsStore, op: &OperationId) -> Result<()> {
    let dir = Path::new(layout::STAGING).join(op.as_str());
    match unlinkat(&store.root, &dir.join("pending"), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        Err(e) => return Err(Error::io(format!("remove staging/{op}/pending"), e)),
    }
    remove_empty_dir(store, &dir)
}

/// Removes a directory of the pool if it exists and is empty.
pub(super) fn remove_empty_dir(store: &BtrfsStore, dir: &Path) -> Result<()> {
    match unlinkat(&store.root, dir, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
        Err(e) => Err(Error::io(format!("remove directory {}", store.path.join(dir).display()), e)),
    }
}
