//! Nodes, which the kernel knows by number, and handles, which it has open.

use crate::backing_file::{BackingFile, SeenSyncs, SharedFiles};
use crate::connections::Connections;
use crate::descriptors::{Purpose, Taken};
use crate::locks::{Class, LockedFile};
use crate::nodes::NodeKind;
use crate::recognise::reopen;
use crate::volume::{Backing, Volume};
use fuser::BackingId;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub id: u64,
    /// A [`NodeKind`]: an ordinary file may become a database, and the other way round.
    kind: AtomicU8,
    pub volume: Arc<Volume>,
    /// Its backing and its descriptor. The root of a volume has none of its own: it is the present backing of the volume.
    own: Option<(Arc<Backing>, Arc<OwnedFd>)>,
    /// Its backing inode.
    key: Key,
    /// Where it was looked up last: the directory's node, and its name there.
    place: Mutex<(u64, OsString)>,
    /// Whether passthrough works for it.
    pub passes: bool,
    lookups: AtomicU64,
    /// What locks are taken on. All nodes of the inode share it.
    locked: Mutex<Option<Arc<LockedFile>>>,
    /// The kernel needs one backing id for each node while it is open.
    pub passthrough: Mutex<(usize, Option<Arc<BackingId>>)>,
    /// The opens that may be SQLite connections.
    pub connections: Connections,
    /// The descriptors that its opens share.
    pub files: SharedFiles,
    _taken: Taken,
}

/// A backing inode: the number of the backing, the device, the inode.
type Key = (u64, u64, u64);
/// Device, inode.
type Inode = (u64, u64);

impl Node {
    /// Its descriptor; ESTALE if its volume was removed or has another backing by now.
    pub fn path(&self) -> Result<Arc<OwnedFd>, Errno> {
        let current = self.volume.backing();
        if self.volume.is_removed() || self.own.as_ref().is_some_and(|(own, _)| !Arc::ptr_eq(&current, own)) {
            return Err(Errno::STALE);
        }
        Ok(self.own_path())
    }

    /// Its descriptor, even if its volume was removed: for open files.
    pub fn own_path(&self) -> Arc<OwnedFd> {
        self.own.as_ref().map_or_else(|| self.volume.backing().root.clone(), |(_, path)| path.clone())
    }

    /// The attributes of the inode, even if its volume was removed: for open files.
    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(&*self.own_path())
    }

    /// How long the kernel may cache these attributes. With passthrough a write clears set-user-id bits and the kernel does not notice; an empty file may become
    /// a database.
    pub fn attr_ttl(&self, stat: &Stat) -> std::time::Duration {
        let special = self.kind() == NodeKind::Plain && (stat.st_mode & 0o6000 != 0 || stat.st_size == 0);
        if special || self.is_database() { crate::nodes::NEVER } else { self.kind().policy().attr_ttl }
    }

    /// What it is now.
    pub fn kind(&self) -> NodeKind {
        NodeKind::from_byte(self.kind.load(Ordering::Relaxed))
    }

    pub fn set_kind(&self, kind: NodeKind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    /// Whether it is a database, judged by its content or by the locks that are taken on it.
    pub fn is_database(&self) -> bool {
        let by_locks = || self.locked.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|l| l.class() == Class::Database);
        match self.kind() {
            NodeKind::Database => true,
            NodeKind::Plain => by_locks(),
            _ => false,
        }
    }

    /// Where it was looked up last: the directory's node, and its name there.
    pub fn place(&self) -> (u64, OsString) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is open with passthrough now.
    pub fn is_open(&self) -> bool {
        self.passthrough.lock().unwrap_or_else(PoisonError::into_inner).0 > 0
    }

    pub fn backing(&self) -> Arc<Backing> {
        self.own.as_ref().map_or_else(|| self.volume.backing(), |(backing, _)| backing.clone())
    }
}

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub node: Arc<Node>,
    backing: Arc<BackingFile>,
    seen: SeenSyncs,
    pub read_only: bool,
    /// Whether the database cannot be written through it.
    pub reader: bool,
    pub passthrough: bool,
    /// Whether the connection of this database has opened its `-shm`.
    pub has_shm: AtomicBool,
}

impl Handle {
    pub fn new(node: Arc<Node>, backing: Arc<BackingFile>, read_only: bool, reader: bool, passthrough: bool) -> Self {
        let seen = backing.seen();
        Handle { node, backing, seen, read_only, reader, passthrough, has_shm: AtomicBool::default() }
    }

    pub fn file(&self) -> &File {
        self.backing.file()
    }

