//! Which data only some volumes hold: what comes back when they are deleted.
//!
//! An extent is held as a whole: while any file of any subvolume refers to a part of it, none of it comes back. So each candidate is looked for in the
//! subvolumes that most likely share it, by one search of each tree, and the kernel is asked for all references to those that are left
//! (`LOGICAL_INO_V2`). The kernel's mark of a shared extent (`FIEMAP`) is of no use here: it is also set when two files of one volume share it.

use super::{BtrfsStore, has_nested, nested};
use crate::error::{IoContext, Result};
use crate::snapshot::{Exclusive, ExclusiveQuery, Volume, Witness};
use crate::units::{Bytes, Generation, VolumeId};
use btrfs_uapi::inode::logical_ino;
use btrfs_uapi::raw::{
    BTRFS_EXTENT_DATA_KEY, BTRFS_FIRST_FREE_OBJECTID, BTRFS_INODE_ITEM_KEY, BTRFS_ROOT_BACKREF_KEY, BTRFS_ROOT_ITEM_KEY, BTRFS_ROOT_TREE_OBJECTID,
};
use btrfs_uapi::tree_search::{Key, SearchFilter, tree_search_v2};
use nix::errno::Errno;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

/// The size of the search's buffer.
const BUFFER: usize = 256 * 1024;
/// More extents than this are not counted: the answer is that it is not known.
const MOST_EXTENTS: usize = 2_000_000;
/// Buffers for the references to one extent: the second, the kernel's largest, is for extents with many.
const REFERENCES: [u64; 2] = [4096, 16 << 20];

/// Reads a `struct btrfs_file_extent_item`: the disk address (at 21) and the stored length (at 29) of its data extent; `None` for what is stored in the item
/// itself, for holes and for malformed items.
fn parse(item: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(item.get(at..at + 8)?.try_into().ok()?));
    match (item.get(20)?, word(21)?) {
        (1 | 2, disk) if disk != 0 => Some((disk, word(29)?)),
        _ => None,
    }
}

/// Calls `found` with each data extent that items of a subvolume name, in blocks of its tree younger than `since`. A subvolume that is gone has none.
fn extents(mount: BorrowedFd<'_>, id: u64, since: Generation, mut found: impl FnMut(u64, u64)) -> Result<()> {
    let filter = SearchFilter {
        tree_id: id,
        start: Key { objectid: u64::from(BTRFS_FIRST_FREE_OBJECTID), item_type: 0, offset: 0 },
        end: Key::MAX,
        min_transid: if since.0 == 0 { 0 } else { since.0.saturating_add(1) },
        max_transid: u64::MAX,
    };
    let search = tree_search_v2(mount, filter, Some(BUFFER), |item, data| {
        if item.item_type == BTRFS_EXTENT_DATA_KEY
            && let Some((disk, len)) = parse(data)
        {
            found(disk, len);
        }
        Ok(())
    });
    match search {
        Err(Errno::ENOENT) => Ok(()),
        other => other.io(|| format!("search the tree of subvolume {id}")),
    }
}

/// The generation of a subvolume as the last transaction left it; `None` if it is gone or being deleted. Reads its `struct btrfs_root_item` (generation at
/// 160), and whether a directory still refers to it: that ends with the call that deletes it, before its transaction is committed.
pub(super) fn generation_of(mount: BorrowedFd<'_>, id: u64) -> Result<Option<Generation>> {
    let key = |item_type, offset| Key { objectid: id, item_type, offset };
    let (start, end) = (key(BTRFS_ROOT_ITEM_KEY, 0), key(BTRFS_ROOT_BACKREF_KEY, u64::MAX));
    let filter = SearchFilter { tree_id: u64::from(BTRFS_ROOT_TREE_OBJECTID), start, end, min_transid: 0, max_transid: u64::MAX };
    let (mut generation, mut named) = (None, false);
    tree_search_v2(mount, filter, None, |item, data| {
        match item.item_type {
            BTRFS_ROOT_ITEM_KEY => generation = data.get(160..168).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes),
            BTRFS_ROOT_BACKREF_KEY => named = true,
            _ => {}
        }
        Ok(())
    })
    .io(|| format!("look for subvolume {id}"))?;
    Ok(generation.filter(|_| named).map(Generation))
}

