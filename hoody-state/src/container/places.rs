//! What a container has besides its own volume: `/hoody/databases`, `/ramdisk`, `/hoody/shares`, made ready before it starts; and `/hoody/storage` in it.

use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Error, IoContext, Kind, Result};
use crate::host::Host;
use crate::id::{ContainerId, ProjectId};
use crate::model::{DatabaseScope, RamdiskScope, RamdiskStats, RamdiskUsage, Status};
use crate::runtime::HostMount;
use crate::share::{RECEIVED, Tree};
use crate::snapshot::Volume;
use crate::units::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Where databases are in a container.
pub(crate) const DATABASES: &str = "/hoody/databases";
/// Where its RAM disk is.
pub(crate) const RAMDISK: &str = "/ramdisk";
/// The disk of its project, in it.
const PROJECT_RAMDISK: &str = "/ramdisk/project";

/// How private databases are served that are served already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serve {
    /// Left as they are.
    AsItIs,
    /// From the directory that is there now; nothing of its container runs.
    Now,
}

/// What a start mounts.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub mounts: Vec<HostMount>,
    pub shares: Option<Vec<(String, Tree)>>,
    pub databases: Option<Served>,
}

/// Databases that answered.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    at: PathBuf,
    /// Of the daemon's file system: another daemon has another.
    device: u64,
}

/// How long a start waits for the daemon of the databases, which is being started again.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// The name by which a container's databases are served.
pub(crate) fn volume_name(r: &ContainerRow) -> String {
    match r.spec.databases {
        DatabaseScope::Project => project_volume(&r.project),
        DatabaseScope::Private => private_volume(&r.id),
    }
}

pub(crate) fn project_volume(p: &ProjectId) -> String {
    format!("project-{p}")
}

pub(crate) fn private_volume(c: &ContainerId) -> String {
    format!("container-{c}")
}

pub(crate) fn project_disk(p: &ProjectId) -> String {
    format!("project-{p}")
}

impl Host {
    /// Makes ready what a container is about to start with. `root`: its volume, with backends that have files.
    pub(crate) fn places(&self, r: &ContainerRow, root: Option<&Path>) -> Result<Places> {
        let mut mounts = Vec::new();
        if let Some(root) = root {
            self.own_dir(root, &["hoody", "storage"])?;
        }
        let databases = self.answering_databases(r, root, Serve::Now)?;
        mounts.extend(databases.as_ref().map(|d| HostMount { source: d.at.clone(), target: DATABASES.into() }));
        if let Some(disks) = &self.0.ramdisks {
            let name = r.id.as_str();
            if r.spec.ramdisk {
                let limit = r.spec.memory_mib.map_or(Bytes(u64::MAX), Bytes::mib);
                if let Some(source) = disks.ensure(name, half_of_memory().min(limit))? {
                    mounts.push(HostMount { source: source.clone(), target: RAMDISK.into() });
                    if r.spec.ramdisk_scope == RamdiskScope::Project
                        && let Some(project) = disks.ensure(&project_disk(&r.project), half_of_memory())?
                    {
                        self.own_dir(&source, &["project"])?;
                        mounts.push(HostMount { source: project, target: PROJECT_RAMDISK.into() });
                    }
                }
            } else {
                disks.remove(name)?;
            }
        }
        Ok(Places { mounts, shares: Some(self.trees_for(r)?), databases })
    }

    /// The paths of its own that a container has, by kind, as they are now.
    pub(crate) fn mounts_of(&self, r: &ContainerRow) -> Result<Vec<crate::model::Mount>> {
        let mount = |path: &str, kind: &str| crate::model::Mount { path: path.into(), kind: kind.into() };
        let mut all = vec![mount("/hoody/storage", "storage")];
        if self.0.databases.is_some() {
            all.push(mount(DATABASES, "databases"));
        }
        if self.0.ramdisks.is_some() && r.spec.ramdisk {
            all.push(mount(RAMDISK, "ramdisk"));
            if r.spec.ramdisk_scope == RamdiskScope::Project {
                all.push(mount(PROJECT_RAMDISK, "ramdisk"));
            }
        }
        if matches!(r.status, Status::Running | Status::Paused) {
            all.extend(self.shares_seen(&r.id)?.into_iter().map(|name| mount(&format!("{RECEIVED}/{name}"), "share")));
        }
        Ok(all)
    }

