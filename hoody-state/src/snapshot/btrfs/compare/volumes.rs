//! The volumes nested in two volumes, and which of them belong together.

use super::history::Since;
use super::history::{self, since};
use super::items::Tree;
use super::pair::PairOf;
use super::paths::{Side, join};
use crate::diff::FileType;
use crate::diff::sorter::Dir;
use crate::error::Result;
use crate::snapshot::btrfs::nested;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

/// Nested volumes that have no partner of the same name are matched by their history, if there are no more pairs to try than this.
const MOST_TRIES: usize = 10_000;

/// A nested volume and where it is.
struct Placed {
    id: u64,
    parent: u64,
    dir: u64,
    name: Vec<u8>,
    path: Vec<u8>,
}

impl Placed {
    fn dir(&self) -> Dir {
        Dir { volume: self.parent, ino: self.dir }
    }
}

/// What is nested in `top`, whose root is at `prefix`; parents first.
fn placed(mount: BorrowedFd<'_>, top: u64, prefix: &[u8]) -> Result<Vec<Placed>> {
    let mut sides = HashMap::from([(top, Side::new(Tree { mount, id: top }, prefix.to_vec()))]);
    let mut found = Vec::new();
    for n in nested::tree(mount, top)? {
        let Some(parent) = sides.get_mut(&n.parent) else { continue };
        let name = n.name.to_bytes().to_vec();
        let path = join(&parent.dir(n.dir)?, &name);
        sides.insert(n.id, Side::new(Tree { mount, id: n.id }, path.clone()));
        found.push(Placed { id: n.id, parent: n.parent, dir: n.dir, name, path });
    }
    Ok(found)
}

/// The pairs of volumes nested in one or both of two volumes.
pub(super) fn pairs<'a>(mount: BorrowedFd<'a>, old: Option<u64>, new: Option<u64>, prefix: &[u8]) -> Result<Vec<PairOf<'a>>> {
    let of = |top: Option<u64>| top.map_or(Ok(Vec::new()), |top| placed(mount, top, prefix));
    let (mut before, mut after) = (of(old)?, of(new)?);
    let mut partner: HashMap<u64, u64> = old.zip(new).into_iter().collect();
    let mut found = Vec::new();
    // Whether they are one volume grown further. What has no history in common was deleted and created, and its names are shown so.
    let mut make = |a: &Placed, b: &Placed, partner: &mut HashMap<u64, u64>| -> Result<bool> {
        let (x, y) = (Tree { mount, id: a.id }, Tree { mount, id: b.id });
        let since = since(x, y, None)?;
        if since == Since::Unrelated {
            return Ok(false);
        }
        let same_place = partner.get(&a.parent) == Some(&b.parent) && (a.dir, &a.name) == (b.dir, &b.name);
        partner.insert(a.id, b.id);
        found.push(PairOf {
            since,
            old: Some(Side::new(x, a.path.clone())),
            new: Some(Side::new(y, b.path.clone())),
            root: Some(FileType::Subvolume),
            renamed: !same_place,
            root_parents: (b.dir(), a.dir()),
        });
        Ok(true)
    };
    // Parents come first, so the partner of a parent is known before its children are looked at.
    let mut rest = Vec::new();
    for b in after.drain(..) {
        let here = |a: &Placed| (partner.get(&a.parent) == Some(&b.parent) && (a.dir, &a.name) == (b.dir, &b.name)) || a.path == b.path;
        match before.iter().position(here) {
            Some(at) if make(&before[at], &b, &mut partner)? => drop(before.remove(at)),
            _ => rest.push(b),
        }
    }
    if before.len().saturating_mul(rest.len()) <= MOST_TRIES {
        for b in std::mem::take(&mut rest) {
            let mut at = None;
            for (i, a) in before.iter().enumerate() {
                if history::parted(Tree { mount, id: a.id }, Tree { mount, id: b.id })?.is_some() {
                    at = Some(i);
                    break;
                }
            }
            match at {
                Some(at) if make(&before[at], &b, &mut partner)? => drop(before.remove(at)),
                _ => rest.push(b),
            }
        }
    }
    let single = |p: &Placed| Side::new(Tree { mount, id: p.id }, p.path.clone());
    let root = Some(FileType::Subvolume);
    found.extend(before.iter().map(|a| PairOf {
        old: Some(single(a)),
        new: None,
        since: Since::Unrelated,
        root,
        renamed: false,
        root_parents: (a.dir(), Dir::default()),
    }));
    found.extend(rest.iter().map(|b| PairOf {
        old: None,
        new: Some(single(b)),
        since: Since::Unrelated,
        root,
        renamed: false,
        root_parents: (b.dir(), Dir::default()),
    }));
    Ok(found)
}
