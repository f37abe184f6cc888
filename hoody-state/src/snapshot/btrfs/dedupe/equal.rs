//! Which parts of files have equal content: all files are listed, those that may have an equal are read once, in blocks, and the hashes of the blocks are sorted.

use super::Run;
use super::extents::Held;
use super::files::{self, Found, Name};
use super::sorter::{Sorted, Sorter};
use crate::error::Result;
use crate::units::Bytes;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;

/// Content is compared in blocks of this size at multiples of it; the last block of a file may be shorter.
pub(super) const BLOCK: u64 = 128 << 10;
/// The most parts of one file; what lies behind them is left as it is. They take 48 MiB.
const MOST_PARTS: usize = 1 << 20;
/// Members of a group of equal blocks that are dealt with at a time.
const GROUP: usize = 1024;

/// A block: hash, length, whether it is of a live volume, subvolume, inode, offset, and where it begins on the disk.
const LEN: usize = 1;
const FILE: usize = 3;
const OFFSET: usize = 5;
const DISK: usize = 6;
pub(super) type Block = [u64; 7];

/// A block to merge: subvolume, inode, offset and length, and the subvolume, inode and offset of the one that it is to lie at.
pub(super) type Match = [u64; 7];

/// The files that may have an equal: one of those whose data lie at the same places, and of small files only those whose size another has.
pub(super) fn candidates(run: &Run<'_, '_>) -> Result<Sorted<4>> {
    let state = RandomState::new();
    let mut by_place: Sorter<5> = Sorter::new();
    for (root, live) in &run.roots {
        files::list(run.mount, *root, &state, |Found { name, size, places }| {
            if size >= run.request.min_size.0 {
                by_place.push([places, size, u64::from(*live), name.root, name.ino])?;
            }
            Ok(!run.stopped())
        })?;
    }
    let mut by_size: Sorter<4> = Sorter::new();
    let mut sorted = by_place.sorted()?;
    let mut last = None;
    while let Some([places, size, live, root, ino]) = sorted.next()? {
        if last.replace((places, size)) != Some((places, size)) {
            by_size.push([size, live, root, ino])?;
        }
    }
    only_possible(by_size.sorted()?, run)
}

fn only_possible(mut by_size: Sorted<4>, run: &Run<'_, '_>) -> Result<Sorted<4>> {
    // Read in the order in which the files were made: their data lie near each other.
    let mut possible: Sorter<4> = Sorter::new();
    let mut before: Option<([u64; 4], bool)> = None;
    let mut total = 0_u64;
    let mut keep = |[size, live, root, ino]: [u64; 4]| {
        total = total.saturating_add(size);
        possible.push([live, root, ino, size])
    };
    while let Some(file) = by_size.next()? {
        let same = before.is_some_and(|(b, _)| b[0] == file[0]);
        if let Some((b, taken)) = before.take()
            && (taken || same || b[0] >= BLOCK)
        {
            keep(b)?;
        }
        before = Some((file, same));
    }
    if let Some((b, taken)) = before
        && (taken || b[0] >= BLOCK)
    {
        keep(b)?;
    }
    run.expect(total);
    possible.sorted()
}

/// Reads the candidates; their blocks, equal ones beside each other.
pub(super) fn blocks(run: &Run<'_, '_>, mut candidates: Sorted<4>) -> Result<Sorted<7>> {
    let state = RandomState::new();
    let mut blocks: Sorter<7> = Sorter::new();
    while let Some([live, root, ino, size]) = candidates.next()? {
        if run.stopped() {
            break;
        }
        let name = Name { root, ino };
        let done = run.done();
        if let Some(file) = files::open(run.mount, name)? {
            read(run, (&file, name, size, live), &state, &mut blocks)?;
        }
        // Whatever was read of it: it is dealt with.
        run.reached(done.saturating_add(size));
    }
    blocks.sorted()
}

