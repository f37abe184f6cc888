//! Small trees in memory: they can be edited, compared and changed by steps.

use super::*;

/// What an object is: a directory or a file, its content, its mode.
pub(super) type Object = (bool, u8, u8);

/// Directory and name.
pub(super) type Name = (u64, Vec<u8>);
/// What can be seen at each path: the object, and the first of its paths.
pub(super) type Shape = BTreeMap<Vec<u8>, (Object, Vec<u8>)>;

const ROOT: u64 = 1;
/// The first number of an object that the base does not have. Both trees give the same numbers.
pub(super) const NEW: u64 = 1000;

#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub objects: BTreeMap<u64, Object>,
    /// Directory and name.
    pub names: BTreeMap<(u64, Vec<u8>), u64>,
    pub next: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Tree { objects: BTreeMap::from([(ROOT, (true, 0, 0))]), names: BTreeMap::new(), next: 2 }
    }
}

impl Tree {
    pub fn find(&self, path: &[u8]) -> Option<u64> {
        path.split(|b| *b == b'/').filter(|n| !n.is_empty()).try_fold(ROOT, |dir, name| self.names.get(&(dir, name.to_vec())).copied())
    }

    pub fn object(&self, path: &[u8]) -> Option<Object> {
        self.find(path).map(|id| self.objects[&id])
    }

    fn place(&self, path: &[u8]) -> (u64, Vec<u8>) {
        let (dir, name) = super::super::side::split(path);
        (self.find(dir).unwrap(), name.to_vec())
    }

    fn add(&mut self, at: (u64, Vec<u8>), object: Object) {
        self.objects.insert(self.next, object);
        assert!(self.names.insert(at, self.next).is_none(), "something is there already");
        self.next += 1;
    }

    pub fn make(&mut self, path: &str, content: u8) {
        let at = self.place(path.trim_end_matches('/').as_bytes());
        self.add(at, (path.ends_with('/'), content, 0));
    }

    pub fn write(&mut self, path: &str, content: u8) {
        let id = self.find(path.as_bytes()).unwrap();
        self.objects.get_mut(&id).unwrap().1 = content;
    }

    pub fn chmod(&mut self, path: &str, mode: u8) {
        let id = self.find(path.as_bytes()).unwrap();
        self.objects.get_mut(&id).unwrap().2 = mode;
    }

    pub fn remove(&mut self, path: &str) {
        let at = self.place(path.as_bytes());
        self.remove_at(&at);
    }

    fn remove_at(&mut self, at: &(u64, Vec<u8>)) {
        let id = self.names.remove(at).unwrap();
        let within: Vec<_> = self.names.keys().filter(|k| k.0 == id).cloned().collect();
        within.iter().for_each(|k| self.remove_at(k));
        if !self.names.values().any(|o| *o == id) {
            self.objects.remove(&id);
        }
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let to = self.place(to.as_bytes());
        let id = self.names.remove(&self.place(from.as_bytes())).unwrap();
        assert!(self.names.insert(to, id).is_none());
    }

    pub fn link(&mut self, of: &str, to: &str) {
        let (to, id) = (self.place(to.as_bytes()), self.find(of.as_bytes()).unwrap());
        assert!(self.names.insert(to, id).is_none());
    }

    /// Every path and its object, directories first.
    pub fn paths(&self) -> BTreeMap<Vec<u8>, u64> {
        let mut all = BTreeMap::new();
        let mut open = vec![(Vec::new(), ROOT)];
        while let Some((path, dir)) = open.pop() {
            for ((_, name), id) in self.names.range((dir, Vec::new())..(dir + 1, Vec::new())) {
                let at = super::super::side::join(&path, name);
                if self.objects[id].0 {
                    open.push((at.clone(), *id));
                }
                all.insert(at, *id);
            }
        }
        all
    }

