//! What a merge must come to, found in another way: by objects, whose numbers are known here.

use super::model::{NEW, Name, Object, Shape, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// The shape of the result; nothing if the trees contradict each other.
pub(super) fn merge(base: &Tree, winner: &Tree, loser: &Tree) -> Option<Shape> {
    let mut own: BTreeMap<u64, u64> = loser.objects.keys().map(|id| (*id, if *id < NEW { *id } else { *id + NEW })).collect();
    // Objects that both made at one name and that are equal are one, directories first.
    loop {
        let same = |((dir, name), id): (&Name, &u64)| {
            let theirs = *winner.names.get(&(own[dir], name.clone()))?;
            (*id >= NEW && theirs >= NEW && own[id] != theirs && winner.objects[&theirs] == loser.objects[id]).then_some((*id, theirs))
        };
        let Some((id, theirs)) = loser.names.iter().find_map(same) else { break };
        own.insert(id, theirs);
    }
    let l_names: BTreeMap<Name, u64> = loser.names.iter().map(|((d, n), id)| ((own[d], n.clone()), own[id])).collect();
    let l_objects: BTreeMap<u64, Object> = loser.objects.iter().map(|(id, o)| (own[id], *o)).collect();
    let to = |t: &Tree, id: u64, name: &Name| {
        let (lost, gained) = base.moves(t, id);
        let n = lost.iter().position(|k| k == name)?;
        gained.get(n).cloned()
    };
    let mut result = Tree { objects: BTreeMap::new(), names: BTreeMap::new(), ..Tree::default() };
    for key in base.names.keys().chain(winner.names.keys()).chain(l_names.keys()).collect::<BTreeSet<_>>() {
        let (mut b, w, l) = (base.names.get(key).copied(), winner.names.get(key).copied(), l_names.get(key).copied());
        if let Some(id) = b.filter(|id| w != Some(*id) && l != Some(*id)) {
            let moved = to(winner, id, key);
            if moved != to(loser, id, key).map(|(d, n)| (own.get(&d).copied().unwrap_or(d), n)) {
                return None;
            }
            b = b.filter(|_| moved.is_none());
        }
        let id = if w == l || l == b {
            w
        } else if w == b {
            l
        } else {
            return None;
        };
        result.names.extend(id.map(|id| (key.clone(), id)));
    }
    for id in base.objects.keys().chain(winner.objects.keys()).chain(l_objects.keys()).collect::<BTreeSet<_>>() {
        let (b, w, l) = (base.objects.get(id), winner.objects.get(id), l_objects.get(id));
        let names = |names: &BTreeMap<Name, u64>| names.iter().filter(|(k, i)| **i == *id || k.0 == *id).map(|(k, _)| k.clone()).collect::<BTreeSet<_>>();
        let grew = |n: &BTreeMap<Name, u64>| !names(n).is_subset(&names(&base.names));
        let object = match (b, w, l) {
            (Some(b), None, Some(l)) if b != l || grew(&l_names) => return None,
            (Some(b), Some(w), None) if b != w || grew(&winner.names) => return None,
            (Some(_), None, _) | (Some(_), _, None) => None,
            (Some(b), Some(w), Some(l)) if w == l || l == b => Some(w),
            (Some(b), Some(w), Some(l)) => {
                if w == b {
                    Some(l)
                } else {
                    return None;
                }
            }
            (None, w, l) => w.or(l),
        };
        // What one of them changed has lost all its names to both together.
        if object.is_some() && b.is_some() && object != b && *id != 1 && !result.names.values().any(|i| i == id) {
            return None;
        }
        result.objects.extend(object.map(|o| (*id, *o)));
    }
    let reached = result.names.keys().all(|k| result.objects.contains_key(&k.0)) && result.names.values().all(|id| result.objects.contains_key(id));
    (reached && result.paths().len() == result.names.len()).then(|| result.shape())
}

/// Whether both trees changed the names of an object that has several in one of them.
pub(super) fn has_unseen_names(base: &Tree, winner: &Tree, loser: &Tree) -> bool {
    let renamed = |t: &Tree, id: u64| base.moves(t, id) != (vec![], vec![]);
    let several = |id: u64| [base, winner, loser].iter().any(|t| t.names.values().filter(|i| **i == id).count() > 1);
    base.objects.keys().any(|id| several(*id) && renamed(winner, *id) && renamed(loser, *id))
}
