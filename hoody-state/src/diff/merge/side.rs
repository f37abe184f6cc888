//! The changes of one tree, as names and objects.

use super::Did;
use crate::diff::{FileType, Inode, Kind, Record};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A directory as an object: the one that the base has at a path, or one that was made at a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dir {
    Base(Vec<u8>),
    New(Rc<Key>),
}

/// A name: a directory as an object, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub dir: Dir,
    pub name: Vec<u8>,
}

impl Key {
    /// The name that the base has at a path.
    pub(super) fn of_base(path: &[u8]) -> Self {
        let (dir, name) = split(path);
        Key { dir: Dir::Base(dir.to_vec()), name: name.to_vec() }
    }

    /// The path at which the base may have this name.
    pub(super) fn base_path(&self) -> Option<Vec<u8>> {
        match &self.dir {
            Dir::Base(d) => Some(join(d, &self.name)),
            Dir::New(_) => None,
        }
    }
}

/// A name that the tree has and the base does not, or with another object.
#[derive(Debug)]
pub(super) struct Put {
    pub key: Key,
    /// In this tree.
    pub path: Vec<u8>,
    pub inode: Inode,
    /// The object is not in the base.
    pub is_new: bool,
    pub is_dir: bool,
    /// The name that the object had in the base and has no more.
    pub from: Option<Vec<u8>>,
    /// Another name of the object, in this tree.
    pub link_of: Option<Vec<u8>>,
    pub did: Did,
}

/// An object of the base that was changed where it is.
#[derive(Debug)]
pub(super) struct Touch {
    /// In this tree.
    pub path: Vec<u8>,
    /// Its names in the base, as far as this tree knows them: all but those that it removed.
    pub names: Vec<Vec<u8>>,
    pub is_dir: bool,
    pub did: Did,
}

/// All changes of one tree.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// The names of the base that are gone, by path, and the put to which the object was moved.
    pub removed: HashMap<Vec<u8>, Option<usize>>,
    pub puts: Vec<Put>,
    /// The puts by name.
    pub at: HashMap<Key, usize>,
    pub touches: Vec<Touch>,
    /// The touches by the primary name of the object, in this tree. Numbers of inodes do not do: nested volumes have the same ones.
    touched: HashMap<Vec<u8>, usize>,
    /// The touches by the object's names in the base.
    pub touched_at: HashMap<Vec<u8>, usize>,
    /// Names of the base whose objects got a further name.
    pub linked: HashSet<Vec<u8>>,
    /// Directories that were made or moved, by their path in this tree.
    dirs: HashMap<Vec<u8>, Dir>,
}