    /// Like `fsync` or `fdatasync` with a descriptor of its own.
    pub fn sync(&self, data_only: bool) -> Result<(), Errno> {
        self.backing.sync(data_only, &self.seen)
    }
}

/// Both tables. Lock order: `nodes`, then `elsewhere` or a node's `place`; `locked` by itself; never held during a system call.
#[derive(Debug, Default)]
pub(crate) struct Table {
    nodes: RwLock<HashMap<u64, Arc<Node>>>,
    /// By device and inode only: through every backing and volume, the same file has the same locks.
    locked: Mutex<HashMap<Inode, Weak<LockedFile>>>,
    /// The nodes of inodes whose own number is taken by another.
    elsewhere: Mutex<HashMap<Key, u64>>,
    handles: RwLock<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
    next_number: AtomicU64,
    next_locked: AtomicU64,
}

fn key(backing: &Backing, stat: &Stat) -> Key {
    (backing.index, stat.st_dev, stat.st_ino)
}

impl Table {
    pub fn node(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().ok_or(Errno::STALE)
    }

    /// Adds the node of the root directory of a volume, which lives as long as the volume.
    pub fn add_root(&self, volume: &Arc<Volume>) {
        let node = Node {
            id: volume.root_node,
            key: (volume.backing().index, 0, 0),
            place: Mutex::default(),
            kind: AtomicU8::new(NodeKind::Directory as u8),
            volume: volume.clone(),
            own: None,
            passes: false,
            lookups: AtomicU64::new(1 << 60),
            locked: Mutex::default(),
            passthrough: Mutex::default(),
            connections: Connections::default(),
            files: SharedFiles::default(),
            _taken: Taken::new(volume, Purpose::Known),
        };
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(volume.root_node, Arc::new(node));
    }

    /// Removes the node of the root directory of a volume. The other nodes stay until the kernel forgets them: it may still use their numbers, which must not mean
    /// anything else.
    pub fn remove_volume(&self, volume: &Volume) {
        volume.remove();
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(&volume.root_node);
    }

    /// A new number that no inode has.
    pub fn unused_number(&self) -> u64 {
        1 << 62 | (1 + self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// The node of a looked-up inode. It counts one more look-up.
    pub fn enter(&self, parent: &Node, name: &OsStr, kind: NodeKind, path: OwnedFd, stat: &Stat) -> Arc<Node> {
        let backing = parent.backing();
        let passes = backing.passes_to(stat.st_dev, &path);
        let key = key(&backing, stat);
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let id = {
            let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
            let number = elsewhere.get(&key).copied().unwrap_or_else(|| backing.number(stat.st_dev, stat.st_ino));
            if nodes.get(&number).is_some_and(|n| n.key != key) { *elsewhere.entry(key).or_insert_with(|| self.unused_number()) } else { number }
        };
        if let Some(node) = nodes.get(&id) {
            // Its descriptor guarantees that it is still the same inode.
            node.lookups.fetch_add(1, Ordering::Relaxed);
            node.set_kind(kind);
            *node.place.lock().unwrap_or_else(PoisonError::into_inner) = (parent.id, name.to_owned());
            return node.clone();
        }
        let node = Arc::new(Node {
            id,
            key,
            place: Mutex::new((parent.id, name.to_owned())),
            kind: AtomicU8::new(kind as u8),
            volume: parent.volume.clone(),
            own: Some((backing, Arc::new(path))),
            passes,
            lookups: AtomicU64::new(1),
            locked: Mutex::default(),
            passthrough: Mutex::default(),
            connections: Connections::default(),
            files: SharedFiles::default(),
            _taken: Taken::new(&parent.volume, Purpose::Known),
        });
        nodes.insert(id, node.clone());
        node
    }

    /// The node of an inode below the backing of another node.
    pub fn by_inode(&self, beside: &Node, stat: &Stat) -> Option<Arc<Node>> {
        let backing = beside.backing();
        let key = key(&backing, stat);
        let number = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let number = number.unwrap_or_else(|| backing.number(stat.st_dev, stat.st_ino));
        self.node(number).ok().filter(|n| n.key == key)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Up to `most` names (with the nodes of their directories) of files that are not open, from the volume that has the most, so that a busy volume does not
    /// displace the names of others.
    pub fn unused(&self, most: usize) -> Vec<(u64, OsString)> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let largest = nodes.values().map(|n| &n.volume).max_by_key(|v| v.usage.all()).map(|v| v.id);
        let unused = nodes.values().filter(|n| Some(n.volume.id) == largest && n.kind() != NodeKind::Directory && Arc::strong_count(n) == 1);
        unused.take(most).map(|n| n.place()).collect()
    }

    /// The names (with the nodes of their directories) of all files of a backing that the kernel knows.
    pub fn names_of(&self, backing: &Arc<Backing>) -> Vec<(u64, OsString)> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let of = nodes.values().filter(|n| n.own.as_ref().is_some_and(|(own, _)| Arc::ptr_eq(own, backing)));
        of.map(|n| n.place()).collect()
    }

    /// Counts one more look-up of an existing node.
    pub fn enter_again(&self, id: u64) -> Option<Arc<Node>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let node = nodes.get(&id)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(node.clone())
    }

