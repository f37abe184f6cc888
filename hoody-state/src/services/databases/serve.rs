//! Serving databases, from the project's volume or from the container's own.

use super::component::{DATABASES, Databases, private_volume, project_volume, volume_name};
use crate::catalog::Durability;
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::{ContainerId, ProjectId};
use crate::locked_db::LockedDb;
use crate::model::DatabaseScope;
use crate::model::mount::{Mount, MountSource};
use crate::runtime::Runtime;
use crate::services::dirs::path_of;
use crate::snapshot::Volume;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits for the daemon of the databases, which is being started again.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of private databases that are served already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfServed {
    /// They are served as before, whatever directory the container has now.
    Keep,
    /// They are served from the directory that is there now. Only while nothing of their container runs.
    Exchange,
}

/// Databases that answered.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What a container mounts.
    pub source: MountSource,
    volume: String,
    /// Another daemon begins another.
    session: u64,
}

impl Databases {
    /// Whether what served these has ended since: a container that mounted them sees nothing of them.
    pub(crate) fn ended(&self, served: &Served) -> bool {
        self.db.as_ref().is_none_or(|db| db.session(&served.volume).ok() != Some(served.session))
    }

    /// Serves a container's databases; where they are on the host. `root` is the container's volume. Nothing on a host without databases or without files.
    pub(crate) fn serve(&self, r: &ContainerRow, root: Option<&Path>, how: IfServed) -> Result<Option<PathBuf>> {
        let (Some(db), Some(root)) = (&self.db, root) else { return Ok(None) };
        match r.spec.databases {
            DatabaseScope::Project => self.serve_project(&**db, &r.project),
            DatabaseScope::Private => self.serve_private(&**db, &r.id, root, how).map(Some),
        }
    }

    fn serve_project(&self, db: &dyn LockedDb, project: &ProjectId) -> Result<Option<PathBuf>> {
        let volume = Volume::Databases(project.clone());
        let Some(backing) = self.store.path(&volume) else { return Ok(None) };
        if self.store.info(&volume)?.is_none() {
            match self.store.create(&volume) {
                Err(e) if e.code() != Code::VolumeExists => return Err(e),
                _ => {}
            }
        }
        self.dirs.give_new(&backing)?;
        let name = project_volume(project);
        match db.add_volume(&name, &backing) {
            Err(e) if e.code() != Code::VolumeExists => return Err(e),
            _ => {}
        }
        Ok(Some(db.path(&name)))
    }

    fn serve_private(&self, db: &dyn LockedDb, id: &ContainerId, root: &Path, how: IfServed) -> Result<PathBuf> {
        let Some(dir) = self.dirs.open_or_make(root, &["hoody", "databases"])? else {
            return Err(Error::new(Code::StartFailed, format!("{DATABASES} of container {id} is no directory: make it one, or remove it")));
        };
        let (name, backing) = (private_volume(id), path_of(&dir)?);
        let here = rustix::fs::fstat(&dir).map(|d| (d.st_dev, d.st_ino)).io(|| format!("look at {}", backing.display()))?;
        let was = self.served().get(id).copied();
        match db.add_volume(&name, &backing) {
            // An exchange takes what is open from those who have it open: only where it is another directory.
            Err(e) if e.code() == Code::VolumeExists && (how == IfServed::Keep || was == Some(here)) => return Ok(db.path(&name)),
            Err(e) if e.code() == Code::VolumeExists => db.rebind(&name, &backing)?,
            added => drop(added?),
        }
        self.served().insert(id.clone(), here);
        Ok(db.path(&name))
    }

    /// As [`Databases::serve`], once they answer: a daemon that has just died is being started again. Error: `databases_unavailable`.
    pub(crate) fn serve_and_wait(&self, r: &ContainerRow, root: Option<&Path>, how: IfServed) -> Result<Option<Served>> {
        let end = Instant::now() + DAEMON_PATIENCE;
        loop {
            let served = self.serve(r, root, how).and_then(|at| match (at, &self.db) {
                (Some(_), Some(db)) => {
                    let volume = volume_name(r);
                    Ok(Some(Served { source: db.mount_source(&volume), session: db.session(&volume)?, volume }))
                }
                _ => Ok(None),
            });
            match served {
                Err(e) if e.code() == Code::DatabasesUnavailable && Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                r => return r,
            }
        }
    }

    /// Serves a container's databases and mounts them where it runs, in the place of those of a daemon that has died. A failure is logged.
    pub(crate) fn remount(&self, r: &ContainerRow, runtime: &dyn Runtime) {
        let root = self.roots.path(&r.id);
        let again = self.serve_and_wait(r, root.as_deref(), IfServed::Keep).and_then(|served| match served {
            Some(s) => runtime.remount(&r.id, &Mount::new(s.source, DATABASES)),
            None => Ok(()),
        });
        if let Err(e) = again {
            tracing::error!(container = %r.id, error = %e, "its databases could not be mounted again; restart it");
        }
    }

    /// Serves a container's private databases no longer: nothing of its volume is kept open.
    pub(crate) fn forget_private(&self, id: &ContainerId) -> Result<()> {
        self.served().remove(id);
        self.forget(&private_volume(id))
    }

    /// Serves the databases of a deleted project no longer and deletes them. What cannot be deleted now goes at the next start.
    pub(crate) fn delete_project(&self, id: &ProjectId) -> Result<()> {
        self.forget(&project_volume(id))?;
        let gone = self.store.delete(&Volume::Databases(id.clone()))?;
        self.records.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, &format!("the databases of project {id}")))
    }

    fn forget(&self, name: &str) -> Result<()> {
        let Some(db) = &self.db else { return Ok(()) };
        match db.remove_volume(name) {
            Err(e) if e.code() == Code::VolumeNotFound => Ok(()),
            r => r,
        }
    }
}
