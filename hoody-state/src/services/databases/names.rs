//! Restoring single names among a container's databases, while others use them.

use super::component::{DATABASES, Databases, volume_name};
use super::serve::IfServed;
use crate::catalog::Durability;
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::OperationId;
use crate::locked_db::NewNames;
use crate::model::DatabaseScope;
use crate::name::SnapshotName;
use crate::services::dirs::path_of;
use crate::snapshot::Volume;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a name waits for a database that somebody writes.
const PATIENCE: Duration = Duration::from_secs(5);

impl Databases {
    /// Makes names in `/hoody/databases` what they are in a snapshot: each database in one transaction, so that whoever has it open keeps it. `names` are
    /// relative to `/hoody/databases`; the results are in their order. `delete_new`: what is not in the snapshot goes. Call it under the lock of the databases.
    /// May be repeated. The clone under `op` is deleted again.
    pub(crate) fn restore_names(
        &self,
        row: &ContainerRow,
        snapshot: &SnapshotName,
        names: &[PathBuf],
        delete_new: bool,
        op: &OperationId,
    ) -> Result<Vec<Result<()>>> {
        let along = Volume::SnapshotDatabases(row.id.clone(), snapshot.clone());
        let project = row.spec.databases == DatabaseScope::Project && self.store.info(&along)?.is_some();
        let from = if project { along } else { Volume::Snapshot(row.id.clone(), snapshot.clone()) };
        let scratch = Volume::Staging(op.clone());
        // Logs of databases are taken in where they are, which a snapshot does not allow.
        self.store.clone_volume(&from, &scratch, op)?;
        let done = self.restore_from(row, &scratch, project, names, delete_new);
        let gone = self.store.delete(&scratch)?;
        self.records.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "a copy of databases that were restored"))?;
        done
    }

    fn restore_from(&self, row: &ContainerRow, scratch: &Volume, project: bool, names: &[PathBuf], delete_new: bool) -> Result<Vec<Result<()>>> {
        let unsupported = || Error::new(Code::FilesUnsupported, "this server keeps its volumes in memory: there are no databases to restore");
        let (Some(db), Some(at)) = (&self.db, self.store.path(scratch)) else { return Err(unsupported()) };
        let root = self.roots.path(&row.id);
        self.serve(row, root.as_deref(), IfServed::Keep)?;
        let wanted = if project { Some(at) } else { inner(&at)? };
        let Some(wanted) = wanted else {
            let missing = || Error::new(Code::FileNotFound, "the snapshot has no databases");
            return Ok(names.iter().map(|_| Err(missing())).collect());
        };
        let backing = match row.spec.databases {
            DatabaseScope::Project => self.store.path(&Volume::Databases(row.project.clone())),
            DatabaseScope::Private => root.as_deref().map(inner).transpose()?.flatten(),
        };
        let backing = backing.ok_or_else(|| Error::new(Code::FileNotFound, "the container has no databases"))?;
        let new = if delete_new { NewNames::Delete } else { NewNames::Keep };
        let failed = db.revert_names(&volume_name(row), (&wanted, &backing), names, new, PATIENCE)?;
        Ok(failed.into_iter().map(|errors| errors.into_iter().reduce(|a, b| a.context(b.message().to_owned())).map_or(Ok(()), Err)).collect())
    }
}

/// The directory of databases in a container's volume, along no link.
fn inner(root: &Path) -> Result<Option<PathBuf>> {
    let what = || format!("open the databases in {}", root.display());
    let dir = std::fs::File::open(root).io(what)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(dir, DATABASES.trim_start_matches('/'), flags, Mode::empty(), resolve) {
        Ok(dir) => path_of(&dir).map(Some),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(e) => Err(e).io(what),
    }
}