    /// Serves a container's databases, from the project's volume (made if need be) or from its own; where they are on the host. Nothing on a host without.
    pub(crate) fn serve_databases(&self, r: &ContainerRow, root: Option<&Path>, how: Serve) -> Result<Option<PathBuf>> {
        let (Some(db), Some(root)) = (&self.0.databases, root) else { return Ok(None) };
        let name = volume_name(r);
        match r.spec.databases {
            DatabaseScope::Project => {
                let volume = Volume::Databases(r.project.clone());
                let Some(backing) = self.0.store.path(&volume) else { return Ok(None) };
                if self.0.store.info(&volume)?.is_none() {
                    match self.0.store.create(&volume) {
                        Err(e) if e.code() != "volume_exists" => return Err(e),
                        _ => {}
                    }
                }
                // A new one belongs to the host's root until it is given away.
                self.give_to_containers(&backing)?;
                match db.add_volume(&name, &backing) {
                    Err(e) if e.code() != "volume_exists" => return Err(e),
                    _ => {}
                }
            }
            DatabaseScope::Private => {
                let Some(dir) = self.own_dir(root, &["hoody", "databases"])? else {
                    return Err(Error::conflict("start_failed", format!("{DATABASES} of container {} is no directory: make it one, or remove it", r.id)));
                };
                let backing = path_of(&dir)?;
                let here = rustix::fs::fstat(&dir).map(|d| (d.st_dev, d.st_ino)).io(|| format!("look at {}", backing.display()))?;
                let served = || self.0.served.lock().unwrap_or_else(PoisonError::into_inner);
                let was = served().get(&r.id).copied();
                match db.add_volume(&name, &backing) {
                    // An exchange takes what is open from those who have it open: only where it is another directory.
                    Err(e) if e.code() == "volume_exists" && (how == Serve::AsItIs || was == Some(here)) => return Ok(Some(db.path(&name))),
                    Err(e) if e.code() == "volume_exists" => db.rebind(&name, &backing)?,
                    added => drop(added?),
                }
                served().insert(r.id.clone(), here);
            }
        }
        Ok(Some(db.path(&name)))
    }

    /// What its RAM disks hold.
    pub(crate) fn ramdisk_stats(&self, r: &ContainerRow) -> Result<RamdiskStats> {
        let mut stats = RamdiskStats { scope: r.spec.ramdisk_scope, shared_pool_maximum: None, capacity_reserved: false, usage: None };
        let Some(disks) = &self.0.ramdisks else { return Ok(stats) };
        if let Some(own) = disks.filled(r.id.as_str())? {
            let project = match r.spec.ramdisk_scope {
                RamdiskScope::Project => disks.filled(&project_disk(&r.project))?,
                RamdiskScope::Container => None,
            };
            stats.shared_pool_maximum = Some(project.map_or(own.size, |p| p.size));
            stats.usage = Some(RamdiskUsage { private: own.used, secrets: None, project: project.map(|p| p.used) });
        }
        Ok(stats)
    }