    pub fn forget(&self, id: u64, count: u64) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(node) = nodes.get(&id) else { return };
        if node.id != node.volume.root_node && node.lookups.fetch_sub(count, Ordering::Relaxed) <= count {
            let gone = nodes.remove(&id);
            if let Some(node) = &gone {
                let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
                if elsewhere.get(&node.key) == Some(&id) {
                    elsewhere.remove(&node.key);
                }
            }
        }
    }

    /// What locks on a file are taken on, if the file was looked up.
    pub fn locked_by_inode(&self, dev: u64, ino: u64) -> Option<Arc<LockedFile>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner).get(&(dev, ino)).and_then(Weak::upgrade)
    }

    /// What locks on the file of a node are taken on.
    pub fn locked(&self, node: &Node) -> Result<Arc<LockedFile>, Errno> {
        let mut slot = node.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(l) = &*slot {
            return Ok(l.clone());
        }
        let path = node.own_path();
        let stat = rustix::fs::fstat(&*path)?;
        // If it can be written, read marks are moved through it and locks are held on it.
        let writable = matches!(node.kind(), NodeKind::Database | NodeKind::Shm).then(|| reopen(&path, OFlags::RDWR).ok()).flatten();
        let fd = writable.map_or_else(|| reopen(&path, OFlags::RDONLY), Ok)?;
        let class = match node.kind() {
            NodeKind::Database => Class::Database,
            NodeKind::Shm => Class::Shm,
            _ => Class::Plain,
        };
        let mut all = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (stat.st_dev, stat.st_ino);
        let file = match all.get(&key).and_then(Weak::upgrade) {
            Some(file) => {
                if class != Class::Plain {
                    file.set_class(class);
                }
                // From now on it is quiesced with this volume.
                file.volume.store(node.volume.id, Ordering::Relaxed);
                file
            }
            None => {
                let id = self.next_locked.fetch_add(1, Ordering::Relaxed);
                let file = Arc::new(LockedFile {
                    id,
                    volume: AtomicU64::new(node.volume.id),
                    class: Mutex::new(class),
                    fd,
                    place: Mutex::default(),
                    has_ordinary_locks: AtomicBool::default(),
                    _taken: Some(Taken::new(&node.volume, Purpose::Known)),
                    mirror: Default::default(),
                });
                if all.len() > 64 && all.len().is_power_of_two() {
                    all.retain(|_, w| w.strong_count() > 0);
                }
                all.insert(key, Arc::downgrade(&file));
                file
            }
        };
        *slot = Some(file.clone());
        Ok(file)
    }

    /// The same, but only if locks were requested before.
    pub fn locked_already(&self, node: &Node) -> Option<Arc<LockedFile>> {
        node.locked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add_handle(&self, handle: Handle) -> u64 {
        let fh = 1 + self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(fh, Arc::new(handle));
        fh
    }

    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>, Errno> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&fh).cloned().ok_or(Errno::BADF)
    }

    pub fn remove_handle(&self, fh: u64) -> Option<Arc<Handle>> {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&fh)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A node's number has room for 2^40 inodes: two that differ above that were one file, and one's data were written into the other.
    #[test]
    fn an_inode_whose_number_stands_for_another_gets_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new(OsString::new(), 1, 1, Backing::open(dir.path()).unwrap());
        let table = Table::default();
        table.add_root(&volume);
        let root = table.node(1).unwrap();
        let enter = |ino: u64| {
            let path = OwnedFd::from(File::open(dir.path()).unwrap());
            let mut stat = rustix::fs::fstat(&path).unwrap();
            stat.st_ino = ino;
            table.enter(&root, "x".as_ref(), NodeKind::Plain, path, &stat).id
        };
        let (small, large) = (enter(300), enter(300 | 1 << 40));
        assert_ne!(small, large);
        assert_eq!((enter(300), enter(300 | 1 << 40)), (small, large), "each keeps its own");
        table.forget(large, 2);
        assert!(table.elsewhere.lock().unwrap().is_empty(), "and is forgotten with it");
        table.forget(small, 2);
        let again = enter(300 | 1 << 40);
        assert_eq!(again, small, "a number that stands for nothing is free");
    }
}