/// See [`crate::snapshot::SnapshotStore::has_changed_since`]. A volume's own generation says more than is asked for: a copy of it is a change of it too.
/// Reads the transaction (at 8) of each `struct btrfs_inode_item` in younger blocks.
pub(super) fn has_changed_since(store: &BtrfsStore, volume: &Volume, since: Generation) -> Result<bool> {
    let ids = roots(store, volume)?;
    let mut changed = ids.is_empty();
    for id in ids {
        let filter = SearchFilter {
            tree_id: id,
            start: Key { objectid: u64::from(BTRFS_FIRST_FREE_OBJECTID), item_type: 0, offset: 0 },
            end: Key::MAX,
            min_transid: since.0.saturating_add(1),
            max_transid: u64::MAX,
        };
        let search = tree_search_v2(store.mount(), filter, Some(BUFFER), |item, data| {
            let transid = data.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
            changed |= item.item_type == BTRFS_INODE_ITEM_KEY && transid.is_some_and(|t| t > since.0);
            // There is no need to read on.
            if changed { Err(Errno::ECANCELED) } else { Ok(()) }
        });
        match search {
            Ok(()) | Err(Errno::ECANCELED) => {}
            Err(Errno::ENOENT) => changed = true,
            Err(e) => return Err(e).io(|| format!("search the tree of subvolume {id}")),
        }
    }
    Ok(changed)
}

/// A volume and what is nested in it, by id; nothing if it is not there.
pub(super) fn roots(store: &BtrfsStore, volume: &Volume) -> Result<Vec<u64>> {
    let Some(fd) = store.find(volume)? else { return Ok(Vec::new()) };
    let top = nested::id_of(fd.as_fd())?;
    let mut ids = vec![top];
    if has_nested(fd.as_fd())? {
        ids.extend(nested::tree(store.mount(), top)?.into_iter().map(|n| n.id));
    }
    Ok(ids)
}

/// What a look-up of all references to an extent has found.
enum Holder {
    /// Only the volumes that are asked about.
    Own,
    /// Another subvolume, which exists.
    Other(u64),
    /// It cannot be said.
    Unknown,
}

/// The subvolumes that hold an extent. `known`: what was found out about others, by id.
fn holder(mount: BorrowedFd<'_>, disk: u64, own: &HashSet<u64>, known: &mut HashMap<u64, Option<Generation>>) -> Result<Holder> {
    for size in REFERENCES {
        let found = match logical_ino(mount, disk, true, Some(size)) {
            Ok(found) => found,
            // It has been freed since, or its references change right now.
            Err(Errno::ENOENT | Errno::EAGAIN) => return Ok(Holder::Unknown),
            Err(e) => return Err(crate::error::Error::io("ask for the references to an extent", std::io::Error::from(e))),
        };
        let others: HashSet<u64> = found.iter().map(|r| r.root).filter(|r| !own.contains(r)).collect();
        for root in others {
            let alive = match known.get(&root) {
                Some(g) => *g,
                None => *known.entry(root).or_insert(generation_of(mount, root)?),
            };
            if alive.is_some() {
                return Ok(Holder::Other(root));
            }
        }
        // Each takes three words, after a header of 16 bytes.
        if (found.len() as u64 + 1) * 24 + 16 <= size {
            return Ok(if found.is_empty() { Holder::Unknown } else { Holder::Own });
        }
    }
    Ok(Holder::Unknown)
}

/// See [`crate::snapshot::SnapshotStore::exclusive`].
pub(super) fn exclusive(store: &BtrfsStore, query: &ExclusiveQuery<'_>) -> Result<Option<Exclusive>> {
    let mount = store.mount();
    let mut witnesses: BTreeMap<u64, Generation> = BTreeMap::new();
    let mut left: BTreeMap<u64, u64> = BTreeMap::new();
    let mut own = HashSet::new();
    for (volume, since) in query.volumes {
        for id in roots(store, volume)? {
            let Some(generation) = generation_of(mount, id)? else { return Ok(None) };
            witnesses.insert(id, generation);
            own.insert(id);
            extents(mount, id, *since, |disk, len| {
                left.insert(disk, len);
            })?;
            if left.len() > MOST_EXTENTS || (query.stop)() {
                return Ok(None);
            }
        }
    }
    for (volume, since) in query.likely {
        if left.is_empty() || (query.stop)() {
            break;
        }
        for id in roots(store, volume)? {
            // Read before the search: what changes meanwhile shows as another generation.
            let Some(generation) = generation_of(mount, id)?.filter(|_| !own.contains(&id)) else { continue };
            let before = left.len();
            extents(mount, id, *since, |disk, _| {
                left.remove(&disk);
            })?;
            if left.len() < before {
                witnesses.insert(id, generation);
            }
        }
    }
    let mut known: HashMap<u64, Option<Generation>> = witnesses.iter().map(|(id, g)| (*id, Some(*g))).collect();
    let mut bytes = Bytes(0);
    for (disk, len) in left {
        if (query.stop)() {
            return Ok(None);
        }
        match holder(mount, disk, &own, &mut known)? {
            Holder::Own => bytes = bytes + Bytes(len),
            Holder::Other(root) => {
                if let Some(Some(generation)) = known.get(&root) {
                    witnesses.insert(root, *generation);
                }
            }
            Holder::Unknown => return Ok(None),
        }
    }
    let witnesses = witnesses.into_iter().map(|(id, generation)| Witness { volume: VolumeId(id), generation }).collect();
    Ok(Some(Exclusive { bytes, witnesses }))
}