    /// What can be seen: paths, objects, and which paths are one object.
    pub fn shape(&self) -> Shape {
        let paths = self.paths();
        let first = |id: u64| paths.iter().find(|(_, i)| **i == id).unwrap().0.clone();
        paths.iter().map(|(p, id)| (p.clone(), (self.objects[id], first(*id)))).collect()
    }

    /// The names of an object, and of those that only one tree has: which became which.
    pub fn moves(&self, new: &Tree, id: u64) -> (Vec<Name>, Vec<Name>) {
        let names = |t: &Tree| t.names.iter().filter(|(_, i)| **i == id).map(|(k, _)| k.clone()).collect::<BTreeSet<_>>();
        let (old, new) = (names(self), names(new));
        (old.difference(&new).cloned().collect(), new.difference(&old).cloned().collect())
    }

    /// The records of a comparison with a tree that grew from this one.
    pub fn diff(&self, new: &Tree) -> Vec<Record> {
        let (old_paths, new_paths) = (self.paths(), new.paths());
        let path_in = |t: &Tree, k: &(u64, Vec<u8>), paths: &BTreeMap<Vec<u8>, u64>| paths.keys().find(|p| t.place(p) == *k).unwrap().clone();
        let mut records: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        let mut gone: Vec<(Vec<u8>, u64)> = Vec::new();
        for (id, object) in &new.objects {
            let mut names: Vec<_> = new_paths.iter().filter(|(_, i)| *i == id).map(|(p, _)| p.clone()).collect();
            let was = self.objects.get(id).filter(|_| *id < NEW);
            let (lost, gained) = if was.is_some() { self.moves(new, *id) } else { (vec![], names.iter().map(|p| new.place(p)).collect()) };
            // The primary name is one that is no new link of an old object.
            let further = |p: &Vec<u8>| was.is_some() && gained.iter().skip(lost.len()).any(|k| new.place(p) == *k);
            names.sort_by_key(|p| (further(p), p.clone()));
            for path in &names {
                let nth = gained.iter().position(|k| new.place(path) == *k);
                let kind = match (was, nth.map(|n| lost.get(n))) {
                    (Some(_), Some(Some(from))) => Kind::Renamed { from: path_in(self, from, &old_paths) },
                    (None, _) | (Some(_), Some(None)) => Kind::Added,
                    (Some(w), None) if w.1 != object.1 => Kind::Modified,
                    (Some(w), None) if w.2 != object.2 => Kind::Metadata,
                    _ => continue,
                };
                let content = was.is_some_and(|w| w.1 != object.1) && kind != Kind::Added;
                let fields = if was.is_some_and(|w| w.2 != object.2) && kind != Kind::Added { vec![Field::Mode] } else { vec![] };
                let link_of = (*path != names[0]).then(|| names[0].clone());
                let r = Record { kind, content, fields, link_of, ..record(path.clone(), *id, object.0) };
                records.insert(path.clone(), r);
            }
            gone.extend(lost.iter().skip(gained.len()).map(|k| (path_in(self, k, &old_paths), *id)));
        }
        gone.extend(old_paths.iter().filter(|(_, id)| !new.objects.contains_key(id) || **id >= NEW).map(|(p, id)| (p.clone(), *id)));
        let mut all = Vec::new();
        for (path, id) in gone {
            let was = kind_of(self.objects[&id].0);
            match records.get_mut(&path).filter(|r| matches!(r.kind, Kind::Added | Kind::Renamed { .. })) {
                Some(r) => {
                    r.replaces = Some(was);
                    if r.kind == Kind::Added {
                        r.kind = if r.file_type == was { Kind::Modified } else { Kind::TypeChanged { from: was, to: r.file_type } };
                    }
                }
                None => all.push(Record { kind: Kind::Deleted, ..record(path, id, self.objects[&id].0) }),
            }
        }
        all.extend(records.into_values());
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Applies steps, each of which must be possible.
    pub fn apply(&self, steps: &[Step], loser: &Tree) -> Tree {
        let mut t = self.clone();
        let mut out = BTreeMap::new();
        for step in steps {
            match step {
                Step::Remove { at } => {
                    let id = t.find(at).unwrap();
                    assert!(!t.names.keys().any(|k| k.0 == id), "{at:?} is not empty");
                    let object = t.objects[&id];
                    t.remove_at(&t.place(at));
                    if out.values().any(|o| *o == id) {
                        t.objects.insert(id, object);
                    }
                }
                Step::TakeOut { at, number } => out.extend([(*number, t.names.remove(&t.place(at)).unwrap())]),
                Step::PutBack { number, to } => assert!(t.names.insert(t.place(to), out.remove(number).unwrap()).is_none()),
                Step::Create { from, to } => t.add(t.place(to), loser.object(from).unwrap()),
                Step::Link { of, to } => assert!(t.names.insert(t.place(to), t.find(of).unwrap()).is_none()),
                Step::Mirror { path } => panic!("a merge does not mirror {path:?}"),
                Step::Set { from, to, content } => {
                    let id = t.find(to).unwrap();
                    let new = loser.object(from).unwrap();
                    assert!(*content || t.objects[&id].1 == new.1, "its content changed");
                    t.objects.insert(id, new);
                }
            }
        }
        assert!(out.is_empty(), "something was taken out and not put back");
        t
    }
}

fn kind_of(dir: bool) -> FileType {
    if dir { FileType::Directory } else { FileType::File }
}

fn record(path: Vec<u8>, id: u64, dir: bool) -> Record {
    let inode = Inode { ino: id, generation: 1 };
    Record { path, kind: Kind::Added, file_type: kind_of(dir), inode, bytes: 0, content: false, fields: vec![], link_of: None, replaces: None }
}

pub(super) fn build(edits: &Edits) -> Tree {
    Tree { next: NEW, ..edited(&Tree::default(), edits) }
}

/// Random edits. Those that are impossible do nothing.
pub(super) fn edited(base: &Tree, edits: &Edits) -> Tree {
    let mut t = base.clone();
    for (what, a, b, c) in edits {
        let all = t.paths();
        let pick = |n: u8, wanted: &dyn Fn(&u64) -> bool| {
            let found: Vec<_> = all.iter().filter(|(_, id)| wanted(id)).map(|(p, _)| p.clone()).collect();
            (!found.is_empty()).then(|| found[n as usize % found.len()].clone())
        };
        let dir = pick(*a, &|id| t.objects[id].0).filter(|_| a % 3 != 0).unwrap_or_default();
        let at = super::super::side::join(&dir, &[b'a' + b % 4]);
        let free = t.find(&at).is_none();
        let (any, file) = (pick(*c, &|_| true), pick(*c, &|id| !t.objects[id].0));
        match what {
            0 if free => t.add(t.place(&at), (false, c % 3, 0)),
            1 if free => t.add(t.place(&at), (true, 0, 0)),
            2 => any.iter().for_each(|p| t.remove_at(&t.place(p))),
            3 => file.iter().for_each(|p| t.objects.get_mut(&t.find(p).unwrap()).unwrap().1 = 10 + b % 2),
            4 => any.iter().for_each(|p| t.objects.get_mut(&t.find(p).unwrap()).unwrap().2 = 20 + b % 2),
            5 if free => any.iter().filter(|p| !at.starts_with(&[p, &b"/"[..]].concat())).for_each(|p| {
                let (to, from) = (t.place(&at), t.place(p));
                let id = t.names.remove(&from).unwrap();
                t.names.insert(to, id);
            }),
            // Only of objects of the base, and in the base itself.
            6 if free => {
                let of = file.and_then(|p| t.find(&p)).filter(|id| *id < NEW);
                let to = t.place(&at);
                t.names.extend(of.map(|id| (to, id)));
            }
            7 => file.iter().for_each(|p| {
                t.remove_at(&t.place(p));
                t.add(t.place(p), (false, 30 + b % 2, 0));
            }),
            _ => {}
        }
    }
    t
}
