//! The layout of a pool. Only this module turns a [`Volume`] into a path.

use crate::model::volume::Volume;
use std::path::PathBuf;

/// The directory of golden images.
pub const IMAGES: &str = "images";
/// The directory of containers.
pub const CONTAINERS: &str = "containers";
/// The directory of snapshots in a container's home.
pub const SNAPSHOTS: &str = "snapshots";
/// The directory of the databases saved with snapshots, in a container's home.
pub const DATABASES: &str = "databases";
/// The directory of projects.
pub const PROJECTS: &str = "projects";
/// The no-COW directory of the catalog.
pub const CATALOG: &str = "catalog";
/// Unfinished volumes, one directory for each operation.
pub const STAGING: &str = "staging";
/// An empty subvolume that is renamed to keep changes in order.
pub const BARRIER: &str = "barrier";
/// Homes of containers that are being deleted, one directory for each operation.
pub const TRASH: &str = "trash";
/// Consoles of containers, one file each.
pub const CONSOLES: &str = "consoles";
/// The record by which a pool of ours is recognised.
pub const RECORD: &str = "hoody-pool.json";

/// The volume's path, relative to the pool.
#[must_use]
pub fn path(v: &Volume) -> PathBuf {
    match v {
        Volume::Image(n) => PathBuf::from(IMAGES).join(n.dir_name()),
        Volume::Live(c) => PathBuf::from(CONTAINERS).join(c.as_str()).join("live"),
        Volume::Next(c) => PathBuf::from(CONTAINERS).join(c.as_str()).join("next"),
        Volume::Snapshot(c, n) => PathBuf::from(CONTAINERS).join(c.as_str()).join(SNAPSHOTS).join(n.as_str()),
        Volume::Databases(p) => PathBuf::from(PROJECTS).join(p.as_str()).join("databases"),
        Volume::SnapshotDatabases(c, n) => PathBuf::from(CONTAINERS).join(c.as_str()).join(DATABASES).join(n.as_str()),
        Volume::NextDatabases(c) => PathBuf::from(CONTAINERS).join(c.as_str()).join("next-databases"),
        Volume::Staging(o) => PathBuf::from(STAGING).join(o.as_str()).join("volume"),
    }
}
