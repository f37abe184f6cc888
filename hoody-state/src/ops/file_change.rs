//! What changes of single files in a live volume have in common: which container, which directory, which file, and the name that something has meanwhile.

use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId};
use crate::model::{FileCondition, Status};
use crate::services::files::{Files, check_reached, version};
use crate::tree::{Node, Place, Root, TreePath, View, percent_encoded};
use crate::world::World;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A name in a directory of a live volume. Whoever holds the container's lock knows that the volume stays the live one.
pub(super) struct Target {
    pub root: Root,
    dir: OwnedFd,
    name: CString,
}

impl Target {
    /// Finds the directory; links in its path are followed inside the container. Errors: those of a look-up, and of [`Files::writable`], also for where links
    /// lead to.
    pub(super) fn find(world: &World, row: &ContainerRow, path: &TreePath) -> Result<Self> {
        let root = files(world).writable(row, path)?;
        let (dir, name) = root.parent(path)?;
        check_reached(&root, dir.as_fd(), name)?;
        Self::new(root, &dir, name)
    }

    fn new(root: Root, dir: &OwnedFd, name: &[u8]) -> Result<Self> {
        let name = c_string(name)?;
        // What is removed in it is found again by the numbers of directories, which a look-up alone does not give.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(dir, ".", flags, Mode::empty()).map_err(|e| Error::io("open a directory of a container", e))?;
        Ok(Target { root, dir, name })
    }

    /// The same for recovery, which finishes what had been allowed; `None` if the directory is gone.
    pub(super) fn again(world: &World, container: &ContainerId, dir: &str, name: &str) -> Result<Option<Self>> {
        let volume = crate::snapshot::Volume::Live(container.clone());
        let found = world.store.open(&volume).map(Root::new).and_then(|root| {
            let path = TreePath::decode(&format!("{dir}/{name}"))?;
            let (dir, name) = root.parent(&path)?;
            Self::new(root, &dir, name)
        });
        match found {
            Err(e) if matches!(e.code(), Code::VolumeNotFound | Code::FileNotFound | Code::NotADirectory | Code::FilesUnsupported) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place::new(self.dir.as_fd(), &self.name)
    }

    pub(super) fn beside<'a>(&'a self, name: &'a CStr) -> Place<'a> {
        Place::new(self.dir.as_fd(), name)
    }

    /// What has the name now; a link is not followed.
    pub(super) fn node(&self) -> Result<Option<Node>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(fd) => Node::new(fd).map(Some).map_err(|e| Error::io("look at a file of a container", e)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("look at a file of a container", e)),
        }
    }
}

pub(super) fn files(world: &World) -> Files<'_> {
    Files { store: &*world.store, databases: &world.databases, view: View { id_base: world.id_base } }
}

fn c_string(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::internal("a name that was checked has a NUL"))
}

/// The name of what an operation is about to put in its place, or has taken away: no other operation has it.
pub(super) fn temporary(op: &OperationId) -> Result<CString> {
    c_string(format!(".hoody-{op}").as_bytes())
}

/// The directory and the name of a path, as an intent has them.
pub(super) fn encoded_parts(path: &TreePath) -> Result<(String, String)> {
    let (dir, name) = path.split().ok_or_else(|| Error::internal("the root has no name"))?;
    Ok((percent_encoded(dir.as_bytes()), percent_encoded(name)))
}

/// A container whose files may be changed now. Errors: `container_not_found`, `operation_state_conflict`.
pub(super) fn changeable_container(world: &World, id: &ContainerId) -> Result<ContainerRow> {
    let row = world.read(|c| containers::get(c, id))?;
    if matches!(row.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
        return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: its files cannot be changed", row.status)));
    }
    super::copied::require_complete(&row)?;
    Ok(row)
}

/// Whether the file is the one that is meant. Error: `precondition_failed`.
pub(super) fn check_condition(condition: &FileCondition, path: &TreePath, now: Option<&Node>) -> Result<()> {
    let is = now.map(|n| version(&n.meta));
    let refuse = |why: String| Err(Error::new(Code::PreconditionFailed, format!("{}: {why}; nothing was changed", path.shown())));
    if condition.if_none && is.is_some() {
        return refuse("there is something at this path already".into());
    }
    match (&condition.if_match, &is) {
        (None, _) => Ok(()),
        (Some(_), None) => refuse("there is nothing at this path".into()),
        (Some(any), Some(is)) if any.iter().any(|v| v == "*" || v == is) => Ok(()),
        (Some(_), Some(is)) => refuse(format!("its version is {is} by now")),
    }
}
