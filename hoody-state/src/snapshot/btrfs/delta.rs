//! How much was written after a generation. It is read from the volume's own tree, whose unchanged branches the kernel skips.
//!
//! What counts: the file ranges whose extent item is younger than `since`, once each, nested volumes included. Two files that share a new extent
//! (reflink) count once; a file made by reflink from older data counts as written, because its extent item is new. Compressed data
//! counts by its length in the file, preallocated ranges count, holes do not. Small files kept inside the tree count by their length.

use crate::error::{IoContext, Result};
use crate::sys::tree_search::{Key, SearchFilter, tree_search};
use crate::units::{Bytes, Generation};
use btrfs_uapi::raw::{BTRFS_EXTENT_DATA_KEY, BTRFS_FIRST_FREE_OBJECTID};
use std::os::fd::BorrowedFd;

/// The needed part of a file extent item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Bytes stored in the item itself.
    Inline(u64),
    /// `start..start + len` of the data extent at disk address `disk`.
    Data { disk: u64, start: u64, len: u64 },
}

/// Reads a `struct btrfs_file_extent_item` (little-endian: generation 0, ram_bytes 8, compression 16, type 20, disk_bytenr 21, offset 37,
/// num_bytes 45) with the generation in which it was written; `None` for holes and for malformed items.
fn parse(item: &[u8]) -> Option<(Generation, Extent)> {
    let word = |at: usize| Some(u64::from_le_bytes(item.get(at..at + 8)?.try_into().ok()?));
    let generation = Generation(word(0)?);
    let extent = match item.get(20)? {
        0 => Extent::Inline(word(8)?),
        1 | 2 => match word(21)? {
            0 => return None,
            disk => Extent::Data { disk, start: word(37)?, len: word(45)? },
        },
        _ => return None,
    };
    Some((generation, extent))
}

/// Bytes covered by ranges of data extents, each byte once.
fn union(mut ranges: Vec<(u64, u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let mut total = 0;
    let (mut disk, mut end) = (0, 0);
    for (d, start, len) in ranges {
        if d != disk {
            (disk, end) = (d, 0);
        }
        let stop = start.saturating_add(len);
        total += stop.saturating_sub(start.max(end));
        end = end.max(stop);
    }
    total
}

/// Bytes of file data in `volume` and its nested ones that were written after `since`.
pub(super) fn written(mount: BorrowedFd<'_>, volume: BorrowedFd<'_>, since: Option<Generation>) -> Result<Bytes> {
    let since = since.unwrap_or(Generation(0));
    let info = btrfs_uapi::subvolume::subvolume_info(volume).io(|| "ask for the volume's information")?;
    let mut ids = vec![info.id];
    if super::has_nested(volume)? {
        ids.extend(super::nested::tree(mount, info.id)?.into_iter().map(|n| n.id));
    }
    if !super::nested::is_read_only(volume)? {
        // Data that was written but has no extent yet is in no tree.
        btrfs_uapi::filesystem::sync(mount).io(|| "write out the volume's data")?;
    }
    let mut ranges = Vec::new();
    let mut inline = 0;
    for id in ids {
        let filter = SearchFilter {
            tree_id: id,
            start: Key { objectid: u64::from(BTRFS_FIRST_FREE_OBJECTID), item_type: 0, offset: 0 },
            end: Key::MAX,
            min_transid: since.0.saturating_add(1),
            max_transid: u64::MAX,
        };
        let search = tree_search(mount, &filter, None, |item, data| {
            match (item.item_type == BTRFS_EXTENT_DATA_KEY).then(|| parse(data)).flatten() {
                Some((generation, _)) if generation <= since => {}
                Some((_, Extent::Inline(n))) => inline += n,
                Some((_, Extent::Data { disk, start, len })) => ranges.push((disk, start, len)),
                None => {}
            }
            Ok(())
        });
        match search {
            // A nested volume that was deleted meanwhile counts as empty.
            Err(nix::errno::Errno::ENOENT) if id != info.id => {}
            other => other.io(|| format!("search the tree of subvolume {id}"))?,
        }
    }
    Ok(Bytes(inline + union(ranges)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn item(kind: u8, disk: u64, offset: u64, num: u64) -> Vec<u8> {
        let mut b = vec![0; 53];
        b[..8].copy_from_slice(&7u64.to_le_bytes());
        b[8..16].copy_from_slice(&100u64.to_le_bytes());
        b[20] = kind;
        b[21..29].copy_from_slice(&disk.to_le_bytes());
        b[37..45].copy_from_slice(&offset.to_le_bytes());
        b[45..53].copy_from_slice(&num.to_le_bytes());
        b
    }

    #[test]
    fn extent_items_are_read_and_anything_else_is_nothing() {
        assert_eq!(parse(&item(0, 0, 0, 0)), Some((Generation(7), Extent::Inline(100))));
        assert_eq!(parse(&item(1, 4096, 8, 16)), Some((Generation(7), Extent::Data { disk: 4096, start: 8, len: 16 })));
        assert_eq!(parse(&item(2, 4096, 0, 16)), Some((Generation(7), Extent::Data { disk: 4096, start: 0, len: 16 })));
        assert_eq!(parse(&item(1, 0, 0, 16)), None, "a hole");
        assert_eq!(parse(&item(9, 1, 1, 1)), None);
        for cut in 0..53 {
            assert_eq!(parse(&item(1, 4096, 8, 16)[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_counts_once(ranges in proptest::collection::vec((1u64..4, 0u64..50, 0u64..20), 0..30)) {
            let bytes: std::collections::HashSet<(u64, u64)> = ranges.iter().flat_map(|&(d, s, l)| (s..s + l).map(move |b| (d, b))).collect();
            prop_assert_eq!(union(ranges), bytes.len() as u64);
        }
    }
}
