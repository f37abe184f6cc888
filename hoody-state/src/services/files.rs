//! Files of a container: which volume has a path, and how the wire shows what is there.

use super::databases::{DATABASES, Databases};
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, Result};
use crate::model::FileEntry;
use crate::model::mount::SNAPSHOTS;
use crate::name::SnapshotName;
use crate::snapshot::{SnapshotStore, Volume};
use crate::tree::{Kind, Last, Meta, Node, Root, Time, TreePath, View, encoded, shown};
use jiff::Timestamp;
use serde_json::json;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What a running container has mounted over its volume: nothing that is written there is in the volume.
pub(crate) const MOUNTED: [&str; 6] = ["/proc", "/sys", "/dev", "/ramdisk", "/hoody/shares", SNAPSHOTS];

/// A volume of a container, and a path in it.
pub(crate) struct Place {
    pub root: Root,
    pub path: TreePath,
}

/// What reads and shows the files of containers.
pub(crate) struct Files<'a> {
    pub store: &'a dyn SnapshotStore,
    pub databases: &'a Databases,
    pub view: View,
}

impl Files<'_> {
    /// The open volume that has `path`, in a snapshot or now. Errors: `snapshot_not_found`, `not_in_volume`, `files_unsupported`;
    /// `operation_state_conflict` for a container without a live volume.
    pub(crate) fn place(&self, row: &ContainerRow, snapshot: Option<&SnapshotName>, path: &TreePath) -> Result<Place> {
        let databases = if below(path, DATABASES).is_some() { self.project_databases(row, snapshot)? } else { None };
        self.place_in(row, snapshot, (&own_volume(row, snapshot), databases.as_ref()), path)
    }

    /// The same in given volumes: the container's own, and the project's databases.
    pub(crate) fn place_in(
        &self,
        row: &ContainerRow,
        snapshot: Option<&SnapshotName>,
        (own, databases): (&Volume, Option<&Volume>),
        path: &TreePath,
    ) -> Result<Place> {
        if let Some(at) = MOUNTED.iter().find(|at| below(path, at).is_some()) {
            let message = format!("{at} is mounted in the running container: what is at {} is in no volume and no snapshot", path.shown());
            return Err(Error::new(Code::NotInVolume, message));
        }
        if let (Some(rest), Some(volume)) = (below(path, DATABASES), databases) {
            return Ok(Place { root: self.open(row, snapshot, volume)?, path: rest });
        }
        Ok(Place { root: self.open(row, snapshot, own)?, path: path.clone() })
    }

    /// The volume of the project's databases, as the snapshot has them or as they are now; `None` if the container has none or its own.
    pub(crate) fn project_databases(&self, row: &ContainerRow, snapshot: Option<&SnapshotName>) -> Result<Option<Volume>> {
        match snapshot {
            None => self.databases.taken_along(row),
            Some(name) => {
                let along = Volume::SnapshotDatabases(row.id.clone(), name.clone());
                match self.store.open(&along) {
                    Ok(_) => Ok(Some(along)),
                    Err(e) if e.code() == Code::VolumeNotFound => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }

    pub(crate) fn open(&self, row: &ContainerRow, snapshot: Option<&SnapshotName>, volume: &Volume) -> Result<Root> {
        self.store.open(volume).map(Root::new).map_err(|e| match (e.code(), snapshot) {
            (Code::VolumeNotFound, Some(name)) => Error::new(Code::SnapshotNotFound, format!("snapshot {name} of container {} was deleted", row.id)),
            (Code::VolumeNotFound, None) => Error::new(Code::OperationStateConflict, format!("container {} is {}: it has no files now", row.id, row.status)),
            _ => e,
        })
    }

    /// The open live volume, for a change of what stands at `path`. Errors: those of [`Files::place`]; `database_file`; `not_in_volume` also for what has
    /// something mounted in it; `invalid_path` for the root.
    pub(crate) fn writable(&self, row: &ContainerRow, path: &TreePath) -> Result<Root> {
        if path.is_root() {
            return Err(Error::new(Code::InvalidPath, "/ itself is neither written nor deleted: name something in it"));
        }
        changeable(path)?;
        let root = self.open(row, None, &own_volume(row, None))?;
        Ok(root)
    }

    /// An id of the container on the host. Error: `validation_error` for one that it does not have.
    pub(crate) fn on_host(&self, field: &str, id: u32) -> Result<u32> {
        let refuse = || {
            Error::new(Code::ValidationError, format!("{field} {id} is out of range: a container has the ids 0 to 65535")).with_data(json!({ "field": field }))
        };
        self.view.on_host(id).ok_or_else(refuse)
    }

    /// What was found, as the wire shows it. `path` is where, as the container sees it. Error: that of reading a link.
    pub(crate) fn entry(&self, path: &TreePath, node: &Node) -> Result<FileEntry> {
        let m = &node.meta;
        let name = path.split().map_or_else(|| b"/".to_vec(), |(_, name)| name.to_vec());
        let target = if m.kind == Kind::Symlink { Some(node.target()?) } else { None };
        Ok(FileEntry {
            name: shown(&name),
            name_encoded: encoded(&name),
            kind: m.kind.as_str().to_owned(),
            size: m.size,
            allocated: m.allocated,
            mode: format!("{:04o}", m.mode),
            uid: self.view.id(m.uid),
            gid: self.view.id(m.gid),
            mtime: rfc3339(m.modified),
            links: m.links,
            target: target.as_deref().map(shown),
            target_encoded: target.as_deref().and_then(encoded),
            device: matches!(m.kind, Kind::CharDevice | Kind::BlockDevice).then(|| format!("{}:{}", m.special.0, m.special.1)),
            mounted: MOUNTED.iter().any(|at| path.absolute() == at.as_bytes()),
            version: version(m),
        })
    }
}

impl Place {
    /// What is there. Error: `file_not_found`, `not_a_directory`.
    pub(crate) fn find(&self, last: Last) -> Result<Node> {
        self.root.find(&self.path, last)
    }
}

/// The path of a container's databases, if a directory has them in it.
pub(crate) fn databases_in(dir: &TreePath) -> Option<TreePath> {
    let databases = TreePath::new(DATABASES.as_bytes()).ok()?;
    databases.beneath(dir).filter(|rest| !rest.is_root()).map(|_| databases)
}

/// Refuses changes of databases, and of what is mounted in a running container. `path` has no links in it.
fn changeable(path: &TreePath) -> Result<()> {
    let guarded = |at: &str| below(path, at).is_some() || TreePath::new(at.as_bytes()).is_ok_and(|at| at.beneath(path).is_some());
    if guarded(DATABASES) {
        return Err(Error::new(Code::DatabaseFile, format!("{} is {DATABASES}, in it or above it: databases are not changed as plain files", path.shown())));
    }
    match MOUNTED.iter().find(|at| guarded(at)) {
        None => Ok(()),
        Some(at) => Err(Error::new(Code::NotInVolume, format!("{} is {at}, in it or above it: what is mounted there is in no volume", path.shown()))),
    }
}

/// Refuses a directory that links have led to and in which nothing may be changed. Error: as [`Files::writable`]; `file_not_found` when it was removed.
pub(crate) fn check_reached(root: &Root, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let gone = || Error::new(Code::FileNotFound, "the directory was removed or moved meanwhile");
    let real = |fd: BorrowedFd<'_>| {
        let text = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        text.map(std::ffi::CString::into_bytes).map_err(|e| Error::io("ask where a directory is", e))
    };
    let (above, at) = (real(root.as_fd())?, real(dir)?);
    // A container that was deleted or exchanged meanwhile has another path, and the caller looks for that itself.
    let rest = at.strip_prefix(&above[..]).filter(|rest| rest.is_empty() || rest.starts_with(b"/")).ok_or_else(gone)?;
    changeable(&TreePath::new(rest).map_err(|_| gone())?.join(name))
}

pub(crate) fn own_volume(row: &ContainerRow, snapshot: Option<&SnapshotName>) -> Volume {
    match snapshot {
        Some(name) => Volume::Snapshot(row.id.clone(), name.clone()),
        None => Volume::Live(row.id.clone()),
    }
}

/// What is left of a path beneath a directory that is written as text.
pub(crate) fn below(path: &TreePath, dir: &str) -> Option<TreePath> {
    path.beneath(&TreePath::new(dir.as_bytes()).ok()?)
}

/// What a file is, as long as neither its data nor its attributes change. A snapshot, a restore and a clone keep it: the inode and its times are the same.
pub(crate) fn version(m: &Meta) -> String {
    format!("{:x}-{:x}.{:x}-{:x}", m.inode, m.changed.seconds, m.changed.nanoseconds, m.size)
}

pub(crate) fn timestamp(t: Time) -> Option<Timestamp> {
    Timestamp::new(t.seconds, i32::try_from(t.nanoseconds).ok()?).ok()
}

fn rfc3339(t: Time) -> Option<String> {
    timestamp(t).map(|t| format!("{t:.9}"))
}
