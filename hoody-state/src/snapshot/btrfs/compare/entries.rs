//! The entries of a directory that differ between two trees.
//!
//! Of a large directory only those near the blocks that changed are read. A name that was added is in such a block. A name that was removed need not leave one
//! behind: a block that becomes empty is freed. But the size of a directory is twice the sum of the lengths of its names, so if the names that were found to be added and
//! removed account for how the size changed, no other one was removed. Else all entries of both trees are read.

use super::history::Since;
use super::items::{ENTRIES_READ, Tree};
use crate::diff::object::{DirEntry, Object};
use crate::error::Result;
use std::cmp::Ordering;

/// Removed names are looked for among so many numbers on both sides of what a changed block still has.
const AROUND: u64 = if cfg!(test) { 2 } else { 512 };

/// The entries of a directory in the order of their numbers, read in pieces.
pub(super) struct Entries<'a> {
    tree: Tree<'a>,
    dir: u64,
    next: Option<(u64, u64)>,
    read: std::vec::IntoIter<DirEntry>,
}

impl<'a> Entries<'a> {
    /// All of them.
    pub(super) fn of(tree: Tree<'a>, dir: &Object) -> Self {
        if dir.more_entries {
            return Self::range(tree, dir.ino, (0, u64::MAX));
        }
        Entries { tree, dir: dir.ino, next: None, read: dir.entries.clone().into_iter() }
    }

    fn range(tree: Tree<'a>, dir: u64, range: (u64, u64)) -> Self {
        Entries { tree, dir, next: Some(range), read: Vec::new().into_iter() }
    }

    pub(super) fn next(&mut self) -> Result<Option<DirEntry>> {
        loop {
            if let Some(entry) = self.read.next() {
                return Ok(Some(entry));
            }
            let Some((from, to)) = self.next else { return Ok(None) };
            let read = self.tree.entries(self.dir, (from, to), 0)?;
            let last = read.last().filter(|_| read.len() >= ENTRIES_READ);
            self.next = last.and_then(|e| e.index.checked_add(1)).filter(|next| *next <= to).map(|next| (next, to));
            self.read = read.into_iter();
        }
    }
}

/// Takes what the old and the new tree have of one number, where that differs.
type Found<'f> = &'f mut dyn FnMut(Option<DirEntry>, Option<DirEntry>);

/// Calls `found` with the entries of a directory that differ, some perhaps twice. If `since` is known, the old tree has not changed since then.
pub(super) fn compare(since: Since, (a, old): (Tree<'_>, &Object), (b, new): (Tree<'_>, &Object), found: Found<'_>) -> Result<()> {
    if let (Since::Parted(since), true) = (since, old.more_entries || new.more_entries)
        && near_changes(since, (a, old), (b, new), found)?
    {
        return Ok(());
    }
    both(Entries::of(a, old), Entries::of(b, new), found)
}

/// Compares the entries near the blocks that changed. Whether that was all.
fn near_changes(since: u64, (a, old): (Tree<'_>, &Object), (b, new): (Tree<'_>, &Object), found: Found<'_>) -> Result<bool> {
    let changed = b.entries(new.ino, (0, u64::MAX), since)?;
    if changed.len() >= ENTRIES_READ {
        return Ok(false);
    }
    let mut grown = 0i64;
    let mut note = |x: Option<DirEntry>, y: Option<DirEntry>| {
        let len = |e: Option<DirEntry>| e.map_or(0, |e| i64::try_from(e.len).unwrap_or(0));
        grown += len(y) - len(x);
        found(x, y);
    };
    for range in ranges(&changed) {
        both(Entries::range(a, old.ino, range), Entries::range(b, new.ino, range), &mut note)?;
    }
    Ok(2 * grown == new.size.wrapping_sub(old.size).cast_signed())
}

/// The numbers near entries, in ranges that do not meet.
fn ranges(entries: &[DirEntry]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for e in entries {
        let (from, to) = (e.index.saturating_sub(AROUND), e.index.saturating_add(AROUND));
        match ranges.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = to,
            _ => ranges.push((from, to)),
        }
    }
    ranges
}

fn both(mut a: Entries<'_>, mut b: Entries<'_>, found: Found<'_>) -> Result<()> {
    let (mut x, mut y) = (a.next()?, b.next()?);
    loop {
        let order = match (&x, &y) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(p), Some(q)) => p.index.cmp(&q.index),
        };
        let (p, q) = (x.filter(|_| order.is_le()), y.filter(|_| order.is_ge()));
        if p != q {
            found(p, q);
        }
        if p.is_some() {
            x = a.next()?;
        }
        if q.is_some() {
            y = b.next()?;
        }
    }
}
