//! Files of volumes by their numbers: which there are, where their data lie, and their bytes.
//!
//! No path is walked: a volume's tree lists its inodes, and each is opened by its number. So nothing is opened but regular files, and no link is followed.

use crate::error::{Error, IoContext, Result};
use crate::sys::fs::open_file_by_id;
use btrfs_uapi::raw::{BTRFS_EXTENT_DATA_KEY, BTRFS_FIRST_FREE_OBJECTID, BTRFS_INODE_ITEM_KEY};
use btrfs_uapi::tree_search::{Key, SearchFilter, tree_search_v2};
use nix::errno::Errno;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::BorrowedFd;

/// The size of a search's buffer: for all of a volume, and for one file.
const BUFFER: usize = 256 * 1024;
const SMALL: usize = 16 * 1024;
/// Files in more pieces than this are left out. A list of them takes 10 MiB.
const MOST_PIECES: usize = 1 << 18;
/// The flags `NODATASUM` and `NODATACOW` of inodes: such files are changed in place, and their data are left where they are.
const IN_PLACE: u64 = 1 | 2;

/// A file: its subvolume and its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub root: u64,
    pub ino: u64,
}

/// A piece of a file, and where it lies: from `start` on in the data extent at the disk address `disk`, of which `stored` bytes are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: u64,
    pub len: u64,
    pub disk: u64,
    pub stored: u64,
    pub start: u64,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

fn word(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Reads a `struct btrfs_file_extent_item`: type 20, disk_bytenr 21, disk_num_bytes 29, offset 37, num_bytes 45. Nothing for holes, for what is stored in the item itself, and
/// for malformed items.
fn piece(offset: u64, item: &[u8]) -> Option<Piece> {
    let disk = word(item, 21)?;
    (matches!(item.get(20)?, 1 | 2) && disk != 0).then_some(())?;
    Some(Piece { offset, len: word(item, 45)?, disk, stored: word(item, 29)?, start: word(item, 37)? })
}

/// A regular file that can be dealt with.
pub(super) struct Found {
    pub name: Name,
    pub size: u64,
    /// The same for files whose data lie at the same places.
    pub places: u64,
}

/// An inode while its items are read.
struct Reading {
    ino: u64,
    size: u64,
    regular: bool,
    pieces: usize,
    hasher: std::hash::DefaultHasher,
    /// The last piece, as far as it reaches: what continues it on the disk is one with it.
    run: Option<Piece>,
}

impl Reading {
    fn of(ino: u64, inode: &[u8], state: &RandomState) -> Option<Self> {
        // `struct btrfs_inode_item`: size 16, mode 52, flags 64.
        let mode = u32::from_le_bytes(inode.get(52..56)?.try_into().ok()?);
        let regular = mode & 0o170_000 == 0o100_000 && word(inode, 64)? & IN_PLACE == 0;
        Some(Reading { ino, size: word(inode, 16)?, regular, pieces: 0, hasher: state.build_hasher(), run: None })
    }

    fn take(&mut self, next: Piece) {
        self.pieces += 1;
        match &mut self.run {
            Some(r) if r.disk == next.disk && r.end() == next.offset && r.start.saturating_add(r.len) == next.start => r.len = r.len.saturating_add(next.len),
            _ => {
                self.write_run();
                self.run = Some(next);
            }
        }
    }

    fn write_run(&mut self) {
        if let Some(r) = self.run.take() {
            [r.offset, r.len, r.disk, r.start].into_iter().for_each(|n| self.hasher.write_u64(n));
        }
    }

    fn found(mut self, root: u64) -> Option<Found> {
        self.write_run();
        self.hasher.write_u64(self.size);
        let usable = self.regular && self.pieces > 0 && self.pieces <= MOST_PIECES;
        usable.then(|| Found { name: Name { root, ino: self.ino }, size: self.size, places: self.hasher.finish() })
    }
}

/// Gives each regular file of a subvolume that has data of its own outside of its inode to `found`. A subvolume that is gone has none. `found` ends the search by `false`.
/// Cost: the volume's tree is read, and no file.
pub(super) fn list(mount: BorrowedFd<'_>, root: u64, state: &RandomState, mut found: impl FnMut(Found) -> Result<bool>) -> Result<()> {
    let filter = SearchFilter {
        tree_id: root,
        start: Key { objectid: u64::from(BTRFS_FIRST_FREE_OBJECTID), item_type: 0, offset: 0 },
        end: Key::MAX,
        min_transid: 0,
        max_transid: u64::MAX,
    };
    let mut reading: Option<Reading> = None;
    let mut failed = Ok(());
    let mut finish = |reading: Option<Reading>| match reading.and_then(|r| r.found(root)).map_or(Ok(true), &mut found) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Errno::ECANCELED),
        Err(e) => {
            failed = Err(e);
            Err(Errno::ECANCELED)
        }
    };
    let search = tree_search_v2(mount, filter, Some(BUFFER), |item, data| {
        match item.item_type {
            BTRFS_INODE_ITEM_KEY => {
                finish(reading.take())?;
                reading = Reading::of(item.objectid, data, state);
            }
            BTRFS_EXTENT_DATA_KEY => {
                if let (Some(r), Some(piece)) = (reading.as_mut().filter(|r| r.ino == item.objectid), piece(item.offset, data)) {
                    r.take(piece);
                }
            }
            _ => {}
        }
        Ok(())
    });
    let end = search.and_then(|()| finish(reading.take()));
    failed?;
    match end {
        Ok(()) | Err(Errno::ENOENT | Errno::ECANCELED) => Ok(()),
        Err(e) => Err(e).io(|| format!("search the tree of subvolume {root}")),
    }
}

/// The pieces of a file, in their order; `None` if there are too many. A file that is gone has none.
pub(super) fn pieces(mount: BorrowedFd<'_>, file: Name) -> Result<Option<Vec<Piece>>> {
    let key = |offset| Key { objectid: file.ino, item_type: BTRFS_EXTENT_DATA_KEY, offset };
    let filter = SearchFilter { tree_id: file.root, start: key(0), end: key(u64::MAX), min_transid: 0, max_transid: u64::MAX };
    let mut found = Vec::new();
    let search = tree_search_v2(mount, filter, Some(SMALL), |item, data| {
        if found.len() >= MOST_PIECES {
            return Err(Errno::E2BIG);
        }
        found.extend(piece(item.offset, data));
        Ok(())
    });
    match search {
        Ok(()) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(Some(Vec::new())),
        Err(Errno::E2BIG) => Ok(None),
        Err(e) => Err(e).io(|| format!("look for the extents of file {} of subvolume {}", file.ino, file.root)),
    }
}

/// Opens a file; `None` if it is gone, or cannot be opened now.
pub(super) fn open(mount: BorrowedFd<'_>, file: Name) -> Result<Option<File>> {
    match open_file_by_id(mount, file.root, file.ino) {
        Ok(f) => Ok(Some(f)),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOMEM | nix::libc::EIO)) => {
            Err(Error::io(format!("open file {} of subvolume {}", file.ino, file.root), e))
        }
        Err(_) => Ok(None),
    }
}
