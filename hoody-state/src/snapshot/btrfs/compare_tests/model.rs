//! A tree as a program sees it, and records applied to it by the rules of `diff/mod.rs`, without any code of the comparison.

use crate::diff::{Field, FileType, Kind, Record};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

pub(super) type Ref = Rc<RefCell<Node>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Directory(BTreeMap<Vec<u8>, RefEq>),
    /// The bytes of a file, or the target of a link.
    Bytes(Rc<Vec<u8>>),
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) struct RefEq(pub(super) Ref);

impl PartialEq for RefEq {
    fn eq(&self, other: &Self) -> bool {
        *self.0.borrow() == *other.0.borrow()
    }
}

impl Eq for RefEq {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) format: u32,
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    flags: u32,
    device: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) content: Content,
}

/// Reads a tree. Times of directories are left out unless `times`.
pub(super) fn read(root: &Path, times: bool) -> Ref {
    read_at(root, times, &mut HashMap::new())
}

fn read_at(path: &Path, times: bool, known: &mut HashMap<(u64, u64), Ref>) -> Ref {
    let m = std::fs::symlink_metadata(path).unwrap();
    if let (Some(node), false) = (known.get(&(m.dev(), m.ino())), m.is_dir()) {
        return Rc::clone(node);
    }
    let content = if m.is_dir() {
        let mut entries = BTreeMap::new();
        for e in std::fs::read_dir(path).unwrap() {
            let e = e.unwrap();
            entries.insert(e.file_name().into_vec(), RefEq(read_at(&e.path(), times, known)));
        }
        Content::Directory(entries)
    } else if m.is_symlink() {
        Content::Bytes(Rc::new(std::fs::read_link(path).unwrap().into_os_string().into_vec()))
    } else if m.is_file() {
        Content::Bytes(Rc::new(std::fs::read(path).unwrap()))
    } else {
        Content::Nothing
    };
    // The kernel gives a file that does not compress well the flag for that, when it writes it out, and then hides the flag for compression (4).
    let flags = match m.is_file() || m.is_dir() {
        true => rustix::fs::ioctl_getflags(std::fs::File::open(path).unwrap()).unwrap().bits() & !0x404,
        false => 0,
    };
    let node = Node {
        format: m.mode() & 0o170_000,
        mode: m.mode() & 0o7777,
        uid: m.uid(),
        gid: m.gid(),
        mtime: if m.is_dir() && !times { (0, 0) } else { (m.mtime(), m.mtime_nsec()) },
        flags,
        device: m.rdev(),
        xattrs: xattrs(path),
        content,
    };
    let node = Rc::new(RefCell::new(node));
    known.insert((m.dev(), m.ino()), Rc::clone(&node));
    node
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let n = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..n].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"trusted.hoody."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let n = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
        value[..n].to_vec()
    };
    // Shown shorter when a test fails.
    let short = |value: Vec<u8>| if value.len() > 32 { format!("{} bytes, {:x}", value.len(), crc32c::crc32c(&value)).into_bytes() } else { value };
    names.map(|n| (n.to_vec(), short(value(n)))).collect()
}

fn find(root: &Ref, path: &[u8]) -> Option<Ref> {
    let mut at = Rc::clone(root);
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
        let next = match &at.borrow().content {
            Content::Directory(entries) => Rc::clone(&entries.get(name)?.0),
            _ => return None,
        };
        at = next;
    }
    Some(at)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|b| *b == b'/').map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]))
}

pub(super) fn show(path: &[u8]) -> String {
    // Long names consist of one letter.
    let mut short: Vec<u8> = path.to_vec();
    short.dedup_by(|x, y| x == y && x.is_ascii_lowercase());
    String::from_utf8_lossy(&short).replace('\n', "↵")
}

/// Takes a name out of a tree.
fn take(root: &Ref, path: &[u8]) -> Result<Ref, String> {
    let (dir, name) = split(path);
    let dir = find(root, dir).ok_or_else(|| format!("{}: the old tree has no such directory", show(path)))?;
    let Content::Directory(entries) = &mut dir.borrow_mut().content else { return Err(format!("{}: not in a directory", show(path))) };
    entries.remove(name).map(|e| e.0).ok_or_else(|| format!("{}: the old tree has no such name", show(path)))
}

fn put(root: &Ref, path: &[u8], node: Ref) -> Result<(), String> {
    let (dir, name) = split(path);
    let dir = find(root, dir).ok_or_else(|| format!("{}: its directory is not there yet", show(path)))?;
    let Content::Directory(entries) = &mut dir.borrow_mut().content else { return Err(format!("{}: not in a directory", show(path))) };
    match entries.insert(name.to_vec(), RefEq(node)) {
        None => Ok(()),
        Some(_) => Err(format!("{}: the name is taken", show(path))),
    }
}

fn is_empty(node: &Ref) -> bool {
    !matches!(&node.borrow().content, Content::Directory(entries) if !entries.is_empty())
}

