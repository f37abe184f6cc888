//! When two volumes were last one.
//!
//! A volume's line is the volumes that it was copied from, each with the transaction of the copy. If two lines meet in one volume, both trees were that volume's
//! tree when the first of the two copies was made, and only what changed later can differ. A line is cut where a volume was deleted; then a volume
//! that is known to be an ancestor of both serves as well.

use super::items::Tree;
use crate::diff::options::Method;
use crate::error::{Code, Error, IoContext, Result};
use crate::snapshot::btrfs::nested::open_root;
use btrfs_uapi::send_receive::subvolume_search_by_uuid;
use btrfs_uapi::subvolume::{SubvolumeInfo, subvolume_info};
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use uuid::Uuid;

/// No line is followed further.
const LONGEST_LINE: usize = 10_000;

/// What is known of the history of two volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// They were one until this transaction.
    Parted(u64),
    /// They were one once, but until when is not known.
    Forgotten,
    /// They never were one.
    Unrelated,
}

impl Since {
    pub(super) fn method(self) -> Method {
        match self {
            Since::Parted(_) => Method::Changes,
            Since::Forgotten => Method::Scan,
            Since::Unrelated => Method::Walk,
        }
    }
}

/// What is known of a volume; `None` if it was deleted.
fn info(mount: BorrowedFd<'_>, id: u64) -> Result<Option<SubvolumeInfo>> {
    // The kernel answers for the volume of the descriptor, whatever number is given.
    let Some(root) = open_root(mount, id)? else { return Ok(None) };
    subvolume_info(root.as_fd()).io(|| format!("ask for the information of subvolume {id}")).map(Some)
}

/// The volumes that one comes from, with the transaction in which it left each. The first is itself.
fn line(tree: Tree<'_>) -> Result<Vec<(Uuid, u64)>> {
    let mut at = info(tree.mount, tree.id)?.ok_or_else(|| Error::new(Code::VolumeNotFound, "a volume was deleted while it was compared: try again"))?;
    let mut found = vec![(at.uuid, u64::MAX)];
    while !at.parent_uuid.is_nil() && found.len() < LONGEST_LINE {
        found.push((at.parent_uuid, at.otransid));
        let parent = match subvolume_search_by_uuid(tree.mount, &at.parent_uuid) {
            Ok(id) => info(tree.mount, id)?,
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e).io(|| "look for the volume that another was copied from"),
        };
        match parent {
            Some(parent) => at = parent,
            None => break,
        }
    }
    Ok(found)
}

/// The transaction up to which two volumes were one, if their lines meet.
pub(super) fn parted(old: Tree<'_>, new: Tree<'_>) -> Result<Option<u64>> {
    let known: HashMap<Uuid, u64> = line(new)?.into_iter().collect();
    Ok(line(old)?.into_iter().find_map(|(uuid, left)| known.get(&uuid).map(|other| left.min(*other))))
}

/// Whether both volumes grew from one that was made once: their roots are the same inode.
pub(super) fn same_origin(old: Tree<'_>, new: Tree<'_>) -> Result<bool> {
    let root = crate::sys::fs::SUBVOLUME_ROOT_INO;
    Ok(match (old.object(root)?, new.object(root)?) {
        (Some(a), Some(b)) => a.is_same(&b),
        _ => false,
    })
}

/// From when on the two trees must be compared. `ancestor` is a volume that both are known to have grown from.
pub(super) fn since(old: Tree<'_>, new: Tree<'_>, ancestor: Option<BorrowedFd<'_>>) -> Result<Since> {
    if let Some(transid) = parted(old, new)? {
        return Ok(Since::Parted(transid));
    }
    if !same_origin(old, new)? {
        return Ok(Since::Unrelated);
    }
    let Some(ancestor) = ancestor else { return Ok(Since::Forgotten) };
    let known = subvolume_info(ancestor).io(|| "ask for the information of an ancestor")?;
    let tree = Tree { mount: old.mount, id: known.id };
    if !same_origin(tree, old)? {
        return Ok(Since::Forgotten);
    }
    // Both were this tree at the moment of its last change: it is read-only, and they grew from it.
    Ok(Since::Parted(tree.last_change(known.generation)?))
}
