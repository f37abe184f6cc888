//! Directories of the host on their way into a container: the values that backends exchange.
//!
//! A share mount, the RAM disks and the databases each produce a [`MountSource`]; whoever puts a container together gives it a place as a [`Mount`]; any
//! runtime takes any [`Mount`]. None of them knows another.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a container sees the directories that others share with it: mounts below this place can be added and taken away while it runs.
pub const RECEIVED: &str = "/hoody/shares";

/// Where a container sees its own snapshots, each under its name.
pub const SNAPSHOTS: &str = "/hoody/snapshots";

/// Where a container sees the directory of its socket, if it has one.
pub const API_SOCKET: &str = "/hoody/api";

/// Tells one directory from another, and how it may be used. What is mounted is compared by it with what should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device of the directory.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Whether it is mounted so that nobody can write.
    pub read_only: bool,
}

/// A directory, resolved and held open but mounted nowhere yet: whatever is renamed meanwhile, it stays this directory. Cheap to clone.
#[derive(Clone)]
pub struct Tree {
    /// What it is.
    pub identity: Identity,
    dir: Option<Arc<OwnedFd>>,
}

impl Tree {
    /// An open directory (`O_PATH` is enough). The error is that of asking which it is.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn new(dir: OwnedFd, read_only: bool) -> io::Result<Self> {
        let identity = identity(dir.as_fd(), read_only)?;
        Ok(Tree { identity, dir: Some(Arc::new(dir)) })
    }

    /// A directory of a backend without files: no runtime mounts it.
    #[must_use]
    pub fn unmounted(identity: Identity) -> Self {
        Tree { identity, dir: None }
    }

    /// The open directory; `None` with backends without files.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_deref().map(AsFd::as_fd)
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The identity of an open directory.
pub(crate) fn identity(dir: BorrowedFd<'_>, read_only: bool) -> io::Result<Identity> {
    let s = rustix::fs::fstat(dir)?;
    Ok(Identity { device: s.st_dev, inode: s.st_ino, read_only })
}

/// What is mounted: a directory of the host.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// By its name on the host, resolved when it is mounted. A mount of it keeps the flags (`nodev`, `nosuid`, `noexec`) of the mount it is on.
    Path(PathBuf),
    /// Held open. A mount of it allows neither device nodes nor set-user-id bits.
    Tree(Tree),
}

impl MountSource {
    /// Opens the directory as a path (`O_PATH`); `None` with backends without files.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        use rustix::fs::{Mode, OFlags};
        match self {
            MountSource::Path(p) => Ok(Some(rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)),
            MountSource::Tree(t) => t.descriptor().map(|d| d.try_clone_to_owned()).transpose(),
        }
    }

    /// Its name on the host, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            MountSource::Path(p) => Some(p),
            MountSource::Tree(_) => None,
        }
    }
}

impl From<PathBuf> for MountSource {
    fn from(path: PathBuf) -> Self {
        MountSource::Path(path)
    }
}

impl From<Tree> for MountSource {
    fn from(tree: Tree) -> Self {
        MountSource::Tree(tree)
    }
}

/// A directory of the host at its place in a container.
#[derive(Debug, Clone)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where, as the container's processes name it: an absolute path. The directory is made if it is not there.
    pub target: String,
    /// Whether nobody, root included, can write through it.
    pub read_only: bool,
}

impl Mount {
    /// `source` at `target`. It is read-only if a [`Tree`] says so.
    #[must_use]
    pub fn new(source: impl Into<MountSource>, target: impl Into<String>) -> Self {
        let source = source.into();
        let read_only = matches!(&source, MountSource::Tree(t) if t.identity.read_only);
        Mount { source, target: target.into(), read_only }
    }

    /// The last part of its place: the name of a mount below [`RECEIVED`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.target.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_opened_by_name_and_by_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let by_name = Mount::new(dir.path().to_owned(), "/hoody/databases");
        assert!(!by_name.read_only);
        let tree = Tree::new(by_name.source.open().unwrap().unwrap(), true).unwrap();
        let by_descriptor = Mount::new(tree.clone(), format!("{RECEIVED}/a"));
        assert!(by_descriptor.read_only);
        assert_eq!(by_descriptor.name(), "a");
        let again = by_descriptor.source.open().unwrap().unwrap();
        assert_eq!(identity(again.as_fd(), true).unwrap(), tree.identity);
        assert!(MountSource::from(Tree::unmounted(tree.identity)).open().unwrap().is_none());
    }
}
