//! Where the result has what is taken from the loser, and the steps that bring it there.

use super::decide::{Merge, Verdict, shown};
use super::side::{Dir, Key, Put, join};
use super::{Did, Step};
use std::collections::{BTreeMap, HashMap, HashSet};

impl Merge<'_> {
    /// Where the result has a name.
    pub(super) fn path_of(&self, key: &Key) -> Vec<u8> {
        self.path_in_result(key, &mut HashSet::new()).unwrap_or_else(|| shown(key))
    }

    /// `None`: the directory is in itself.
    fn path_in_result(&self, key: &Key, seen: &mut HashSet<Dir>) -> Option<Vec<u8>> {
        if !seen.insert(key.dir.clone()) {
            return None;
        }
        let dir = match self.name_of(&key.dir) {
            Some(name) => self.path_in_result(&name, seen)?,
            None => Vec::new(),
        };
        Some(join(&dir, &key.name))
    }

    /// The name that the result has for a directory; the root has none.
    fn name_of(&self, dir: &Dir) -> Option<Key> {
        match dir {
            Dir::New(key) => Some((**key).clone()),
            Dir::Base(base) if base.is_empty() => None,
            Dir::Base(base) => {
                let by_loser = self.l.removed.get(base).copied().flatten().filter(|p| self.puts[*p] == Verdict::Taken).map(|p| &self.l.puts[p].key);
                let by_winner = || self.w.removed.get(base).copied().flatten().map(|p| &self.w.puts[p].key);
                Some(by_loser.or_else(by_winner).cloned().unwrap_or_else(|| Key::of_base(base)))
            }
        }
    }

    /// Whether the directory of the base that a put moves would be in itself.
    pub(super) fn is_within_itself(&self, base: &[u8], put: usize) -> bool {
        let moved = Dir::Base(base.to_vec());
        let mut dir = self.l.puts[put].key.dir.clone();
        let mut seen = HashSet::new();
        while dir != moved {
            match self.name_of(&dir) {
                Some(name) if seen.insert(dir) => dir = name.dir,
                _ => return false,
            }
        }
        true
    }

    /// What makes the winner's tree the result.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = self.removals();
        steps.extend(self.creations());
        let mut sets: Vec<Step> = Vec::new();
        for (_, t) in self.l.touches.iter().enumerate().filter(|(n, _)| self.touches[*n] == Verdict::Taken) {
            sets.extend(self.home_of_touched(t).map(|key| Step::Set { from: t.path.clone(), to: self.path_of(&key), content: t.did == Did::Modified }));
        }
        // What is in a directory before the directory: it may lose the right to be written.
        sets.sort_by(|a, b| target(b).cmp(target(a)));
        steps.extend(sets);
        steps
    }

    /// What leaves its place in the winner's tree, deepest first.
    fn removals(&self) -> Vec<Step> {
        let mut gone: BTreeMap<Vec<u8>, Option<usize>> = BTreeMap::new();
        for (base, moved) in self.l.removed.iter().filter(|(p, _)| !self.kept.contains_key(*p)) {
            if !self.w.removed.contains_key(base) {
                gone.insert(self.w.path_of_name(base), moved.filter(|m| self.puts[*m] == Verdict::Taken));
            }
        }
        gone.into_iter()
            .rev()
            .map(|(at, moved)| match moved {
                Some(number) => Step::TakeOut { at, number },
                None => Step::Remove { at },
            })
            .collect()
    }

    /// What is put into the result: directories before what is in them, hard links last.
    fn creations(&self) -> Vec<Step> {
        let mut puts: Vec<(Vec<u8>, usize)> =
            (0..self.l.puts.len()).filter(|n| self.puts[*n] == Verdict::Taken).map(|n| (self.path_of(&self.l.puts[n].key), n)).collect();
        puts.sort();
        // By the primary name in the loser's tree: what it is linked with.
        let mut home: HashMap<&[u8], Vec<u8>> = HashMap::new();
        for (_, p) in self.l.puts.iter().enumerate().filter(|(n, p)| p.is_new && self.puts[*n] == Verdict::Same) {
            home.insert(primary(p), self.path_of(&p.key));
        }
        let (mut steps, mut links) = (Vec::new(), Vec::new());
        for (to, number) in puts {
            let p: &Put = &self.l.puts[number];
            if p.from.is_some() {
                steps.push(Step::PutBack { number, to });
            } else if let (false, Some(of)) = (p.is_new, self.home_of(p)) {
                links.push(Step::Link { of: self.path_of(&of), to });
            } else if let Some(of) = home.get(primary(p)).filter(|_| !p.is_dir) {
                links.push(Step::Link { of: of.clone(), to });
            } else {
                home.insert(primary(p), to.clone());
                steps.push(Step::Create { from: p.path.clone(), to });
            }
        }
        steps.extend(links);
        steps
    }
}

fn primary(p: &Put) -> &[u8] {
    p.link_of.as_deref().unwrap_or(&p.path)
}

fn target(step: &Step) -> &[u8] {
    match step {
        Step::Set { to, .. } => to,
        _ => &[],
    }
}
