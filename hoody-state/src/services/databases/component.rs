//! What the databases of all containers need, and their state.

use crate::catalog::containers::ContainerRow;
use crate::catalog::records::Records;
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::locked_db::{self, LockedDb};
use crate::model::{DatabaseScope, SnapshotDatabase};
use crate::name::SnapshotName;
use crate::rootfs::RootFs;
use crate::services::dirs::{ContainerDirs, path_of};
use crate::snapshot::{SnapshotStore, Volume};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where databases are in a container.
pub(crate) const DATABASES: &str = "/hoody/databases";

/// The name by which a container's databases are served.
pub(crate) fn volume_name(r: &ContainerRow) -> String {
    match r.spec.databases {
        DatabaseScope::Project => project_volume(&r.project),
        DatabaseScope::Private => private_volume(&r.id),
    }
}

pub(super) fn project_volume(p: &ProjectId) -> String {
    format!("project-{p}")
}

pub(super) fn private_volume(c: &ContainerId) -> String {
    format!("container-{c}")
}

/// Device and inode of a directory.
type Directory = (u64, u64);

/// The databases of all containers.
pub(crate) struct Databases {
    /// Nothing: containers have no databases.
    pub(super) db: Option<Arc<dyn LockedDb>>,
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) roots: Arc<dyn RootFs>,
    pub(super) records: Records,
    pub(super) dirs: ContainerDirs,
    /// The directories from which private databases are served, as far as this process has served them.
    served: Mutex<HashMap<ContainerId, Directory>>,
}

impl Databases {
    pub(crate) fn new(db: Option<Arc<dyn LockedDb>>, store: Arc<dyn SnapshotStore>, roots: Arc<dyn RootFs>, records: Records, dirs: ContainerDirs) -> Self {
        Databases { db, store, roots, records, dirs, served: Mutex::default() }
    }

    /// Who serves them, if containers have any.
    pub(crate) fn backend(&self) -> Option<&dyn LockedDb> {
        self.db.as_deref()
    }

    pub(super) fn served(&self) -> MutexGuard<'_, HashMap<ContainerId, Directory>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody uses them any more from here: what is served stays served.
    pub(crate) fn close(&self) {
        if let Some(d) = &self.db {
            d.close();
        }
    }

    /// Ends the waits for locks of processes that the kernel has been told to freeze. Best effort: the freeze itself fails if that mattered.
    pub(crate) fn end_lock_waits(&self, pids: &[i32]) {
        let Some(db) = &self.db else { return };
        match db.park(pids) {
            Ok(n) => tracing::debug!(waits = n, "waits for locks were ended for a freeze"),
            Err(e) => tracing::warn!(error = %e, "waits for locks could not be ended for a freeze"),
        }
    }

    /// The project's databases, if a snapshot of this container takes them along.
    pub(crate) fn taken_along(&self, r: &ContainerRow) -> Result<Option<Volume>> {
        if self.db.is_none() || r.spec.databases != DatabaseScope::Project {
            return Ok(None);
        }
        let volume = Volume::Databases(r.project.clone());
        Ok(self.store.info(&volume)?.map(|_| volume))
    }

    /// The databases in a snapshot, with their sizes (log included). Cost: a look at the first bytes of each file.
    pub(crate) fn in_snapshot(&self, id: &ContainerId, name: &SnapshotName) -> Result<Vec<SnapshotDatabase>> {
        let along = Volume::SnapshotDatabases(id.clone(), name.clone());
        let root = if self.store.info(&along)?.is_some() {
            self.store.path(&along)
        } else {
            self.store.path(&Volume::Snapshot(id.clone(), name.clone())).and_then(|p| {
                let root = std::fs::File::open(p).ok()?;
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
                let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                let dir = rustix::fs::openat2(root, "hoody/databases", flags, rustix::fs::Mode::empty(), resolve).ok()?;
                path_of(&dir).ok()
            })
        };
        let Some(root) = root else { return Ok(Vec::new()) };
        let files = match &self.db {
            Some(db) => db.databases_in(&root),
            None => locked_db::databases_in(&root),
        };
        let files = files.map_err(|e| e.context(format!("look for databases in snapshot {name} of container {id}")))?;
        let shown = |p: &Path| format!("{DATABASES}/{}", p.strip_prefix(&root).unwrap_or(p).display());
        Ok(files.iter().map(|f| SnapshotDatabase { path: shown(&f.path), size: f.size }).collect())
    }
}
