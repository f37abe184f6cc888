//! Merges the files in which equal parts were found, one extent at a time.
//!
//! An extent is on the disk as long as anything refers to a part of it. So all of its references are replaced, or none, as far as that is in our hands: first it is known that
//! every one can be, then those of live volumes are replaced, and those of images last. Until then an image holds what containers that are made from it meanwhile get.

use super::Run;
use super::equal::{self, Match, Part};
use super::extents::{Held, exists};
use super::files::{self, Name, Piece};
use super::sorter::Sorted;
use crate::error::Result;
use crate::snapshot::btrfs::nested;
use crate::sys::dedupe::{Merged, merge_range};
use crate::units::Bytes;
use nix::errno::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::AsFd;

/// What the kernel compares and merges in one call, under the locks of both files.
const AT_ONCE: u64 = 16 << 20;
/// Files that are kept open, and their pieces that are remembered: 44 MiB. Two files are always fewer.
const OPEN: usize = 64;
const OPEN_PIECES: usize = 1 << 20;
/// Extents that have gone, after which a commit counts the space. A commit makes everybody who writes wait for a moment.
const BETWEEN_COMMITS: usize = 16_384;
/// The flag `IMMUTABLE` and the like make a call fail. After so many failures in a row a file is left.
const MOST_FAILURES: u32 = 16;

/// A range of a file that is to lie where another lies.
#[derive(Debug, Clone, Copy)]
struct Step {
    file: Name,
    part: Part,
}

/// Parts of one extent, from the byte `start` of it to `end`, and what they are equal to.
#[derive(Debug, Clone, Copy)]
struct Source {
    start: u64,
    end: u64,
    from: Name,
    from_offset: u64,
}

/// A file that is worked on.
struct Open {
    file: File,
    /// In the order of the file.
    pieces: Vec<Piece>,
    /// Their indices in the order of the extents.
    by_disk: Vec<u32>,
}

impl Open {
    fn of(file: File, pieces: Vec<Piece>) -> Self {
        let mut by_disk: Vec<u32> = (0..u32::try_from(pieces.len()).unwrap_or(u32::MAX)).collect();
        by_disk.sort_by_key(|i| pieces.get(*i as usize).map(|p| p.disk));
        Open { file, pieces, by_disk }
    }

    /// The pieces that refer to an extent.
    fn in_extent(&self, disk: u64) -> impl Iterator<Item = &Piece> {
        let of = |i: &u32| self.pieces.get(*i as usize);
        let first = self.by_disk.partition_point(|i| of(i).is_some_and(|p| p.disk < disk));
        self.by_disk.iter().skip(first).map_while(of).take_while(move |p| p.disk == disk)
    }

    /// Whether a range of the file has something in an extent.
    fn range_is_in(&self, from: u64, to: u64, disk: u64) -> bool {
        let first = self.pieces.partition_point(|p| p.end() <= from);
        self.pieces.iter().skip(first).take_while(|p| p.offset < to).any(|p| p.disk == disk)
    }
}

/// Merges all that was found.
pub(super) struct Merger<'r, 'a, 'q> {
    run: &'r Run<'a, 'q>,
    held: Held<'a>,
    /// The images among the subvolumes that may be changed.
    images: std::collections::HashSet<u64>,
    open: HashMap<Name, Option<Open>>,
    /// Extents that nothing refers to any more, with their stored lengths.
    gone: Vec<(u64, u64)>,
}

impl<'r, 'a, 'q> Merger<'r, 'a, 'q> {
    pub(super) fn new(run: &'r Run<'a, 'q>, held: Held<'a>) -> Self {
        let images = run.roots.iter().filter(|(_, live)| !live).map(|(root, _)| *root).collect();
        Merger { run, held, images, open: HashMap::new(), gone: Vec::new() }
    }

    pub(super) fn merge(mut self, mut matches: Sorted<7>) -> Result<()> {
        let mut first: Option<Match> = None;
        while !self.run.stopped() {
            let Some((name, parts)) = equal::next_file(&mut matches, &mut first)? else { break };
            let (done, length) = (self.run.done(), equal::length(&parts).0);
            self.run.expect(length);
            self.file(name, &parts)?;
            self.run.reached(done.saturating_add(length));
            if self.gone.len() >= BETWEEN_COMMITS {
                self.count()?;
            }
        }
        self.count()
    }

    /// Counts what has come back.
    fn count(&mut self) -> Result<()> {
        if self.gone.is_empty() {
            return Ok(());
        }
        self.run.store.commit()?;
        for (disk, stored) in std::mem::take(&mut self.gone) {
            if !exists(self.run.mount, disk, stored)? {
                self.run.gained(stored);
            }
        }
        Ok(())
    }

