//! The inodes of a tree that changed, read with as little of the tree as is possible.
//!
//! The kernel finds the blocks that changed by itself, but of an inode it then gives only those items that are in such blocks. So where few blocks changed, the
//! numbers of the inodes are found first, and the inodes looked up. Where most changed, that would read everything twice: there all blocks are read once.

use super::items::{Gathered, INODE_ITEM, LAST_INO, Tree, key, word};
use crate::diff::object::Object;
use crate::error::Result;
use btrfs_uapi::raw::BTRFS_FIRST_FREE_OBJECTID;
use std::ops::ControlFlow;

/// So many inodes come at a time at most.
const BATCH: usize = if cfg!(test) { 32 } else { 2048 };
/// So many inodes in changed blocks are looked at to tell how many blocks changed.
const LOOKED_AT: u64 = if cfg!(test) { 8 } else { 128 };
/// Where of the numbers from the first to the last one of so many belong to inodes in changed blocks, all blocks are read.
const DENSE: u64 = 3;

/// A search under way.
pub(super) struct Scan<'a> {
    tree: Tree<'a>,
    since: u64,
    /// The number to go on from; `None` at the end.
    next: Option<u64>,
    /// Inodes that changed and have not been read yet.
    numbers: Vec<u64>,
    dense: bool,
}

/// How many items in blocks that changed, and in others, were read.
#[derive(Default)]
struct Share {
    changed: u32,
    others: u32,
}

impl<'a> Scan<'a> {
    /// Finds inodes that changed after the transaction `since`.
    pub(super) fn new(tree: Tree<'a>, since: u64) -> Self {
        Scan { tree, since, next: Some(u64::from(BTRFS_FIRST_FREE_OBJECTID)), numbers: Vec::new(), dense: false }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.next.is_none() && self.numbers.is_empty()
    }

    /// The next inodes, in ascending order; none at the end.
    pub(super) fn next(&mut self) -> Result<Vec<Object>> {
        loop {
            if !self.numbers.is_empty() {
                let (found, read) = self.tree.objects(&self.numbers)?;
                self.numbers.drain(..read);
                return Ok(found);
            }
            let Some(from) = self.next else { return Ok(Vec::new()) };
            if self.dense {
                let found = self.read_all(from)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            } else {
                self.find(from)?;
            }
        }
    }

    /// Finds the numbers of inodes that changed.
    fn find(&mut self, from: u64) -> Result<()> {
        let (since, numbers) = (self.since, &mut self.numbers);
        let (mut looked_at, mut first, mut next, mut dense) = (0, from, None, false);
        let range = (key(from, 0, 0), key(LAST_INO, u32::MAX, u64::MAX));
        self.tree.search(range, since.saturating_add(1), None, |item, data| {
            if item.item_type != INODE_ITEM {
                return Ok(ControlFlow::Continue(()));
            }
            if looked_at == LOOKED_AT {
                dense = item.objectid - first < DENSE * LOOKED_AT;
                (looked_at, first) = (0, item.objectid);
            }
            if dense || numbers.len() >= BATCH {
                next = Some(item.objectid);
                return Ok(ControlFlow::Break(()));
            }
            looked_at += 1;
            if word(data, 8).is_some_and(|transid| transid > since) {
                numbers.push(item.objectid);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        (self.next, self.dense) = (next, dense);
        Ok(())
    }

    /// Reads everything from an inode on, as long as most blocks changed.
    fn read_all(&mut self, from: u64) -> Result<Vec<Object>> {
        let since = self.since;
        let mut gathered = Gathered::with_entries();
        let (mut share, mut at, mut next, mut dense) = (Share::default(), None, None, true);
        let range = (key(from, 0, 0), key(LAST_INO, u32::MAX, u64::MAX));
        self.tree.search(range, 0, None, |item, data| {
            if item.item_type == INODE_ITEM {
                if share.changed + share.others >= 4096 {
                    dense = share.changed > share.others;
                    share = Share::default();
                }
                if !dense || gathered.len() >= BATCH || gathered.is_full() {
                    next = Some(item.objectid);
                    return Ok(ControlFlow::Break(()));
                }
                at = word(data, 8).is_some_and(|transid| transid > since).then_some(item.objectid);
            }
            *(if item.transid > since { &mut share.changed } else { &mut share.others }) += 1;
            if at != Some(item.objectid) {
                return Ok(ControlFlow::Continue(()));
            }
            gathered.take(item, data)?;
            if gathered.has_enough_of(item.objectid) {
                next = item.objectid.checked_add(1).filter(|next| *next <= LAST_INO);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        (self.next, self.dense) = (next, dense);
        Ok(gathered.objects())
    }
}
