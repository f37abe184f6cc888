//! Who refers to a data extent, and whether it is still there.

use super::files::Name;
use crate::error::{Error, IoContext, Result};
use crate::snapshot::btrfs::exclusive::generation_of;
use btrfs_uapi::inode::logical_ino;
use btrfs_uapi::raw::{BTRFS_EXTENT_ITEM_KEY, BTRFS_EXTENT_TREE_OBJECTID};
use btrfs_uapi::tree_search::{Key, SearchFilter, tree_search_v2};
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::BorrowedFd;

/// The buffer for the references to one extent. It takes 2,700; an extent with more is left where it is.
const REFERENCES: u64 = 64 << 10;
/// Extents of which it is remembered whether they are held: 24 bytes each.
const REMEMBERED: usize = 1 << 18;

/// The files that refer to an extent; `None` if that cannot be said, or if there are too many. Files of volumes that are being deleted do not count.
fn references(mount: BorrowedFd<'_>, disk: u64, alive: &mut HashMap<u64, bool>) -> Result<Option<BTreeSet<Name>>> {
    let found = match logical_ino(mount, disk, true, Some(REFERENCES)) {
        Ok(found) => found,
        // It has been freed since, or its references change right now.
        Err(Errno::ENOENT | Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(Error::io("ask for the references to an extent", std::io::Error::from(e))),
    };
    if (found.len() as u64 + 1) * 24 + 16 > REFERENCES {
        return Ok(None);
    }
    let mut files = BTreeSet::new();
    for r in found {
        let alive = match alive.get(&r.root) {
            Some(known) => *known,
            None => *alive.entry(r.root).or_insert(generation_of(mount, r.root)?.is_some()),
        };
        if alive {
            files.insert(Name { root: r.root, ino: r.inode });
        }
    }
    Ok(Some(files))
}

/// Whether extents are held by something that may not be changed.
pub(super) struct Held<'a> {
    mount: BorrowedFd<'a>,
    /// The subvolumes that may be changed.
    ours: HashSet<u64>,
    alive: HashMap<u64, bool>,
    known: HashMap<u64, bool>,
}

impl<'a> Held<'a> {
    pub(super) fn new(mount: BorrowedFd<'a>, ours: HashSet<u64>) -> Self {
        Held { mount, ours, alive: HashMap::new(), known: HashMap::new() }
    }

    /// As far as it was once seen: [`Held::files`] looks anew.
    pub(super) fn is_held(&mut self, disk: u64) -> Result<bool> {
        if let Some(known) = self.known.get(&disk) {
            return Ok(*known);
        }
        let held = self.files(disk)?.is_none();
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(disk, held);
        Ok(held)
    }

    /// The files that refer to an extent; `None` if one of them may not be changed, or if that cannot be said.
    pub(super) fn files(&mut self, disk: u64) -> Result<Option<BTreeSet<Name>>> {
        let files = references(self.mount, disk, &mut self.alive)?;
        Ok(files.filter(|files| !files.is_empty() && files.iter().all(|f| self.ours.contains(&f.root))))
    }

    /// From now on a subvolume may not be changed.
    pub(super) fn leave(&mut self, root: u64) {
        self.ours.remove(&root);
    }

    pub(super) fn may_change(&self, root: u64) -> bool {
        self.ours.contains(&root)
    }
}

/// Whether an extent of this stored length is at a disk address, as the last transaction left it.
pub(super) fn exists(mount: BorrowedFd<'_>, disk: u64, stored: u64) -> Result<bool> {
    let key = Key { objectid: disk, item_type: BTRFS_EXTENT_ITEM_KEY, offset: stored };
    let filter = SearchFilter { tree_id: u64::from(BTRFS_EXTENT_TREE_OBJECTID), start: key, end: key, min_transid: 0, max_transid: u64::MAX };
    let mut found = false;
    tree_search_v2(mount, filter, None, |_, _| {
        found = true;
        Ok(())
    })
    .io(|| "look for an extent")?;
    Ok(found)
}