/// Reads one file. What cannot be read, or is not as long as it was any more, has no blocks from there on.
fn read(run: &Run<'_, '_>, (file, name, size, live): (&File, Name, u64, u64), state: &RandomState, blocks: &mut Sorter<7>) -> Result<()> {
    let Some(pieces) = files::pieces(run.mount, name)? else { return Ok(()) };
    // What is read once must not drive out of memory what containers use.
    let _ = fadvise(file, 0, None, Advice::NoReuse);
    let mut buffer = vec![0; BLOCK as usize];
    let (mut offset, mut at) = (0, 0);
    while offset < size && !run.stopped() {
        let len = (size - offset).min(BLOCK);
        while pieces.get(at).is_some_and(|p| p.end() <= offset) {
            at += 1;
        }
        let piece = pieces.get(at).filter(|p| p.offset < offset + len);
        let Some(part) = buffer.get_mut(..usize::try_from(len).unwrap_or(0)) else { break };
        // Holes are not read. Blocks of zeros alone are left out: one extent that all of them refer to would slow the file system down.
        if let Some(piece) = piece {
            if file.read_exact_at(part, offset).is_err() {
                break;
            }
            run.read(len);
            if part.iter().any(|b| *b != 0) {
                let mut hasher = state.build_hasher();
                hasher.write(part);
                let disk = if piece.offset <= offset { piece.disk } else { 0 };
                blocks.push([hasher.finish(), len, live, name.root, name.ino, offset, disk])?;
            }
        }
        offset += len;
        run.advance(len);
    }
    Ok(())
}

/// What to merge with what, in the order of the files that change. Of equal blocks one stays: one that is held by something that may not be changed, else the first.
pub(super) fn matches(run: &Run<'_, '_>, mut blocks: Sorted<7>, held: &mut Held<'_>) -> Result<Sorted<7>> {
    let mut found: Sorter<7> = Sorter::new();
    let mut group: Vec<Block> = Vec::new();
    let mut stays: Option<Block> = None;
    while let Some(block) = blocks.next()? {
        if run.stopped() {
            break;
        }
        let same = group.last().is_none_or(|b| b[..=LEN] == block[..=LEN]);
        if !same || group.len() >= GROUP {
            stays = settle(run, &mut group, stays, held, &mut found)?.filter(|_| same);
        }
        group.push(block);
    }
    settle(run, &mut group, stays, held, &mut found)?;
    found.sorted()
}

/// Deals with a group, or a part of it if it is large; which block stays.
fn settle(run: &Run<'_, '_>, group: &mut Vec<Block>, stays: Option<Block>, held: &mut Held<'_>, found: &mut Sorter<7>) -> Result<Option<Block>> {
    if group.len() < 2 && stays.is_none() {
        let only = group.pop();
        return Ok(only);
    }
    let mut free = Vec::new();
    let mut first_held = None;
    for block in group.drain(..) {
        if block[DISK] != 0 && held.is_held(block[DISK])? {
            if stays.or(first_held).is_some_and(|s: Block| s[DISK] != block[DISK]) {
                run.left_held(block[LEN]);
            }
            first_held = first_held.or(Some(block));
        } else {
            free.push(block);
        }
    }
    let Some(stays) = stays.or(first_held).or_else(|| free.first().copied()) else { return Ok(None) };
    for block in free {
        let itself = block[FILE..=OFFSET] == stays[FILE..=OFFSET];
        if !itself && (block[DISK] == 0 || block[DISK] != stays[DISK]) {
            found.push([block[3], block[4], block[5], block[LEN], stays[3], stays[4], stays[5]])?;
        }
    }
    Ok(Some(stays))
}

/// A part of a file, and the part of another that it is equal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub offset: u64,
    pub len: u64,
    pub from: Name,
    pub from_offset: u64,
}

/// Takes the matches of the next file. What follows each other in both files is one part.
pub(super) fn next_file(matches: &mut Sorted<7>, first: &mut Option<Match>) -> Result<Option<(Name, Vec<Part>)>> {
    let Some(head) = first.take().map_or_else(|| matches.next(), |m| Ok(Some(m)))? else { return Ok(None) };
    let name = Name { root: head[0], ino: head[1] };
    let mut parts: Vec<Part> = Vec::new();
    let mut next = Some(head);
    while let Some(m) = next.take() {
        if (m[0], m[1]) != (name.root, name.ino) {
            *first = Some(m);
            break;
        }
        let part = Part { offset: m[2], len: m[3], from: Name { root: m[4], ino: m[5] }, from_offset: m[6] };
        let room = parts.len() < MOST_PARTS;
        match parts.last_mut() {
            Some(p) if p.from == part.from && p.offset + p.len == part.offset && p.from_offset + p.len == part.from_offset => p.len += part.len,
            _ if room => parts.push(part),
            _ => {}
        }
        next = matches.next()?;
    }
    Ok(Some((name, parts)))
}

/// The sum of the lengths.
pub(super) fn length(parts: &[Part]) -> Bytes {
    Bytes(parts.iter().map(|p| p.len).sum())
}
