//! Paths of a tree's directories, from the numbers of their inodes.

use super::items::Tree;
use crate::diff::names::Place;
use crate::diff::object::Name;
use crate::error::{Code, Error, Result};
use crate::sys::fs::SUBVOLUME_ROOT_INO;
use std::collections::HashMap;
use std::rc::Rc;

/// What is remembered takes no more than this.
const CACHE_BYTES: usize = 8 << 20;
/// No path may be longer. What programs can name in one call is shorter.
const LONGEST: usize = 16 << 10;

/// One of two trees that are compared.
pub(super) struct Side<'a> {
    pub(super) tree: Tree<'a>,
    /// The path of its root.
    pub(super) prefix: Vec<u8>,
    known: HashMap<u64, Rc<[u8]>>,
    bytes: usize,
}

impl<'a> Side<'a> {
    pub(super) fn new(tree: Tree<'a>, prefix: Vec<u8>) -> Self {
        Side { tree, prefix, known: HashMap::new(), bytes: 0 }
    }

    /// The path of a directory.
    pub(super) fn dir(&mut self, ino: u64) -> Result<Rc<[u8]>> {
        let mut above: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut at = ino;
        let mut len = 0;
        let mut path: Rc<[u8]> = loop {
            if at == SUBVOLUME_ROOT_INO {
                break self.prefix.as_slice().into();
            }
            if let Some(known) = self.known.get(&at) {
                break Rc::clone(known);
            }
            let name = self.tree.dir_name(at)?.ok_or_else(|| Error::internal(format!("directory {at} of subvolume {} has no name", self.tree.id)))?;
            len += name.name.len() + 1;
            if len > LONGEST {
                return Err(too_long());
            }
            above.push((at, name.name));
            at = name.parent;
        };
        if self.bytes > CACHE_BYTES {
            self.known.clear();
            self.bytes = 0;
        }
        for (ino, name) in above.into_iter().rev() {
            path = join(&path, &name).into();
            if path.len() > LONGEST {
                return Err(too_long());
            }
            self.bytes += path.len() + 64;
            self.known.insert(ino, Rc::clone(&path));
        }
        Ok(path)
    }

    /// The path of a name.
    pub(super) fn path(&mut self, name: &Name) -> Result<Vec<u8>> {
        Ok(join(&self.dir(name.parent)?, &name.name))
    }

    /// The places of names, sorted by path.
    pub(super) fn places<'n>(&mut self, names: impl IntoIterator<Item = &'n Name>) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = names.into_iter().map(|n| Ok(Place { path: self.path(n)?, parent: n.parent })).collect::<Result<_>>()?;
        places.sort();
        Ok(places)
    }
}

fn too_long() -> Error {
    Error::new(Code::PathTooLong, format!("a path in the volume is longer than {LONGEST} bytes: shorten it"))
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
