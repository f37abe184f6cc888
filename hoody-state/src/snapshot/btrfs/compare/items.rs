//! Reads the items of a volume's tree: inodes with their names and attributes, entries of directories, extents.
//!
//! Everything is read by number from a read-only volume: no path is walked and no file is opened. The layouts are those of `btrfs_tree.h` of Linux
//! (little-endian).

use crate::diff::extents::{Extent, Place};
use crate::diff::object::{DirEntry, Name, Object, Time};
use crate::error::{Code, Error, Result};
use crate::sys::tree_search::{Key, SearchFilter, SearchHeader, tree_search};
use btrfs_uapi::raw::{BTRFS_EXTENT_DATA_KEY, BTRFS_FIRST_FREE_OBJECTID};
use nix::errno::Errno;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

pub(super) const INODE_ITEM: u32 = 1;
const INODE_REF: u32 = 12;
const INODE_EXTREF: u32 = 13;
const XATTR_ITEM: u32 = 24;
const DIR_ITEM: u32 = 84;
const DIR_INDEX: u32 = 96;
const EXTENT_DATA: u32 = BTRFS_EXTENT_DATA_KEY;
const ROOT_ITEM: u8 = 132;
/// The largest number of an inode.
pub(super) const LAST_INO: u64 = u64::MAX - 255;

/// So many items are read ahead where inodes are close together: of what comes after the last of them, nothing is of use.
const FEW: u32 = 512;
/// The same for one inode.
const ONE: u32 = 64;
/// Inodes whose numbers are on average so far apart at most are read in one search, with what is between them.
const CLOSE: u64 = 8;
/// So many inodes are looked at to tell whether they are close together.
const AHEAD: usize = 4;
/// So many items of no interest are read before a new search begins behind them.
const SKIPPED: u32 = 64;
/// So many extents of one file are kept in memory.
const EXTENTS: usize = 256;
/// So many entries of a directory are read with it. Tests have larger directories too.
const ENTRIES: u32 = if cfg!(test) { 4 } else { 256 };
/// So many entries are read at a time.
pub(super) const ENTRIES_READ: usize = 4096;
/// The most that names and attributes of inodes read at a time may take.
const BATCH_BYTES: usize = 4 << 20;
/// The same for one inode.
const OBJECT_BYTES: usize = 32 << 20;

/// A volume's tree on a mounted pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    pub(super) mount: BorrowedFd<'a>,
    pub(super) id: u64,
}

pub(super) fn word(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

fn half(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn short(data: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?)))
}

fn time(data: &[u8], at: usize) -> Option<Time> {
    Some((word(data, at)?.cast_signed(), half(data, at + 8)?))
}