    /// What is known of a file; nothing if it is gone.
    fn opened(&mut self, name: Name) -> Result<Option<&Open>> {
        if !self.open.contains_key(&name) {
            let opened = match (files::open(self.run.mount, name)?, files::pieces(self.run.mount, name)?) {
                (Some(file), Some(pieces)) => Some(Open::of(file, pieces)),
                _ => None,
            };
            let more = opened.as_ref().map_or(0, |o| o.pieces.len());
            let all = self.open.values().flatten().map(|o| o.pieces.len()).sum::<usize>();
            if self.open.len() >= OPEN || all + more > OPEN_PIECES {
                self.open.clear();
            }
            self.open.insert(name, opened);
        }
        Ok(self.open.get(&name).and_then(Option::as_ref))
    }

    /// Merges the extents of one file.
    fn file(&mut self, name: Name, parts: &[Part]) -> Result<()> {
        // Its pieces are looked at anew: an earlier file may have shared them.
        self.open.clear();
        if !self.still_ours(name.root)? {
            return Ok(());
        }
        let Some(open) = self.opened(name)? else { return Ok(()) };
        let Ok(size) = open.file.metadata().map(|m| m.len()) else { return Ok(()) };
        let mut extents: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
        open.pieces.iter().for_each(|p| extents.entry(p.disk).or_default().push(*p));
        let mut in_order: Vec<(u64, Vec<Piece>)> = extents.into_iter().collect();
        in_order.sort_unstable_by_key(|(_, pieces)| pieces.first().map(|p| p.offset));
        let mut failures = 0;
        for (disk, pieces) in in_order {
            if self.run.stopped() || failures >= MOST_FAILURES {
                break;
            }
            let Some(sources) = sources(&pieces, parts, size) else { continue };
            let Some(steps) = self.plan(disk, &sources)? else { continue };
            let stored = pieces.first().map_or(0, |p| p.stored);
            if self.run_steps(disk, &steps)? {
                self.gone.push((disk, stored));
                failures = 0;
            } else {
                failures += 1;
            }
        }
        Ok(())
    }

    /// Whether a subvolume may still be changed: a live volume may have become a snapshot.
    fn still_ours(&mut self, root: u64) -> Result<bool> {
        if !self.held.may_change(root) {
            return Ok(false);
        }
        if self.images.contains(&root) {
            return Ok(true);
        }
        let writable = match nested::open_root(self.run.mount, root)? {
            Some(fd) => !nested::is_read_only(fd.as_fd())?,
            None => false,
        };
        if !writable {
            self.held.leave(root);
        }
        Ok(writable)
    }

    /// What must be done so that nothing refers to an extent any more, live volumes first; `None` if that cannot be, or if it would gain nothing.
    fn plan(&mut self, disk: u64, sources: &[Source]) -> Result<Option<Vec<Step>>> {
        for s in sources {
            // What lies there already, in part or as a whole, keeps the extent.
            let Some(open) = self.opened(s.from)? else { return Ok(None) };
            if open.range_is_in(s.from_offset, s.from_offset.saturating_add(s.end - s.start), disk) {
                return Ok(None);
            }
        }
        let Some(files) = self.held.files(disk)? else {
            self.run.left_held(sources.iter().map(|s| s.end - s.start).sum());
            return Ok(None);
        };
        let mut files: Vec<Name> = files.into_iter().collect();
        let images = &self.images;
        files.sort_by_key(|f| images.contains(&f.root));
        let mut steps = Vec::new();
        for file in files {
            let Some(open) = self.opened(file)? else { return Ok(None) };
            let Ok(size) = open.file.metadata().map(|m| m.len()) else { return Ok(None) };
            for piece in open.in_extent(disk) {
                let Some(parts) = replace(piece, sources, size) else { return Ok(None) };
                steps.extend(parts.into_iter().map(|part| Step { file, part }));
            }
        }
        Ok(Some(steps))
    }

