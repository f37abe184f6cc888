//! Which of the loser's changes are in the result, and where the two trees contradict each other.
//!
//! A change of the loser that contradicts one of the winner is dropped, and with it what depends on it. That may leave others without a place, so it is
//! decided again until nothing more is dropped. Each round drops something, so it ends.

use super::side::{Dir, Key, Put, Side, Touch, join, split};
use super::{Compare, Conflict, Did};
use crate::diff::Record;
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What has been decided of one change of the loser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verdict {
    /// It is in the result, as far as is known.
    #[default]
    Taken,
    /// The winner did the same: nothing is to be done.
    Same,
    /// It is not in the result.
    Dropped,
}

/// What a conflict is about. Where the result has it is known only in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Name(Key),
    /// The object of one of the loser's touches.
    Object(usize),
}

/// A merge under way.
pub(super) struct Merge<'a> {
    pub w: Side,
    pub l: Side,
    compare: &'a dyn Compare,
    pub puts: Vec<Verdict>,
    pub touches: Vec<Verdict>,
    /// The removals of the loser that are not taken.
    pub kept: HashMap<Vec<u8>, Verdict>,
    /// Directories of the base into which the winner puts something.
    filled: HashSet<Vec<u8>>,
    /// Names that both changed in the same way.
    same: HashSet<Key>,
    conflicts: BTreeMap<Subject, (Did, Did)>,
    changed: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(winner: &[Record], loser: &[Record], compare: &'a dyn Compare) -> Self {
        let (w, l) = (Side::of(winner), Side::of(loser));
        let filled = w.puts.iter().filter_map(|p| if let Dir::Base(d) = &p.key.dir { Some(d.clone()) } else { None }).collect();
        let (puts, touches) = (vec![Verdict::Taken; l.puts.len()], vec![Verdict::Taken; l.touches.len()]);
        let (kept, same, conflicts) = (HashMap::new(), HashSet::new(), BTreeMap::new());
        Merge { w, l, compare, puts, touches, kept, filled, same, conflicts, changed: false }
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let mut all = BTreeMap::new();
        for (subject, (winner, loser)) in &self.conflicts {
            let path = match subject {
                Subject::Name(key) => self.path_of(key),
                Subject::Object(touch) => {
                    let t = &self.l.touches[*touch];
                    let name = || t.names.first().map_or_else(|| self.l.key(&t.path), |n| Key::of_base(n));
                    self.path_of(&self.home_of_touched(t).unwrap_or_else(name))
                }
            };
            all.entry(path.clone()).or_insert(Conflict { path, winner: *winner, loser: *loser });
        }
        all.into_values().collect()
    }

    pub(super) fn decide(&mut self) -> Result<()> {
        loop {
            self.changed = false;
            let mut removals: Vec<Vec<u8>> = self.l.removed.keys().filter(|p| !self.kept.contains_key(*p)).cloned().collect();
            removals.sort();
            for base in removals {
                self.removal(&base);
            }
            for number in 0..self.l.puts.len() {
                if self.puts[number] == Verdict::Taken {
                    self.put(number)?;
                }
            }
            for number in 0..self.l.touches.len() {
                if self.touches[number] == Verdict::Taken {
                    self.touch(number)?;
                }
            }
            if !self.changed {
                self.databases();
            }
            if !self.changed {
                return Ok(());
            }
        }
    }

    /// The loser removed the name that the base has at `base`.
    fn removal(&mut self, base: &[u8]) {
        let moved = self.l.moved(base);
        let key = Key::of_base(base);
        if let Some(winner_moved) = self.w.removed.get(base).copied() {
            let replaced = self.w.at.contains_key(&key);
            match (winner_moved, moved) {
                // What both moved is decided where it was put.
                (_, Some(_)) => return,
                (Some(put), None) => {
                    self.conflict(self.w.puts[put].key.clone(), Did::Renamed, Did::Deleted);
                    return self.keep_all(base, Verdict::Same);
                }
                (None, None) if replaced && !self.l.at.contains_key(&key) => {
                    let did = self.w.did(&key);
                    self.conflict(key, did, Did::Deleted);
                }
                (None, None) => {
                    self.same.insert(key);
                }
            }
            self.keep(base, Verdict::Same);
        } else if moved.is_some() {
            // It is decided where it was put.
        } else if self.filled.contains(base) {
            self.conflict(Key::of_base(base), Did::ChangedWithin, Did::Deleted);
            self.keep_all(base, Verdict::Dropped);
        } else if self.w.linked.contains(base) {
            self.conflict(Key::of_base(base), Did::Added, Did::Deleted);
            self.keep(base, Verdict::Dropped);
        } else if let Some(did) = self.winner_touched(base) {
            self.conflict(Key::of_base(base), did, Did::Deleted);
            self.keep(base, Verdict::Dropped);
        }
    }

    /// The winner's change of the object at a base name, if the loser deleted that object with all its names.
    fn winner_touched(&self, base: &[u8]) -> Option<Did> {
        let t = &self.w.touches[*self.w.touched_at.get(base)?];
        let gone = t.names.iter().all(|n| match self.l.removed.get(n) {
            Some(Some(put)) => self.puts[*put] == Verdict::Dropped,
            Some(None) => true,
            None => false,
        });
        gone.then_some(t.did)
    }

    /// A directory that the loser deleted stays as the winner has it.
    fn keep_all(&mut self, dir: &[u8], verdict: Verdict) {
        let within = |p: &&Vec<u8>| p.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'));
        let beneath: Vec<Vec<u8>> = self.l.removed.iter().filter(|(_, moved)| moved.is_none()).map(|(p, _)| p).filter(within).cloned().collect();
        beneath.iter().for_each(|p| self.keep(p, Verdict::Dropped));
        self.keep(dir, verdict);
    }

    /// A removal is not in the result: neither is that of the directories that the name is in.
    fn keep(&mut self, base: &[u8], verdict: Verdict) {
        let mut at = base;
        let mut verdict = verdict;
        while self.l.removed.contains_key(at) && !self.kept.contains_key(at) {
            self.changed = true;
            self.kept.insert(at.to_vec(), verdict);
            if verdict == Verdict::Same {
                return;
            }
            at = split(at).0;
            if at.is_empty() || !self.l.deleted(at) {
                return;
            }
            verdict = Verdict::Dropped;
        }
    }

    fn drop_put(&mut self, number: usize) {
        self.changed = true;
        self.puts[number] = Verdict::Dropped;
        if let Some(from) = self.l.puts[number].from.clone() {
            let gone = self.w.removed.contains_key(&from);
            self.keep(&from, if gone { Verdict::Same } else { Verdict::Dropped });
        }
    }

    /// The loser put an object at a name.
    fn put(&mut self, number: usize) -> Result<()> {
        let p = &self.l.puts[number];
        let (key, is_new, from, did) = (p.key.clone(), p.is_new, p.from.clone(), p.did);
        // The directory.
        match &key.dir {
            Dir::Base(d) if self.w.deleted(d) => {
                self.conflict(Key::of_base(d), Did::Deleted, Did::ChangedWithin);
                self.drop_put(number);
                return Ok(());
            }
            Dir::New(at) if !self.is_made(at) => {
                self.drop_put(number);
                return Ok(());
            }
            _ => {}
        }
        // What the winner has at that name.
        if let Some(theirs) = self.w.at.get(&key).copied() {
            return self.put_at_both(number, theirs);
        }
        if let Some(base) = key.base_path() {
            match (self.w.removed.get(&base), self.l.removed.contains_key(&base)) {
                // Both moved its old object, to the same name.
                (Some(_), true) if self.moved_alike(&base) => {}
                (Some(_), true) => {
                    let theirs = self.w.did(&key);
                    self.conflict(key, theirs, did);
                    self.drop_put(number);
                    return Ok(());
                }
                // Its old object stays there.
                (None, true) if self.kept.contains_key(&base) => {
                    self.drop_put(number);
                    return Ok(());
                }
                _ => {}
            }
        }
        if !is_new {
            self.put_of_base(number, from);
        }
        Ok(())
    }

    /// Both put something at one name.
    fn put_at_both(&mut self, number: usize, theirs: usize) -> Result<()> {
        let (w, l) = (&self.w.puts[theirs], &self.l.puts[number]);
        let (key, did) = (l.key.clone(), (w.did, l.did));
        let equal = match (w.is_new, l.is_new) {
            (true, true) => w.is_dir == l.is_dir && self.compare.equal(&w.path, &l.path)?,
            // Names of one directory are in one volume: there the numbers of inodes do.
            (false, false) => w.is_dir == l.is_dir && if w.is_dir { w.from == l.from } else { w.inode == l.inode },
            _ => false,
        };
        if equal {
            self.puts[number] = Verdict::Same;
            // A further name that only the loser removed is removed.
            if let Some(from) = l.from.clone().filter(|f| self.w.removed.contains_key(f)) {
                self.keep(&from, Verdict::Same);
            }
            self.same.insert(key);
            return Ok(());
        }
        // Two directories are one, with the winner's owner and mode: what is in them is merged all the same.
        let both_dirs = w.is_new && l.is_new && w.is_dir && l.is_dir;
        self.conflict(key.clone(), did.0, did.1);
        if both_dirs {
            self.puts[number] = Verdict::Same;
            self.same.insert(key);
        } else {
            self.drop_put(number);
        }
        Ok(())
    }

    /// The loser gave an object of the base another name, or one more.
    fn put_of_base(&mut self, number: usize, from: Option<Vec<u8>>) {
        let p = &self.l.puts[number];
        let is_dir = p.is_dir;
        let Some(from) = from else {
            if self.home_of(p).is_none() {
                self.conflict(p.key.clone(), Did::Deleted, Did::Added);
                self.drop_put(number);
            }
            return;
        };
        match self.w.removed.get(&from).copied() {
            Some(Some(theirs)) => {
                // At the same name it would have been found there.
                self.conflict(self.w.puts[theirs].key.clone(), Did::Renamed, Did::Renamed);
                self.drop_put(number);
            }
            Some(None) => {
                self.conflict(Key::of_base(&from), Did::Deleted, Did::Renamed);
                self.drop_put(number);
            }
            None if is_dir && self.is_within_itself(&from, number) => {
                self.conflict(Key::of_base(&from), Did::Renamed, Did::Renamed);
                self.drop_put(number);
            }
            None => {}
        }
    }

    /// Whether both gave the object of a base name the same other name.
    fn moved_alike(&self, base: &[u8]) -> bool {
        let to = |s: &Side| s.removed.get(base).copied().flatten().map(|p| s.puts[p].key.clone());
        to(&self.l).is_some_and(|key| to(&self.w) == Some(key))
    }

    /// The loser changed an object of the base.
    fn touch(&mut self, number: usize) -> Result<()> {
        let t = &self.l.touches[number];
        let gone = t.names.iter().all(|n| self.w.deleted(n));
        let did = t.did;
        if gone {
            let name = t.names.first().map(|n| Key::of_base(n)).filter(|k| self.w.at.contains_key(k));
            let theirs = if name.is_some() { Did::Replaced } else { Did::Deleted };
            self.drop_touch(number, theirs, did);
            return Ok(());
        }
        let Some(theirs) = t.names.iter().find_map(|n| self.w.touched_at.get(n)).map(|w| &self.w.touches[*w]) else { return Ok(()) };
        if theirs.is_dir == t.is_dir && self.compare.equal(&theirs.path, &t.path)? {
            self.touches[number] = Verdict::Same;
            self.same.extend(t.names.iter().map(|n| Key::of_base(n)));
        } else {
            self.drop_touch(number, theirs.did, did);
        }
        Ok(())
    }

    fn drop_touch(&mut self, number: usize, winner: Did, loser: Did) {
        if !self.l.touches[number].path.ends_with(b"-shm") {
            self.conflicts.entry(Subject::Object(number)).or_insert((winner, loser));
        }
        self.touches[number] = Verdict::Dropped;
        self.changed = true;
    }

    /// A name that the result has for an object of the base that the loser changed.
    pub(super) fn home_of_touched(&self, t: &Touch) -> Option<Key> {
        t.names.iter().find_map(|n| self.home_of_name(n))
    }

    /// The name that the result has for the object that the base has at a name, if it is not gone.
    fn home_of_name(&self, base: &[u8]) -> Option<Key> {
        if let Some(put) = self.l.moved(base).filter(|m| self.puts[*m] != Verdict::Dropped) {
            return Some(self.l.puts[put].key.clone());
        }
        if let Some(put) = self.w.moved(base) {
            return Some(self.w.puts[put].key.clone());
        }
        let stays = !self.w.removed.contains_key(base) && (!self.l.removed.contains_key(base) || self.kept.contains_key(base));
        stays.then(|| Key::of_base(base))
    }

    /// Whether the result has a directory at a name at which the loser made one.
    fn is_made(&self, at: &Key) -> bool {
        self.l.at.get(at).is_some_and(|p| self.l.puts[*p].is_dir && self.puts[*p] != Verdict::Dropped)
    }

    /// A name of an object of the base that the result has beside the put `p`: where it is moved to, or a name that it keeps.
    pub(super) fn home_of(&self, p: &Put) -> Option<Key> {
        let key = self.l.key(p.link_of.as_deref()?);
        match self.l.at.get(&key).map(|put| &self.l.puts[*put]) {
            Some(other) => self.home_of_name(other.from.as_ref()?),
            None => self.home_of_name(&key.base_path()?),
        }
    }

    fn conflict(&mut self, at: Key, winner: Did, loser: Did) {
        // What the first process that opens a database makes anew contradicts nothing.
        if !at.name.ends_with(b"-shm") {
            self.conflicts.entry(Subject::Name(at)).or_insert((winner, loser));
        }
    }

    /// Databases of which both trees changed a part, each another: none of the loser's parts is taken.
    fn databases(&mut self) {
        let mut loser: BTreeMap<Key, Vec<Unit>> = BTreeMap::new();
        for (key, unit) in self.taken() {
            loser.entry(key).or_default().push(unit);
        }
        let winner: HashSet<Key> = self.w.names().filter(|k| !self.same.contains(k)).collect();
        let databases: BTreeSet<Key> = winner.iter().chain(loser.keys()).filter_map(database_of).collect();
        for database in databases {
            let part = |suffix: &[u8]| Key { dir: database.dir.clone(), name: [&database.name, suffix].concat() };
            let parts = [part(b""), part(b"-wal"), part(b"-journal")];
            let Some(theirs) = parts.iter().find(|k| winner.contains(*k)) else { continue };
            let ours: Vec<Unit> = parts.iter().filter_map(|k| loser.remove(k)).flatten().collect();
            if ours.is_empty() {
                continue;
            }
            let did = if theirs.name == database.name { self.w.did(theirs) } else { Did::ChangedWithin };
            let own = self.l.did(&database);
            self.conflict(database.clone(), did, own);
            ours.into_iter().chain(loser.remove(&part(b"-shm")).into_iter().flatten()).for_each(|unit| self.drop_unit(unit));
        }
    }

    fn drop_unit(&mut self, unit: Unit) {
        match unit {
            Unit::Removal(base) => self.keep(&base, Verdict::Dropped),
            Unit::Put(p) => self.drop_put(p),
            Unit::Touch(t) => {
                self.touches[t] = Verdict::Dropped;
                self.changed = true;
            }
        }
    }

    /// The loser's changes that are in the result so far, by the names that they are of.
    fn taken(&self) -> Vec<(Key, Unit)> {
        let puts = self.l.puts.iter().enumerate().filter(|(n, _)| self.puts[*n] == Verdict::Taken).map(|(n, p)| (p.key.clone(), Unit::Put(n)));
        let touches = self.l.touches.iter().enumerate().filter(|(n, _)| self.touches[*n] == Verdict::Taken);
        let touches = touches.filter_map(|(n, t)| Some((Key::of_base(t.names.first()?), Unit::Touch(n))));
        let removals = self.l.removed.keys().filter(|p| !self.kept.contains_key(*p)).map(|p| (Key::of_base(p), Unit::Removal(p.clone())));
        puts.chain(touches).chain(removals).collect()
    }
}

/// One change of the loser.
enum Unit {
    Removal(Vec<u8>),
    Put(usize),
    Touch(usize),
}

/// The database that a file belongs to by its name.
fn database_of(key: &Key) -> Option<Key> {
    let name = [&b"-wal"[..], b"-journal"].iter().find_map(|s| key.name.strip_suffix(*s)).filter(|n| !n.is_empty())?;
    Some(Key { dir: key.dir.clone(), name: name.to_vec() })
}

/// What `path_of` needs of a name whose directory is gone: the path that it had.
pub(super) fn shown(key: &Key) -> Vec<u8> {
    match &key.dir {
        Dir::Base(d) => join(d, &key.name),
        Dir::New(k) => join(&shown(k), &key.name),
    }
}
