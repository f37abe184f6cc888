//! Compares one volume with another by their inodes.
//!
//! Whatever differs has left a trace in an inode that changed after the volumes parted: a file or its attributes in its own, a name in those of the file and the
//! directory. So the inodes that changed are found first, by the transaction that each tree block carries. What was deleted has no inode any more in
//! the new tree: it is found as an entry of a directory that changed, by comparing the entries of both.

use super::content;
use super::entries::{self, Entries};
use super::history::Since;
use super::items::Tree;
use super::paths::Side;
use super::scan::Scan;
use super::stream;
use crate::diff::extents::Changed;
use crate::diff::names::{Pairs, Place, pair};
use crate::diff::object::{Name, Object, fields};
use crate::diff::options::Options;
use crate::diff::sorter::{Dir, Entry, Sorter};
use crate::diff::{Field, FileType, Kind, Record};
use crate::error::{Code, Error, Result};
use crate::sys::fs::SUBVOLUME_ROOT_INO;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Inodes that are looked up together.
const BATCH: usize = 512;
/// More inodes than this are not compared: their numbers alone take 8 bytes each.
const MOST: usize = 8_000_000;

/// Two volumes, or one that was created or deleted.
pub(super) struct PairOf<'a> {
    pub(super) old: Option<Side<'a>>,
    pub(super) new: Option<Side<'a>>,
    pub(super) since: Since,
    /// The type of its root in records; `None`: the root has no record.
    pub(super) root: Option<FileType>,
    /// Whether the root has another name in the new tree.
    pub(super) renamed: bool,
    /// The volume and the directory that the root is in, of the new one, else of the old one; and the directory that it was in.
    pub(super) root_parents: (Dir, Dir),
}

/// A comparison of one pair under way.
pub(super) struct Comparing<'a, 'o> {
    pair: PairOf<'a>,
    options: &'o Options<'o>,
    out: &'o mut Sorter,
    /// The inodes that changed, sorted.
    changed: Vec<u64>,
    /// Whether the old volume changed too after they parted.
    old_changed: bool,
    /// Whether what is looked at is in the old tree only.
    only_old: bool,
    /// Further inodes to look at, and those that were looked at besides `changed`.
    more: HashSet<u64>,
    seen: HashSet<u64>,
    inodes: u64,
}

/// Compares a pair; how many inodes that took.
pub(super) fn compare(pair: PairOf<'_>, options: &Options<'_>, out: &mut Sorter) -> Result<u64> {
    let mut comparing =
        Comparing { pair, options, out, changed: Vec::new(), old_changed: false, only_old: false, more: HashSet::new(), seen: HashSet::new(), inodes: 0 };
    if !comparing.stream()? {
        comparing.find_changed()?;
        let changed = std::mem::take(&mut comparing.changed);
        comparing.look_at(&changed)?;
        comparing.changed = changed;
    }
    while !comparing.more.is_empty() {
        let mut next: Vec<u64> = std::mem::take(&mut comparing.more).into_iter().collect();
        next.retain(|ino| comparing.changed.binary_search(ino).is_err() && comparing.seen.insert(*ino));
        next.sort_unstable();
        comparing.look_at(&next)?;
    }
    Ok(comparing.inodes)
}

impl Comparing<'_, '_> {
    /// If only the new tree changed since both parted: compares what changed in it while the rest is still being read. Whether that was so.
    fn stream(&mut self) -> Result<bool> {
        let (Some(old), Some(new), Since::Parted(since), false) = (&self.pair.old, &self.pair.new, self.pair.since, self.pair.renamed) else {
            return Ok(false);
        };
        let (old, new) = (old.tree, new.tree);
        if old.has_changed_since(since)? {
            return Ok(false);
        }
        let options = self.options;
        stream::read(Scan::new(new, since), old, &mut |old, new| {
            options.check()?;
            let mut old = old.into_iter().peekable();
            for b in new {
                let a = old.next_if(|a| a.ino == b.ino);
                self.changed.push(b.ino);
                self.inodes += 1;
                self.inode(a, Some(b))?;
            }
            if self.changed.len() + self.more.len() > MOST { Err(too_large()) } else { Ok(()) }
        })?;
        // What the new tree has and has not changed has the names that it had, so an entry that is gone leads to what is gone.
        self.only_old = true;
        Ok(true)
    }