    /// Whether all was merged.
    fn run_steps(&mut self, disk: u64, steps: &[Step]) -> Result<bool> {
        let mut image_checked = false;
        let mut checked: Option<u64> = None;
        for step in steps {
            if checked.replace(step.file.root) != Some(step.file.root) && !self.still_ours(step.file.root)? {
                return Ok(false);
            }
            if self.images.contains(&step.file.root) && !std::mem::replace(&mut image_checked, true) {
                // A snapshot that was taken meanwhile holds what it got.
                let images = &self.images;
                let only_images = self.held.files(disk)?.is_some_and(|files| files.iter().all(|f| images.contains(&f.root)));
                if !only_images {
                    return Ok(false);
                }
            }
            if !self.step(step)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn step(&mut self, step: &Step) -> Result<bool> {
        let Part { offset, len, from, from_offset } = step.part;
        // To open one may close the other; then the first is opened again, beside the second alone.
        for name in [step.file, from, step.file] {
            self.opened(name)?;
        }
        let (Some(Some(source)), Some(Some(to))) = (self.open.get(&from), self.open.get(&step.file)) else { return Ok(false) };
        let mut done = 0;
        while done < len {
            let part = (len - done).min(AT_ONCE);
            match merge_range(source.file.as_fd(), from_offset + done, part, to.file.as_fd(), offset + done) {
                Ok(Merged::Bytes(n)) if n > 0 => {
                    self.run.merged(Bytes(n));
                    done += n;
                }
                // Somebody has changed it since it was read.
                Ok(_) => return Ok(false),
                Err(e @ (Errno::ENOSPC | Errno::EROFS | Errno::EIO)) => return Err(crate::error::Error::io("merge equal data", e)),
                // It cannot be changed (immutable, a swap file, the container's limit), or its end is elsewhere now.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// What each byte of an extent that `pieces` of a file refer to is equal to; `None` if that is not known of all.
fn sources(pieces: &[Piece], parts: &[Part], size: u64) -> Option<Vec<Source>> {
    let mut found = Vec::new();
    for piece in pieces {
        // The last piece is rounded up to a block of the file system.
        let end = piece.end().min(size);
        let mut at = piece.offset;
        let mut next = parts.partition_point(|p| p.offset + p.len <= at);
        while at < end {
            let part = parts.get(next).filter(|p| p.offset <= at)?;
            let to = end.min(part.offset + part.len);
            let start = piece.start + (at - piece.offset);
            found.push(Source { start, end: start + (to - at), from: part.from, from_offset: part.from_offset + (at - part.offset) });
            at = to;
            next += 1;
        }
    }
    found.sort_unstable_by_key(|s| (s.start, std::cmp::Reverse(s.end)));
    (!found.is_empty()).then_some(found)
}

/// The parts by which a piece of a file is replaced; `None` if a part of it has no source.
fn replace(piece: &Piece, sources: &[Source], size: u64) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut offset = piece.offset;
    let end = piece.end().min(size);
    while offset < end {
        let at = piece.start + (offset - piece.offset);
        let near = sources.partition_point(|s| s.start <= at).checked_sub(1).and_then(|i| sources.get(i)).filter(|s| at < s.end);
        // A longer one that begins before it may reach further.
        let s = near.or_else(|| sources.iter().find(|s| s.start <= at && at < s.end))?;
        let len = (s.end - at).min(end - offset);
        parts.push(Part { offset, len, from: s.from, from_offset: s.from_offset + (at - s.start) });
        offset += len;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const F: Name = Name { root: 5, ino: 257 };
    const K: u64 = 4096;

    fn piece(offset: u64, len: u64, start: u64) -> Piece {
        Piece { offset, len, disk: 1 << 20, stored: 64 * K, start }
    }

    fn part(offset: u64, len: u64, from_offset: u64) -> Part {
        Part { offset, len, from: F, from_offset }
    }

    #[test]
    fn each_byte_of_an_extent_has_one_source_or_the_extent_stays() {
        // Two parts of a file that lie in one extent, beside each other.
        let parts = [part(0, 32 * K, 128 * K), part(32 * K, 20 * K + 100, 0)];
        let size = 52 * K + 100;
        let found = sources(&[piece(0, 53 * K, 8 * K)], &parts, size).unwrap();
        assert_eq!(found.iter().map(|s| (s.start, s.end, s.from_offset)).collect::<Vec<_>>(), [(8 * K, 40 * K, 128 * K), (40 * K, 60 * K + 100, 0)]);
        assert!(sources(&[piece(0, 60 * K, 0)], &parts, 60 * K).is_none(), "the end of the extent has no equal");
        assert!(sources(&[piece(0, 53 * K, 8 * K)], &parts[1..], size).is_none());
        assert!(sources(&[], &parts, size).is_none());
        // Another file that refers to a part of the extent.
        let there = replace(&piece(0, 8 * K, 36 * K), &found, 8 * K).unwrap();
        assert_eq!(there, [part(0, 4 * K, 156 * K), part(4 * K, 4 * K, 0)]);
        assert!(replace(&piece(0, 8 * K, 4 * K), &found, 8 * K).is_none(), "its beginning is a part of the extent that the first file does not refer to");
        assert!(replace(&piece(0, 8 * K, 56 * K), &found, 8 * K).is_none());
        assert_eq!(replace(&piece(0, 8 * K, 56 * K), &found, 4 * K + 100).unwrap(), [part(0, 4 * K + 100, 16 * K)], "a file that ends in it");
    }
}
