//! Which name of an object in the old tree became which in the new one. Pure.

/// A path, and the inode number of the directory that it is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path.
    pub path: Vec<u8>,
    /// The directory.
    pub parent: u64,
}

/// What became of the names of one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// From the old name to the new one, by new path. Both have the same path if the directory there is another one.
    pub renamed: Vec<(Place, Place)>,
    /// New names without an old one.
    pub added: Vec<Place>,
    /// Old names without a new one.
    pub deleted: Vec<Place>,
}

/// Pairs names that were removed with names that were made. The same path pairs with itself, then the same last name, then in order.
#[must_use]
pub fn pair(mut removed: Vec<Place>, mut made: Vec<Place>) -> Pairs {
    removed.sort();
    made.sort();
    let mut pairs = Pairs::default();
    let last = |p: &Place| p.path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec);
    // More names than this are linked by a tool, and any pairing says as much.
    if removed.len().saturating_mul(made.len()) <= 4096 {
        take_pairs(&mut removed, &mut made, &mut pairs.renamed, |r, m| r.path == m.path);
        take_pairs(&mut removed, &mut made, &mut pairs.renamed, |r, m| last(r) == last(m));
    }
    let rest = removed.len().min(made.len());
    pairs.renamed.extend(removed.drain(..rest).zip(made.drain(..rest)));
    pairs.renamed.sort_by(|x, y| x.1.cmp(&y.1));
    pairs.added = made;
    pairs.deleted = removed;
    pairs
}

fn take_pairs(removed: &mut Vec<Place>, made: &mut Vec<Place>, found: &mut Vec<(Place, Place)>, alike: impl Fn(&Place, &Place) -> bool) {
    let mut i = 0;
    while i < removed.len() {
        match made.iter().position(|m| alike(&removed[i], m)) {
            Some(j) => found.push((removed.remove(i), made.remove(j))),
            None => i += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: &[&str]) -> Vec<Place> {
        all.iter().map(|p| Place { path: p.as_bytes().to_vec(), parent: 1 }).collect()
    }

    fn moves(pairs: &Pairs) -> Vec<(String, String)> {
        let text = |p: &Place| String::from_utf8_lossy(&p.path).into_owned();
        pairs.renamed.iter().map(|(from, to)| (text(from), text(to))).collect()
    }

    #[test]
    fn a_name_that_moved_keeps_its_last_part_if_there_is_a_choice() {
        let pairs = pair(places(&["d/x", "d/y"]), places(&["a/y", "b/x", "c"]));
        assert_eq!(moves(&pairs), [("d/y".into(), "a/y".into()), ("d/x".into(), "b/x".into())]);
        assert_eq!((pairs.added, pairs.deleted), (places(&["c"]), vec![]));
    }

    #[test]
    fn a_path_that_is_there_again_pairs_with_itself() {
        let pairs = pair(places(&["d/x", "z"]), places(&["d/x"]));
        assert_eq!(moves(&pairs), [("d/x".into(), "d/x".into())]);
        assert_eq!(pairs.deleted, places(&["z"]));
    }
}