impl Side {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut side = Side::default();
        let new: HashSet<&[u8]> = records.iter().filter(|r| makes_object(r)).map(|r| &r.path[..]).collect();
        let mut sorted: Vec<&Record> = records.iter().collect();
        // Directories before what is in them.
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        for r in &sorted {
            if is_dir(r.file_type) && r.kind != Kind::Deleted {
                match &r.kind {
                    Kind::Renamed { from } => drop(side.dirs.insert(r.path.clone(), Dir::Base(from.clone()))),
                    _ if makes_object(r) => {
                        let made = Dir::New(Rc::new(side.key(&r.path)));
                        side.dirs.insert(r.path.clone(), made);
                    }
                    _ => {}
                }
            }
        }
        // Primary names first: the others are found by them.
        sorted.sort_by_key(|r| r.link_of.is_some());
        for r in sorted {
            side.add(r, new.contains(r.link_of.as_deref().unwrap_or(&r.path)));
        }
        side
    }

    fn add(&mut self, r: &Record, is_new: bool) {
        if r.replaces.is_some() {
            self.removed.entry(r.path.clone()).or_insert(None);
        }
        match &r.kind {
            Kind::Deleted => {
                self.removed.entry(r.path.clone()).or_insert(None);
            }
            Kind::Added => self.put(r, is_new, None, Did::Added),
            Kind::TypeChanged { .. } | Kind::Modified | Kind::Metadata if r.replaces.is_some() => self.put(r, is_new, None, Did::Replaced),
            // A nested volume has become a directory, or the other way round: to a merge it is the same directory.
            Kind::TypeChanged { .. } if r.fields.is_empty() => {}
            Kind::TypeChanged { .. } => self.touch(r, None, Did::Metadata),
            Kind::Modified => self.touch(r, None, Did::Modified),
            Kind::Metadata => self.touch(r, None, Did::Metadata),
            Kind::Renamed { from } => {
                self.put(r, false, Some(from), Did::Renamed);
                self.removed.insert(from.clone(), Some(self.puts.len() - 1));
                if r.content || r.bytes > 0 {
                    self.touch(r, Some(from), Did::Modified);
                } else if !r.fields.is_empty() {
                    self.touch(r, Some(from), Did::Metadata);
                }
            }
        }
    }

    fn put(&mut self, r: &Record, is_new: bool, from: Option<&Vec<u8>>, did: Did) {
        let key = self.key(&r.path);
        let number = self.puts.len();
        self.at.insert(key.clone(), number);
        if !is_new && from.is_none() {
            self.linked.extend(r.link_of.as_ref().and_then(|of| self.key(of).base_path()));
        }
        let (inode, is_dir, path) = (r.inode, is_dir(r.file_type), r.path.clone());
        self.puts.push(Put { key, path, inode, is_new, is_dir, from: from.cloned(), link_of: r.link_of.clone(), did });
    }

    fn touch(&mut self, r: &Record, from: Option<&Vec<u8>>, did: Did) {
        let name = from.cloned().or_else(|| self.key(&r.path).base_path());
        let primary = r.link_of.as_ref().unwrap_or(&r.path);
        let number = *self.touched.entry(primary.clone()).or_insert_with(|| {
            self.touches.push(Touch { path: r.path.clone(), names: Vec::new(), is_dir: is_dir(r.file_type), did });
            self.touches.len() - 1
        });
        let touch = &mut self.touches[number];
        if let Some(name) = name {
            touch.names.push(name.clone());
            self.touched_at.insert(name, number);
        }
        touch.did = touch.did.min(did);
    }

    /// The name at a path of this tree.
    pub(super) fn key(&self, path: &[u8]) -> Key {
        let (dir, name) = split(path);
        Key { dir: self.dir(dir), name: name.to_vec() }
    }

    fn dir(&self, path: &[u8]) -> Dir {
        let mut above = path;
        loop {
            if let Some(found) = self.dirs.get(above) {
                let rest = path[above.len()..].split(|b| *b == b'/').filter(|n| !n.is_empty());
                return rest.fold(found.clone(), |dir, name| match dir {
                    Dir::Base(d) => Dir::Base(join(&d, name)),
                    dir @ Dir::New(_) => Dir::New(Rc::new(Key { dir, name: name.to_vec() })),
                });
            }
            if above.is_empty() {
                return Dir::Base(path.to_vec());
            }
            above = split(above).0;
        }
    }

    /// All names whose object, or whose object's content, this tree changed.
    pub(super) fn names(&self) -> impl Iterator<Item = Key> {
        let touched = self.touched_at.keys().map(|n| Key::of_base(n));
        touched.chain(self.removed.keys().map(|n| Key::of_base(n))).chain(self.at.keys().cloned())
    }

    /// The put to which the object that had this name in the base was moved.
    pub(super) fn moved(&self, base: &[u8]) -> Option<usize> {
        self.removed.get(base).copied().flatten()
    }

    /// Whether the object that had this name in the base was deleted, or at least lost this name without getting another for it.
    pub(super) fn deleted(&self, base: &[u8]) -> bool {
        self.removed.get(base).is_some_and(Option::is_none)
    }

    /// Where this tree has a directory of the base, which it did not delete.
    pub(super) fn path_of_dir(&self, base: &[u8]) -> Vec<u8> {
        match self.removed.get(base) {
            Some(Some(put)) => self.puts[*put].path.clone(),
            _ if base.is_empty() => Vec::new(),
            _ => {
                let (dir, name) = split(base);
                join(&self.path_of_dir(dir), name)
            }
        }
    }

    /// Where this tree has a name of the base, which it did not remove.
    pub(super) fn path_of_name(&self, base: &[u8]) -> Vec<u8> {
        let (dir, name) = split(base);
        join(&self.path_of_dir(dir), name)
    }

    /// What this tree did to a name.
    pub(super) fn did(&self, key: &Key) -> Did {
        if let Some(put) = self.at.get(key) {
            return self.puts[*put].did;
        }
        let base = key.base_path();
        let removed = base.as_ref().and_then(|p| self.removed.get(p)).map(|to| if to.is_some() { Did::Renamed } else { Did::Deleted });
        let touched = base.as_ref().and_then(|p| self.touched_at.get(p)).map(|t| self.touches[*t].did);
        removed.or(touched).unwrap_or(Did::ChangedWithin)
    }
}

/// Whether the object at the record's path is not in the base.
fn makes_object(r: &Record) -> bool {
    r.link_of.is_none()
        && match r.kind {
            Kind::Added => true,
            Kind::Modified | Kind::Metadata | Kind::TypeChanged { .. } => r.replaces.is_some(),
            Kind::Renamed { .. } | Kind::Deleted => false,
        }
}

fn is_dir(t: FileType) -> bool {
    matches!(t, FileType::Directory | FileType::Subvolume)
}

/// A path's directory and last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