/// Applies records to the tree `a`, with content and metadata from `b` where a record says that they differ.
pub(super) fn apply(a: &Ref, b: &Ref, records: &[Record]) -> Result<(), String> {
    // 1. Out of the old tree, deeper paths first.
    let mut out: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
    for r in records {
        if r.kind == Kind::Deleted || r.replaces.is_some() {
            out.push((&r.path, None));
        }
        if let Kind::Renamed { from } = &r.kind {
            out.push((from, Some(&r.path)));
        }
    }
    let depth = |p: &[u8]| p.iter().filter(|b| **b == b'/').count();
    out.sort_by_key(|(p, _)| std::cmp::Reverse(depth(p)));
    let mut kept: HashMap<&[u8], Ref> = HashMap::new();
    for (path, to) in out {
        let node = take(a, path)?;
        match to {
            Some(to) => drop(kept.insert(to, node)),
            None if is_empty(&node) => {}
            None => return Err(format!("{}: a directory that goes is not empty", show(path))),
        }
    }
    // 2. Into the new tree.
    let mut links = Vec::new();
    for r in records {
        let makes = matches!(r.kind, Kind::Added) || r.replaces.is_some();
        if let Kind::Renamed { .. } = r.kind {
            put(a, &r.path, kept.remove(r.path.as_slice()).ok_or("renamed twice")?)?;
        } else if makes && let Some(of) = &r.link_of {
            links.push((&r.path, of));
        } else if makes && r.kind != Kind::Deleted {
            let from = find(b, &r.path).ok_or_else(|| format!("{}: not in the new tree", show(&r.path)))?;
            let mut node = from.borrow().clone();
            if let Content::Directory(entries) = &mut node.content {
                entries.clear();
            }
            put(a, &r.path, Rc::new(RefCell::new(node)))?;
        }
    }
    for (path, of) in links {
        let node = find(a, of).ok_or_else(|| format!("{}: a link to {}, which is not there", show(path), show(of)))?;
        put(a, path, node)?;
    }
    // 3. Content and metadata.
    for r in records.iter().filter(|r| r.kind != Kind::Deleted && r.link_of.is_none()) {
        let (Some(to), Some(from)) = (find(a, &r.path), find(b, &r.path)) else { return Err(format!("{}: in one tree only", show(&r.path))) };
        set(&mut to.borrow_mut(), &from.borrow(), r);
    }
    Ok(())
}

fn set(to: &mut Node, from: &Node, r: &Record) {
    if r.content {
        to.content.clone_from(&from.content);
        to.mtime = from.mtime;
    }
    for field in &r.fields {
        let xattr = match field {
            Field::Mode => {
                to.mode = from.mode;
                continue;
            }
            Field::Uid => {
                to.uid = from.uid;
                continue;
            }
            Field::Gid => {
                to.gid = from.gid;
                continue;
            }
            Field::Mtime => {
                to.mtime = from.mtime;
                continue;
            }
            Field::Flags => {
                to.flags = from.flags;
                continue;
            }
            Field::Device => {
                to.device = from.device;
                continue;
            }
            Field::Atime => continue,
            Field::Acl => b"system.posix_acl_access".to_vec(),
            Field::DefaultAcl => b"system.posix_acl_default".to_vec(),
            Field::Xattr(name) => name.clone(),
        };
        match from.xattrs.get(&xattr) {
            Some(value) => drop(to.xattrs.insert(xattr, value.clone())),
            None => drop(to.xattrs.remove(&xattr)),
        }
    }
}

/// Which paths lead to one object, for objects with several.
fn links(root: &Ref) -> Vec<Vec<Vec<u8>>> {
    fn walk(node: &Ref, path: &[u8], found: &mut HashMap<*const RefCell<Node>, Vec<Vec<u8>>>) {
        if let Content::Directory(entries) = &node.borrow().content {
            for (name, child) in entries {
                walk(&child.0, &[path, b"/", name].concat(), found);
            }
        } else {
            found.entry(Rc::as_ptr(node)).or_default().push(path.to_vec());
        }
    }
    let mut found = HashMap::new();
    walk(root, b"", &mut found);
    let mut groups: Vec<Vec<Vec<u8>>> = found.into_values().filter(|g| g.len() > 1).collect();
    groups.sort();
    groups
}

/// The first difference between two trees.
pub(super) fn difference(a: &Ref, b: &Ref) -> Option<String> {
    fn walk(a: &Ref, b: &Ref, path: &[u8]) -> Option<String> {
        let (x, y) = (a.borrow(), b.borrow());
        let plain = |n: &Node| Node { content: Content::Nothing, ..n.clone() };
        if plain(&x) != plain(&y) {
            return Some(format!("{}: {:?} instead of {:?}", show(path), plain(&x), plain(&y)));
        }
        match (&x.content, &y.content) {
            (Content::Directory(p), Content::Directory(q)) => {
                let names: std::collections::BTreeSet<_> = p.keys().chain(q.keys()).collect();
                names.into_iter().find_map(|n| {
                    let path = [path, b"/", n].concat();
                    match (p.get(n), q.get(n)) {
                        (Some(x), Some(y)) => walk(&x.0, &y.0, &path),
                        (Some(_), None) => Some(format!("{}: is left over", show(&path))),
                        _ => Some(format!("{}: is missing", show(&path))),
                    }
                })
            }
            (p, q) => (p != q).then(|| format!("{}: its content differs", show(path))),
        }
    }
    walk(a, b, b"").or_else(|| (links(a) != links(b)).then(|| format!("links: {:?} instead of {:?}", links(a), links(b))))
}

pub(super) fn type_of(root: &Ref, path: &[u8]) -> Option<FileType> {
    let node = find(root, path)?;
    let format = node.borrow().format;
    Some(match format {
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        0o020_000 => FileType::CharDevice,
        0o060_000 => FileType::BlockDevice,
        _ => FileType::File,
    })
}