    /// Lets go of a container's own databases: nothing of its volume is kept open.
    pub(crate) fn forget_private_databases(&self, id: &ContainerId) -> Result<()> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.forget_databases(&private_volume(id))
    }

    fn forget_databases(&self, name: &str) -> Result<()> {
        let Some(db) = &self.0.databases else { return Ok(()) };
        match db.remove_volume(name) {
            Err(e) if e.code() == "volume_not_found" => Ok(()),
            r => r,
        }
    }

    /// Lets go of what a deleted container had beside its volume.
    pub(crate) fn drop_places(&self, id: &ContainerId) -> Result<()> {
        self.0.sharing.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.forget_private_databases(id)?;
        if let Some(disks) = &self.0.ramdisks {
            disks.remove(id.as_str())?;
        }
        Ok(())
    }

    /// Lets go of what a deleted project had. What cannot be deleted now goes at the next start.
    pub(crate) fn drop_project_places(&self, id: &ProjectId) -> Result<()> {
        self.forget_databases(&project_volume(id))?;
        if let Some(disks) = &self.0.ramdisks {
            disks.remove(&project_disk(id))?;
        }
        let gone = self.0.store.delete(&Volume::Databases(id.clone()))?;
        self.write(crate::catalog::Durability::Process, |tx| tx.add_reclaim(&gone.volumes, &format!("the databases of project {id}")))?;
        self.0.upkeep.reclaim();
        Ok(())
    }

    /// The same, once they answer: a daemon that has just died is being started again.
    fn answering_databases(&self, r: &ContainerRow, root: Option<&Path>, how: Serve) -> Result<Option<Served>> {
        let end = Instant::now() + DAEMON_PATIENCE;
        loop {
            let served = self.serve_databases(r, root, how).and_then(|at| match at {
                None => Ok(None),
                Some(at) => {
                    let unavailable = |e| Error::new(Kind::Unavailable, "databases_unavailable", format!("{} does not answer: {e}", at.display()));
                    let device = std::fs::metadata(&at).map_err(unavailable)?.dev();
                    Ok(Some(Served { at, device }))
                }
            });
            match served {
                Err(e) if e.code() == "databases_unavailable" && Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                r => return r,
            }
        }
    }

    /// Whether the daemon that served these has died since.
    pub(crate) fn databases_died(served: Option<&Served>) -> bool {
        served.is_some_and(|s| std::fs::metadata(&s.at).map_or(true, |m| m.dev() != s.device))
    }

    /// Serves a container's databases and mounts them where it runs, in the place of those of a daemon that has died.
    pub(crate) fn mend_databases(&self, r: &ContainerRow) {
        let root = self.0.store.path(&Volume::Live(r.id.clone()));
        let again = self.answering_databases(r, root.as_deref(), Serve::AsItIs).and_then(|served| match served {
            Some(s) => self.0.runtime.remount(&r.id, DATABASES, &s.at),
            None => Ok(()),
        });
        if let Err(e) = again {
            tracing::error!(container = %r.id, error = %e, "its databases could not be mounted again; restart it");
        }
    }

    /// After the databases' daemon was started again: everything is served and mounted as it was, in containers that run. One that is being started looks
    /// by itself once it runs.
    pub(crate) fn serve_databases_again(&self) {
        if self.0.databases.is_none() {
            return;
        }
        let rows = match self.0.catalog.read(|c| containers::all(c, None)) {
            Ok(rows) => rows,
            Err(e) => return tracing::error!(error = %e, "cannot read which containers have databases"),
        };
        let running: Vec<&ContainerRow> = rows.iter().filter(|r| self.0.runtime.running(&r.id).is_ok_and(|r| r.is_some())).collect();
        running.iter().for_each(|r| self.mend_databases(r));
        // What is shared of them is another mount.
        self.sync_shares_or_warn(&running.iter().map(|r| &r.id).collect::<Vec<_>>());
    }

    /// Opens a directory in a volume, made if need be (then it belongs to the container's root). Nothing when something else is in the way: what a
    /// container has put there is its own affair, and no link of its is followed.
    pub(super) fn own_dir(&self, root: &Path, parts: &[&str]) -> Result<Option<OwnedFd>> {
        let what = || format!("make /{} in {}", parts.join("/"), root.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir: OwnedFd = std::fs::File::open(root).io(what)?.into();
        for part in parts {
            let made = match rustix::fs::mkdirat(&dir, *part, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(rustix::io::Errno::EXIST) => false,
                Err(e) => return Err(e).io(what),
            };
            dir = match rustix::fs::openat2(&dir, *part, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
                Ok(d) => d,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
                Err(e) => return Err(e).io(what),
            };
            if made {
                self.give(dir.as_fd()).io(what)?;
            }
        }
        Ok(Some(dir))
    }

    fn give_to_containers(&self, dir: &Path) -> Result<()> {
        let what = || format!("give {} to the containers", dir.display());
        let d = std::fs::File::open(dir).io(what)?;
        if d.metadata().io(what)?.uid() == 0 && self.0.id_base != 0 {
            self.give(d.as_fd()).io(what)?;
        }
        Ok(())
    }

    fn give(&self, dir: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
        nix::unistd::fchown(dir, Some(self.0.id_base.into()), Some(self.0.id_base.into()))?;
        nix::sys::stat::fchmod(dir, nix::sys::stat::Mode::from_bits_truncate(0o755))?;
        Ok(())
    }
}

/// The path of an open directory.
fn path_of(dir: &OwnedFd) -> Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).io(|| "ask for the path of an open directory")
}

/// The most that a RAM disk may hold.
fn half_of_memory() -> Bytes {
    Bytes(crate::cgroup::host_memory().0 / 2)
}