impl Tree<'_> {
    /// Calls `f` with each item from `start` to `end` in blocks of transaction `since` or later, until it breaks. `at_most`: so many items are read ahead.
    pub(super) fn search(
        &self,
        (start, end): (Key, Key),
        since: u64,
        at_most: Option<u32>,
        mut f: impl FnMut(&SearchHeader, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let filter = SearchFilter { tree_id: self.id, start, end, min_transid: since, max_transid: u64::MAX };
        let mut failed = None;
        let searched = tree_search(self.mount, &filter, at_most, |item, data| match f(item, data) {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(())) => Err(Errno::ECANCELED),
            Err(e) => {
                failed = Some(e);
                Err(Errno::ECANCELED)
            }
        });
        match (searched, failed) {
            (_, Some(e)) => Err(e),
            (Ok(()) | Err(Errno::ECANCELED), None) => Ok(()),
            (Err(Errno::ENOENT), None) => Err(Error::new(Code::VolumeNotFound, "a volume was deleted while it was compared: try again")),
            (Err(e), None) => Err(Error::io(format!("search the tree of subvolume {}", self.id), e)),
        }
    }

    /// Calls `f` with the number of every inode that changed after the transaction `since`, in ascending order. Cost follows what changed.
    pub(super) fn changed_since(&self, since: u64, mut f: impl FnMut(u64) -> Result<ControlFlow<()>>) -> Result<()> {
        let range = (key(u64::from(BTRFS_FIRST_FREE_OBJECTID), 0, 0), key(LAST_INO, u32::MAX, u64::MAX));
        self.search(range, since.saturating_add(1), None, |item, data| {
            let changed = item.item_type == INODE_ITEM && word(data, 8).is_some_and(|transid| transid > since);
            if changed { f(item.objectid) } else { Ok(ControlFlow::Continue(())) }
        })
    }

    /// Whether an inode changed after the transaction `since`.
    pub(super) fn has_changed_since(&self, since: u64) -> Result<bool> {
        let mut found = false;
        self.changed_since(since, |_| {
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The transaction of the last change of anything in the tree.
    pub(super) fn last_change(&self, at_most: u64) -> Result<u64> {
        // Invariant: something changed after `low - 1`, nothing after `high`.
        let (mut low, mut high) = (0, at_most);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.has_changed_since(middle)? { low = middle + 1 } else { high = middle }
        }
        Ok(high)
    }

    /// The inodes with these numbers, which are ascending, as far as they exist. Reads as many as fit into memory and says how many numbers that were.
    pub(super) fn objects(&self, wanted: &[u64]) -> Result<(Vec<Object>, usize)> {
        let mut reading = Reading { wanted, next: 0, skipped: 0, gathered: Gathered::default() };
        while let Some(&from) = reading.wanted.get(reading.next) {
            if reading.gathered.is_full() {
                break;
            }
            reading.skipped = 0;
            let close = reading.are_close(from);
            reading.gathered.close = close;
            let (last, after, at_most) = match close {
                true => (wanted.last().copied().unwrap_or(from), wanted.len(), FEW),
                false => (from, reading.next + 1, ONE),
            };
            let mut ended = true;
            self.search((key(from, 0, 0), key(last, u32::MAX, u64::MAX)), 0, Some(at_most), |item, data| {
                let flow = reading.item(item, data)?;
                ended = flow.is_continue();
                Ok(flow)
            })?;
            if ended {
                reading.next = after;
            }
        }
        let read = reading.next;
        Ok((reading.gathered.objects(), read))
    }

    /// One inode.
    pub(super) fn object(&self, ino: u64) -> Result<Option<Object>> {
        Ok(self.objects(&[ino])?.0.pop())
    }

    /// The only name of a directory.
    pub(super) fn dir_name(&self, ino: u64) -> Result<Option<Name>> {
        let mut found = Vec::new();
        self.search((key(ino, INODE_REF, 0), key(ino, INODE_REF, u64::MAX)), 0, Some(1), |item, data| {
            parse_ref(item.offset, data, &mut found);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found.pop())
    }

    /// The entries of a directory with numbers from `from` to `to`, but only those in blocks that changed after the transaction `since`, if that is not 0;
    /// the first `ENTRIES_READ` of them.
    pub(super) fn entries(&self, dir: u64, (from, to): (u64, u64), since: u64) -> Result<Vec<DirEntry>> {
        let mut found = Vec::new();
        let since = if since == 0 { 0 } else { since.saturating_add(1) };
        self.search((key(dir, DIR_INDEX, from), key(dir, DIR_INDEX, to)), since, None, |item, data| {
            found.extend(parse_entry(item.offset, data));
            Ok(if found.len() < ENTRIES_READ { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// The extents of a file from `start` on, up to a few hundred.
    pub(super) fn extents(&self, ino: u64, start: u64) -> Result<Vec<Extent>> {
        let mut found = Vec::new();
        let mut last = start;
        self.search((key(ino, EXTENT_DATA, start), key(ino, EXTENT_DATA, u64::MAX)), 0, Some(FEW), |item, data| {
            last = item.offset;
            found.extend(parse_extent(item.offset, data));
            Ok(if found.len() < EXTENTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }
}

pub(super) fn key(objectid: u64, item_type: u32, offset: u64) -> Key {
    Key { objectid, item_type, offset }
}

/// The state of a search for inodes.
struct Reading<'a> {
    wanted: &'a [u64],
    /// The first of them that has not been read completely.
    next: usize,
    skipped: u32,
    gathered: Gathered,
}

impl Reading<'_> {
    /// Whether what is between the wanted inodes from here on is better read than searched past.
    fn are_close(&self, from: u64) -> bool {
        let ahead = self.next + AHEAD;
        self.wanted.get(ahead).is_some_and(|then| *then - from <= CLOSE * AHEAD as u64)
    }

    /// Takes one item. Breaks when the next wanted inode is better searched for anew.
    fn item(&mut self, item: &SearchHeader, data: &[u8]) -> Result<ControlFlow<()>> {
        while self.wanted.get(self.next).is_some_and(|w| *w < item.objectid) {
            self.next += 1;
            if self.gathered.is_full() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let Some(&wanted) = self.wanted.get(self.next) else { return Ok(ControlFlow::Break(())) };
        if wanted != item.objectid {
            self.skipped += 1;
            let go_on = self.gathered.close && self.skipped <= SKIPPED;
            return Ok(if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
        }
        self.skipped = 0;
        self.gathered.take(item, data)?;
        if self.gathered.has_enough_of(wanted) {
            self.next += 1;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Inodes that are put together from their items.
#[derive(Default)]
pub(super) struct Gathered {
    found: Vec<Object>,
    bytes: usize,
    /// Of names and attributes of the last inode found, values included.
    object_bytes: usize,
    /// Items that name entries of the directory that is being read.
    listed: u32,
    /// Whether the search goes through what is between the inodes: only then are entries of directories read with them.
    close: bool,
}

impl Gathered {
    /// Nothing yet, for a search that goes through all items.
    pub(super) fn with_entries() -> Self {
        Gathered { close: true, ..Gathered::default() }
    }

    /// Whether no more should be held in memory.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > BATCH_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether the rest of the inode's items is read when it is needed.
    pub(super) fn has_enough_of(&mut self, ino: u64) -> bool {
        self.current(ino).is_some_and(|o| o.more_extents || o.more_entries)
    }

    pub(super) fn objects(mut self) -> Vec<Object> {
        for o in &mut self.found {
            o.names.sort();
            o.xattrs.sort();
        }
        self.found
    }

    /// Takes an item that names entries of a directory. All names come twice: by their hashes first, then by their numbers.
    fn take_entry(&mut self, item: &SearchHeader, data: &[u8]) {
        self.listed += 1;
        let too_many = !self.close || self.listed > 2 * ENTRIES;
        let Some(object) = self.current(item.objectid) else { return };
        if too_many {
            object.more_entries = true;
            object.entries = Vec::new();
        } else if item.item_type == DIR_INDEX {
            object.entries.extend(parse_entry(item.offset, data));
        }
    }

    fn current(&mut self, ino: u64) -> Option<&mut Object> {
        self.found.last_mut().filter(|o| o.ino == ino)
    }

    /// Takes an item; the item of the inode itself comes first, what belongs to none that was taken is left out.
    pub(super) fn take(&mut self, item: &SearchHeader, data: &[u8]) -> Result<()> {
        if item.item_type == INODE_ITEM {
            self.found.extend(parse_inode(item.objectid, data));
            self.bytes += size_of::<Object>();
            self.object_bytes = 0;
            self.listed = 0;
            return Ok(());
        }
        if matches!(item.item_type, DIR_ITEM | DIR_INDEX) {
            self.take_entry(item, data);
            self.bytes += size_of::<DirEntry>();
            return Ok(());
        }
        let Some(object) = self.current(item.objectid) else { return Ok(()) };
        match item.item_type {
            INODE_REF => parse_ref(item.offset, data, &mut object.names),
            INODE_EXTREF => parse_extref(data, &mut object.names),
            XATTR_ITEM => parse_xattrs(data, &mut object.xattrs),
            EXTENT_DATA if object.extents.len() >= EXTENTS => object.more_extents = true,
            EXTENT_DATA => object.extents.extend(parse_extent(item.offset, data)),
            _ => {}
        }
        self.bytes += data.len() + 32;
        if matches!(item.item_type, INODE_REF | INODE_EXTREF | XATTR_ITEM) {
            self.object_bytes += data.len() + 64;
        }
        if self.object_bytes > OBJECT_BYTES {
            return Err(Error::new(Code::DiffTooLarge, format!("inode {} has too many names or attributes to be compared", item.objectid)));
        }
        Ok(())
    }
}

fn parse_inode(ino: u64, data: &[u8]) -> Option<Object> {
    Some(Object {
        ino,
        generation: word(data, 0)?,
        size: word(data, 16)?,
        links: half(data, 40)?,
        uid: half(data, 44)?,
        gid: half(data, 48)?,
        mode: half(data, 52)?,
        device: word(data, 56)?,
        flags: word(data, 64)?,
        atime: time(data, 112)?,
        mtime: time(data, 136)?,
        made: time(data, 148)?,
        ..Object::default()
    })
}

/// A `struct btrfs_dir_item`: key of the inode 0 (its type 8), length of the name 27, name from 30 on.
fn parse_entry(index: u64, data: &[u8]) -> Option<DirEntry> {
    let ino = (*data.get(8)? != ROOT_ITEM).then_some(word(data, 0)?);
    Some(DirEntry { index, ino, len: short(data, 27)? })
}

fn parse_ref(parent: u64, mut data: &[u8], names: &mut Vec<Name>) {
    while let Some(len) = short(data, 8) {
        let Some(name) = data.get(10..10 + len) else { return };
        names.push(Name { parent, name: name.to_vec() });
        data = &data[10 + len..];
    }
}

fn parse_extref(mut data: &[u8], names: &mut Vec<Name>) {
    while let (Some(parent), Some(len)) = (word(data, 0), short(data, 16)) {
        let Some(name) = data.get(18..18 + len) else { return };
        names.push(Name { parent, name: name.to_vec() });
        data = &data[18 + len..];
    }
}

fn parse_xattrs(mut data: &[u8], xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    while let (Some(value), Some(name)) = (short(data, 25), short(data, 27)) {
        let (Some(n), Some(v)) = (data.get(30..30 + name), data.get(30 + name..30 + name + value)) else { return };
        xattrs.push((n.to_vec(), v.to_vec()));
        data = &data[30 + name + value..];
    }
}

/// A `struct btrfs_file_extent_item`: generation 0, unpacked length 8, compression 16, type 20, disk address 21, offset 37, length 45; inline data from 21 on.
/// `None` for holes and for what is only reserved: both read as zeros.
fn parse_extent(start: u64, data: &[u8]) -> Option<Extent> {
    let packed = *data.get(16)?;
    match data.get(20)? {
        0 => Some(Extent { start, end: start.saturating_add(word(data, 8)?), place: Place::Inline([&[packed], data.get(21..)?].concat()) }),
        1 => match word(data, 21)? {
            0 => None,
            disk => Some(Extent {
                start,
                end: start.saturating_add(word(data, 45)?),
                place: Place::Data { disk, shift: word(data, 37)?.wrapping_sub(start), packed },
            }),
        },
        _ => None,
    }
}