    fn find_changed(&mut self) -> Result<()> {
        let since = match self.pair.since {
            Since::Parted(transid) if self.pair.old.is_some() && self.pair.new.is_some() => transid,
            _ => 0,
        };
        let mut found = Vec::new();
        let mut options_checked = 0u32;
        let mut take = |tree: Tree<'_>, found: &mut Vec<u64>| {
            tree.changed_since(since, |ino| {
                found.push(ino);
                options_checked = options_checked.wrapping_add(1);
                if options_checked.is_multiple_of(4096) {
                    self.options.check()?;
                }
                if found.len() > MOST {
                    return Err(too_large());
                }
                Ok(ControlFlow::Continue(()))
            })
        };
        if let Some(new) = &self.pair.new {
            take(new.tree, &mut found)?;
        }
        let of_new = found.len();
        if let Some(old) = &self.pair.old {
            take(old.tree, &mut found)?;
        }
        self.old_changed = found.len() > of_new;
        if self.pair.renamed {
            // Its name is in another volume, so it need not have changed itself.
            found.push(SUBVOLUME_ROOT_INO);
        }
        found.sort_unstable();
        found.dedup();
        self.changed = found;
        Ok(())
    }

    /// Looks at these inodes, which are ascending, in both trees.
    fn look_at(&mut self, mut inodes: &[u64]) -> Result<()> {
        while !inodes.is_empty() {
            self.options.check()?;
            let batch = &inodes[..inodes.len().min(BATCH)];
            let read = |side: &Option<Side<'_>>| side.as_ref().map_or(Ok((Vec::new(), batch.len())), |s| s.tree.objects(batch));
            let (old, of_old) = read(&self.pair.old)?;
            let (new, of_new) = if self.only_old { (Vec::new(), batch.len()) } else { read(&self.pair.new)? };
            let both = of_old.min(of_new).max(1);
            let mut old = old.into_iter().peekable();
            let mut new = new.into_iter().peekable();
            for ino in &batch[..both] {
                let a = old.next_if(|o| o.ino == *ino);
                let b = new.next_if(|o| o.ino == *ino);
                self.inodes += 1;
                self.inode(a, b)?;
            }
            inodes = &inodes[both..];
            if self.seen.len() + self.more.len() > MOST {
                return Err(too_large());
            }
        }
        Ok(())
    }

    fn inode(&mut self, old: Option<Object>, new: Option<Object>) -> Result<()> {
        match (old, new) {
            (Some(a), Some(b)) if a.ino == SUBVOLUME_ROOT_INO => self.root(&a, &b),
            (Some(a), Some(b)) if self.pair.since != Since::Unrelated && a.is_same(&b) => self.both(&a, &b),
            (a, b) => {
                if let Some(a) = a {
                    self.deleted(&a)?;
                }
                b.map_or(Ok(()), |b| self.added(&b))
            }
        }
    }

    /// The pair's roots: one object by their place, whatever their inodes.
    fn root(&mut self, old: &Object, new: &Object) -> Result<()> {
        self.children(old, new)?;
        let Some(file_type) = self.pair.root else { return Ok(()) };
        let fields = fields(old, new, self.options.times);
        let (from, path) = match (&self.pair.old, &self.pair.new) {
            (Some(a), Some(b)) => (a.prefix.clone(), b.prefix.clone()),
            _ => return Ok(()),
        };
        let kind = match self.pair.renamed {
            true => Kind::Renamed { from },
            false if fields.is_empty() => return Ok(()),
            false => Kind::Metadata,
        };
        let (parent, from_parent) = self.pair.root_parents;
        self.emit(parent, from_parent, Record { fields, ..record(path, kind, file_type, new) })
    }

    /// An object that both trees have.
    fn both(&mut self, old: &Object, new: &Object) -> Result<()> {
        self.children(old, new)?;
        let kept: Vec<&Name> = new.names.iter().filter(|n| old.names.binary_search(n).is_ok()).collect();
        let removed: Vec<&Name> = old.names.iter().filter(|n| new.names.binary_search(n).is_err()).collect();
        let made: Vec<&Name> = new.names.iter().filter(|n| old.names.binary_search(n).is_err()).collect();
        let mut fields = fields(old, new, self.options.times);
        if removed.is_empty() && made.is_empty() && fields.is_empty() && !new.has_content() {
            return Ok(());
        }
        let (pairs, kept, survivor) = {
            let (a, b) = self.sides()?;
            let pairs = pair(a.places(removed)?, b.places(made)?);
            let survivor = match (pairs.deleted.is_empty(), pairs.renamed.first()) {
                (true, _) => None,
                (false, Some((from, _))) => Some(from.path.clone()),
                (false, None) => a.places(kept.first().copied())?.pop().map(|p| p.path),
            };
            (pairs, b.places(kept)?, survivor)
        };
        if !self.any_wanted(&kept, &pairs) {
            return Ok(());
        }
        let changed = match (&self.pair.old, &self.pair.new) {
            (Some(a), Some(b)) if new.has_content() => content::compare((a.tree, old), (b.tree, new))?,
            _ => Changed::default(),
        };
        if changed.any && !self.options.times {
            fields.retain(|f| *f != Field::Mtime);
        }
        self.emit_names(old, new, Found { kept, pairs, changed, fields, survivor })
    }

    fn any_wanted(&self, kept: &[Place], pairs: &Pairs) -> bool {
        let wants = |p: &Place| self.options.wants(&p.path);
        kept.iter().any(wants)
            || pairs.added.iter().any(wants)
            || pairs.deleted.iter().any(wants)
            || pairs.renamed.iter().any(|(from, to)| self.options.wants_move(&from.path, &to.path))
    }

    fn emit_names(&mut self, old: &Object, new: &Object, found: Found) -> Result<()> {
        let Found { kept, pairs, changed, fields, survivor } = found;
        let file_type = new.file_type();
        // The primary name: the first that was there already, else the first.
        let primary = kept.first().or(pairs.renamed.first().map(|(_, to)| to)).or(pairs.added.first()).map(|p| p.path.clone());
        let of = |path: Vec<u8>, kind: Kind| {
            let first = primary.as_ref() == Some(&path);
            let link_of = if first { None } else { primary.clone() };
            let bytes = if first { changed.bytes } else { 0 };
            Record { bytes, content: changed.any, fields: fields.clone(), link_of, ..record(path, kind, file_type, new) }
        };
        if changed.any || !fields.is_empty() {
            for place in kept {
                self.emit(Dir::default(), Dir::default(), of(place.path, if changed.any { Kind::Modified } else { Kind::Metadata }))?;
            }
        }
        for (from, to) in pairs.renamed {
            self.emit(self.dir(false, to.parent), self.dir(true, from.parent), of(to.path, Kind::Renamed { from: from.path }))?;
        }
        for place in pairs.added {
            self.emit(self.dir(false, place.parent), Dir::default(), of(place.path, Kind::Added))?;
        }
        for place in pairs.deleted {
            let record = Record { link_of: survivor.clone(), ..record(place.path, Kind::Deleted, file_type, old) };
            self.emit_of(true, self.dir(true, place.parent), Dir::default(), record)?;
        }
        Ok(())
    }

    /// An object that only the old tree has.
    fn deleted(&mut self, old: &Object) -> Result<()> {
        if old.file_type() == FileType::Directory && matches!(self.pair.since, Since::Parted(_)) {
            self.all_entries(true, old)?;
        }
        self.one_sided(old, true)
    }

    /// An object that only the new tree has.
    fn added(&mut self, new: &Object) -> Result<()> {
        if new.file_type() == FileType::Directory && matches!(self.pair.since, Since::Parted(_)) && self.old_changed {
            self.all_entries(false, new)?;
        }
        self.one_sided(new, false)
    }

    fn one_sided(&mut self, object: &Object, is_old: bool) -> Result<()> {
        let kind = if is_old { Kind::Deleted } else { Kind::Added };
        let side = if is_old { &mut self.pair.old } else { &mut self.pair.new };
        let Some(side) = side else { return Ok(()) };
        if object.ino == SUBVOLUME_ROOT_INO {
            let path = side.prefix.clone();
            return match self.pair.root {
                Some(file_type) => self.emit_of(is_old, self.pair.root_parents.0, Dir::default(), record(path, kind, file_type, object)),
                None => Ok(()),
            };
        }
        let places = side.places(&object.names)?;
        if !places.iter().any(|p| self.options.wants(&p.path)) {
            return Ok(());
        }
        let bytes = if object.has_content() { content::compare_with_nothing(side.tree, object)? } else { 0 };
        let primary = places.first().map(|p| p.path.clone());
        for Place { path, parent } in places {
            let first = primary.as_ref() == Some(&path);
            let link_of = if first { None } else { primary.clone() };
            let bytes = if first { bytes } else { 0 };
            let record = Record { bytes, content: object.has_content(), link_of, ..record(path, kind.clone(), object.file_type(), object) };
            self.emit_of(is_old, self.dir(is_old, parent), Dir::default(), record)?;
        }
        Ok(())
    }

    /// Of a directory that both trees have: entries that only one has lead to inodes to look at.
    fn children(&mut self, old: &Object, new: &Object) -> Result<()> {
        if new.file_type() != FileType::Directory || !matches!(self.pair.since, Since::Parted(_)) {
            return Ok(());
        }
        let (Some(a), Some(b)) = (&self.pair.old, &self.pair.new) else { return Ok(()) };
        // Without a change in the old tree, what is new in the new one is among the changed inodes.
        let (more, old_changed) = (&mut self.more, self.old_changed);
        let since = if old_changed { Since::Forgotten } else { self.pair.since };
        entries::compare(since, (a.tree, old), (b.tree, new), &mut |x, y| {
            more.extend(x.and_then(|e| e.ino));
            more.extend(y.and_then(|e| e.ino).filter(|_| old_changed || x.is_some()));
        })
    }

    fn all_entries(&mut self, of_old: bool, dir: &Object) -> Result<()> {
        let Some(side) = (if of_old { &self.pair.old } else { &self.pair.new }) else { return Ok(()) };
        let mut entries = Entries::of(side.tree, dir);
        while let Some(entry) = entries.next()? {
            self.more.extend(entry.ino);
        }
        Ok(())
    }

    fn dir(&self, of_old: bool, ino: u64) -> Dir {
        let side = if of_old { &self.pair.old } else { &self.pair.new };
        Dir { volume: side.as_ref().map_or(0, |s| s.tree.id), ino }
    }

    fn emit(&mut self, parent: Dir, from_parent: Dir, record: Record) -> Result<()> {
        self.emit_of(false, parent, from_parent, record)
    }

    fn emit_of(&mut self, of_old: bool, parent: Dir, from_parent: Dir, record: Record) -> Result<()> {
        let wanted = match &record.kind {
            Kind::Renamed { from } => self.options.wants_move(from, &record.path),
            _ => self.options.wants(&record.path),
        };
        let side = if of_old { &self.pair.old } else { &self.pair.new };
        let volume = side.as_ref().map_or(0, |s| s.tree.id);
        if wanted { self.out.push(Entry { record, volume, parent, from_parent }) } else { Ok(()) }
    }
}

impl<'a> Comparing<'a, '_> {
    fn sides(&mut self) -> Result<(&mut Side<'a>, &mut Side<'a>)> {
        match (&mut self.pair.old, &mut self.pair.new) {
            (Some(old), Some(new)) => Ok((old, new)),
            _ => Err(Error::internal("one of two trees is missing")),
        }
    }
}

/// What was found out about an object that both trees have.
struct Found {
    kept: Vec<Place>,
    pairs: Pairs,
    changed: Changed,
    fields: Vec<Field>,
    /// A name in the old tree that the object did not lose.
    survivor: Option<Vec<u8>>,
}

fn record(path: Vec<u8>, kind: Kind, file_type: FileType, of: &Object) -> Record {
    Record { path, kind, file_type, inode: of.inode(), bytes: 0, content: false, fields: Vec::new(), link_of: None, replaces: None }
}

fn too_large() -> Error {
    Error::new(
        Code::DiffTooLarge,
        format!("more than {MOST} inodes differ, which is more than is compared at once: compare snapshots that are closer together"),
    )
}
