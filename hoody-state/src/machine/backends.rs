//! The backends of this machine: BTRFS, control groups, an OCI runtime, the daemon of the databases, tmpfs and bind mounts.

use super::choice::{Backends, Choice};
use super::config::HostConfig;
use super::freezer::freezer;
use super::unmount::recover_read_only;
use crate::cgroup::CgroupTree;
use crate::error::{Error, IoContext, Result};
use crate::freeze::Freezer;
use crate::locked_db::LockedDb;
use crate::locked_db::fuse::daemon::FuseDaemon;
use crate::pool::{Pool, layout};
use crate::ramdisk::RamDisks;
use crate::ramdisk::tmpfs::TmpfsRamDisks;
use crate::runtime::Runtime;
use crate::runtime::oci::OciRuntime;
use crate::share::ShareMount;
use crate::share::bind::BindShareMount;
use crate::snapshot::SnapshotStore;
use std::sync::Arc;

/// A pool of this machine, open.
pub(super) struct Machine {
    pub config: HostConfig,
    pub pool: Pool,
    pub writable: bool,
}

/// Every backend of a host.
pub(super) struct Complete {
    pub store: Arc<dyn SnapshotStore>,
    pub freezer: Arc<dyn Freezer>,
    pub runtime: Arc<dyn Runtime>,
    pub shares: Arc<dyn ShareMount>,
    pub databases: Option<Arc<dyn LockedDb>>,
    pub ramdisks: Option<Arc<dyn RamDisks>>,
}

/// The backends of a host without a machine: all were given.
pub(super) fn given(backends: Backends) -> Result<Complete> {
    let Backends { store: Some(store), freezer: Some(freezer), runtime: Some(runtime), shares: Some(shares), databases, ramdisks } = backends else {
        return Err(Error::internal("a host without a machine lacks a backend"));
    };
    Ok(Complete { store, freezer, runtime, shares, databases: chosen(databases), ramdisks: chosen(ramdisks) })
}

fn chosen<T: ?Sized>(choice: Choice<T>) -> Option<Arc<T>> {
    match choice {
        Choice::Default => None,
        Choice::Made(made) => made,
    }
}

impl Machine {
    pub(super) fn open(config: &HostConfig) -> Result<Self> {
        recover_read_only(config)?;
        let pool = Pool::open(&config.pool())?;
        let writable = !pool.space()?.read_only;
        if writable {
            std::fs::create_dir_all(pool.root().join(layout::CONSOLES)).io(|| "make the directory of consoles")?;
        }
        Ok(Machine { config: config.clone(), pool, writable })
    }

    /// Adds what is not given.
    pub(super) fn complete(&self, given: Backends) -> Result<Complete> {
        let cgroups = || self.config.cgroups(self.pool.record());
        let (freezer, runtime) = match (given.freezer, given.runtime) {
            (Some(freezer), Some(runtime)) => (freezer, runtime),
            (None, Some(runtime)) => (freezer(&cgroups()?)?, runtime),
            (freezer, None) => {
                let cgroups = cgroups()?;
                let freezer = freezer.map_or_else(|| self::freezer(&cgroups), Ok)?;
                (Arc::clone(&freezer), self.runtime(cgroups, freezer)?)
            }
        };
        Ok(Complete {
            store: given.store.map_or_else(|| Ok::<_, Error>(Arc::new(self.pool.store()?) as Arc<dyn SnapshotStore>), Ok)?,
            freezer,
            runtime,
            shares: given.shares.unwrap_or_else(|| Arc::new(BindShareMount)),
            databases: self.databases(given.databases)?,
            ramdisks: self.ramdisks(given.ramdisks)?,
        })
    }

    fn runtime(&self, cgroups: CgroupTree, freezer: Arc<dyn Freezer>) -> Result<Arc<dyn Runtime>> {
        Ok(Arc::new(OciRuntime::new(self.config.oci(&self.pool.root(), self.pool.record(), cgroups, freezer))?))
    }

    /// A daemon that runs goes on. None is started on a pool that cannot be written: it could serve nothing.
    fn databases(&self, choice: Choice<dyn LockedDb>) -> Result<Option<Arc<dyn LockedDb>>> {
        match (choice, &self.config.databases) {
            (Choice::Made(made), _) => Ok(made),
            (Choice::Default, Some(program)) if self.writable => Ok(Some(FuseDaemon::open(self.config.daemon(program.clone(), self.pool.record().id_base))?)),
            (Choice::Default, _) => Ok(None),
        }
    }

    fn ramdisks(&self, choice: Choice<dyn RamDisks>) -> Result<Option<Arc<dyn RamDisks>>> {
        match choice {
            Choice::Made(made) => Ok(made),
            Choice::Default => Ok(Some(Arc::new(TmpfsRamDisks::new(self.config.ramdisks(), self.pool.record().id_base)?))),
        }
    }
}
