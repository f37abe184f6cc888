//! Brings records together that are about one path: what was deleted there, and what is there now.

use super::content;
use super::items::Tree;
use crate::diff::object::{Object, fields};
use crate::diff::options::Options;
use crate::diff::sorter::{Dir, Entry, Sorted};
use crate::diff::{Field, FileType, Kind, Record};
use crate::error::{Code, Error, Result};
use crate::sys::fs::SUBVOLUME_ROOT_INO;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A volume that was compared.
pub(super) struct Compared {
    /// The path of its root.
    pub(super) prefix: Vec<u8>,
    /// Whether its files are compared with unrelated ones, byte by byte.
    pub(super) bytewise: bool,
    /// The new volume of its pair.
    pub(super) partner: Option<u64>,
}

/// The records in their order, as they are shown.
pub(super) struct Merge<'a> {
    pub(super) mount: BorrowedFd<'a>,
    pub(super) sorted: Sorted,
    pub(super) volumes: HashMap<u64, Compared>,
    pub(super) options: &'a Options<'a>,
    roots: HashMap<u64, Option<OwnedFd>>,
    waiting: Option<Record>,
    /// Paths at which a directory stands for a deleted one, so that only its own changes are shown.
    continued: HashSet<Vec<u8>>,
    /// The directories that were asked about last, and the answer.
    asked: Option<(Dir, Dir, bool)>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(mount: BorrowedFd<'a>, sorted: Sorted, volumes: HashMap<u64, Compared>, options: &'a Options<'a>) -> Self {
        Merge { mount, sorted, volumes, options, roots: HashMap::new(), waiting: None, continued: HashSet::new(), asked: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        if let Some(record) = self.waiting.take() {
            return Ok(Some(record));
        }
        while let Some(entry) = self.sorted.pop()? {
            let shown = match entry.record.kind {
                Kind::Deleted if self.sorted.peek() == Some(&entry.record.path) => match self.sorted.pop()? {
                    Some(now) => self.both(entry, now)?,
                    None => Some(entry.record),
                },
                Kind::Renamed { ref from } if *from == entry.record.path => self.moved_to_itself(entry)?,
                _ => Some(entry.record),
            };
            if shown.is_some() {
                return Ok(shown);
            }
        }
        Ok(None)
    }

    /// A path at which the old tree had something that was deleted, and the new one has something else.
    fn both(&mut self, old: Entry, new: Entry) -> Result<Option<Record>> {
        Ok(match new.record.kind {
            Kind::Renamed { .. } => Some(Record { replaces: Some(old.record.file_type), ..new.record }),
            Kind::Added => self.replaced(&old, new)?,
            // What came to this path with its directory: two records.
            _ => {
                self.waiting = Some(new.record);
                Some(old.record)
            }
        })
    }

    /// An object with the same path in both trees, but not in the same directory: if the one directory continues the other, it was not moved.
    fn moved_to_itself(&mut self, entry: Entry) -> Result<Option<Record>> {
        if !self.continues(entry.from_parent, entry.parent, &entry.record.path)? {
            return Ok(Some(entry.record));
        }
        let record = entry.record;
        let kind = match (record.content, record.fields.is_empty()) {
            (true, _) => Kind::Modified,
            (false, false) => Kind::Metadata,
            (false, true) => return Ok(None),
        };
        Ok(Some(Record { kind, ..record }))
    }

    /// Whether the directory `new`, in which `path` is, is the same as `old`, or stands for it.
    fn continues(&mut self, old: Dir, new: Dir, path: &[u8]) -> Result<bool> {
        let above = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
        if self.continued.contains(above) {
            return Ok(true);
        }
        let partners = self.volumes.get(&old.volume).is_some_and(|v| v.partner == Some(new.volume));
        if !partners || old.ino != new.ino {
            return Ok(false);
        }
        if old.ino == SUBVOLUME_ROOT_INO {
            return Ok(true);
        }
        if let Some((a, b, answer)) = self.asked
            && (a, b) == (old, new)
        {
            return Ok(answer);
        }
        let object = |dir: Dir| Tree { mount: self.mount, id: dir.volume }.object(dir.ino);
        let answer = matches!((object(old)?, object(new)?), (Some(a), Some(b)) if a.is_same(&b));
        self.asked = Some((old, new, answer));
        Ok(answer)
    }

    /// Another object of the same name. Nothing if nobody can tell them apart.
    fn replaced(&mut self, old: &Entry, new: Entry) -> Result<Option<Record>> {
        let (from, to) = (old.record.file_type, new.record.file_type);
        let directory = |t: FileType| matches!(t, FileType::Directory | FileType::Subvolume);
        // Only in a directory that is still the same can a new object stand for the old one.
        let continues = self.continues(old.parent, new.parent, &new.record.path)?;
        let continued = continues && directory(from) && directory(to);
        if continued {
            self.continued.insert(new.record.path.clone());
        }
        let replaces = (!continued).then_some(from);
        if from != to && !continued {
            return Ok(Some(Record { kind: Kind::TypeChanged { from, to }, replaces, ..new.record }));
        }
        let (a, b) = (self.object(old)?, self.object(&new)?);
        let mut fields = fields(&a, &b, self.options.times);
        if from != to {
            return Ok(Some(Record { kind: Kind::TypeChanged { from, to }, fields, replaces, ..new.record }));
        }
        if directory(from) {
            let shown = Record { kind: Kind::Metadata, fields, replaces, ..new.record };
            return Ok((!continued || !shown.fields.is_empty()).then_some(shown));
        }
        let tree = |id: u64| Tree { mount: self.mount, id };
        let mut changed = content::compare((tree(old.volume), &a), (tree(new.volume), &b))?;
        if changed.any && a.size == b.size && from == FileType::File && self.same_bytes(old, &new)? {
            changed = Default::default();
        }
        if changed.any && !self.options.times {
            fields.retain(|f| *f != Field::Mtime);
        }
        let linked = a.links > 1 || b.links > 1;
        if !changed.any && !linked && continues && fields.is_empty() {
            return Ok(None);
        }
        let kind = if changed.any || linked || !continues { Kind::Modified } else { Kind::Metadata };
        // The bytes of a file are counted at its primary name.
        let bytes = if new.record.link_of.is_some() { 0 } else { changed.bytes };
        Ok(Some(Record { kind, fields, bytes, content: changed.any, replaces, ..new.record }))
    }

    fn object(&self, entry: &Entry) -> Result<Object> {
        let tree = Tree { mount: self.mount, id: entry.volume };
        tree.object(entry.record.inode.ino)?.ok_or_else(|| Error::new(Code::VolumeNotFound, "a volume was deleted while it was compared: try again"))
    }

    /// Whether two files at one path have the same bytes, where that is worth reading them.
    fn same_bytes(&mut self, old: &Entry, new: &Entry) -> Result<bool> {
        let place = |volumes: &HashMap<u64, Compared>, e: &Entry| {
            let volume = volumes.get(&e.volume).filter(|v| v.bytewise)?;
            let path = e.record.path.strip_prefix(volume.prefix.as_slice())?;
            Some(path.strip_prefix(b"/").unwrap_or(path).to_vec())
        };
        let (Some(a), Some(b)) = (place(&self.volumes, old), place(&self.volumes, new)) else { return Ok(false) };
        for id in [old.volume, new.volume] {
            if !self.roots.contains_key(&id) {
                self.roots.insert(id, content::root(Tree { mount: self.mount, id })?);
            }
        }
        let root = |id: u64| self.roots.get(&id).and_then(Option::as_ref).map(AsFd::as_fd);
        match (root(old.volume), root(new.volume)) {
            (Some(x), Some(y)) => content::same_bytes((x, &a), (y, &b), self.options),
            _ => Ok(false),
        }
    }
}
