//! Looking at a pool of this machine without a host on it.

use super::HostConfig;
use super::freezer::freezer;
use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};
use crate::host::{Host, check};
use crate::locked_db::LockedDb;
use crate::model::Finding;
use crate::pool::{Pool, PoolRecord, layout};
use crate::ramdisk::RamDisks;
use crate::ramdisk::tmpfs::TmpfsRamDisks;
use crate::runtime::oci::OciRuntime;
use crate::share::bind::BindShareMount;
use crate::snapshot::btrfs::BtrfsStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A runtime mounts its own binary for a moment while it starts a container: a mount counts as stray if it is still there after this.
const PASSING: Duration = Duration::from_millis(300);

/// Runs `f` with the pool mounted: if it is, it is left as it is; if not, it is mounted for the time being.
pub(super) fn with_pool<T>(config: &HostConfig, f: impl FnOnce(&Path, &PoolRecord) -> Result<T>) -> Result<T> {
    let pool_config = config.pool_as_it_is();
    if let Some(record) = Pool::peek(&pool_config)? {
        return f(&pool_config.mount_point(), &record);
    }
    if !config.data.exists() {
        return Err(Error::new(Code::PoolNotFound, format!("there is no pool in {}: `serve` makes one", config.data.display())));
    }
    let pool = Pool::open(&pool_config)?;
    let out = f(&pool.root(), pool.record());
    pool.unmount()?;
    out
}

/// A path without links above its last part, which may be a mount that answers nothing.
fn absolute(path: &Path) -> PathBuf {
    let above = path.parent().and_then(|p| p.canonicalize().ok());
    above.zip(path.file_name()).map_or_else(|| path.to_owned(), |(p, n)| p.join(n))
}

/// The mounts below the run directory that no server of this version makes. `known` is asked anew at each look: a container that was made since has a disk too.
fn stray_mounts(config: &HostConfig, known: impl Fn() -> Result<Vec<PathBuf>>) -> Result<Vec<Finding>> {
    let mut stray = Pool::look_at_mounts(&config.pool(), &known()?)?;
    if !stray.is_empty() {
        std::thread::sleep(PASSING);
        let again = Pool::look_at_mounts(&config.pool(), &known()?)?;
        stray.retain(|s| again.contains(s));
    }
    Ok(stray.into_iter().map(|message| Finding { code: "stray_mount".into(), message, repaired: false }).collect())
}

impl Host {
    /// Compares catalog, pool, mounts and cgroups, whether a server runs on it or not.
    ///
    /// # Errors
    /// `pool_not_found`, and what keeps it from looking.
    pub fn check_pool(config: &HostConfig, repair: bool) -> Result<Vec<Finding>> {
        with_pool(config, |root, record| {
            let store = BtrfsStore::open(root)?;
            let cgroups = config.cgroups(record)?;
            let freezer = freezer(&cgroups)?;
            let mut oci = config.oci(root, record, cgroups, Arc::clone(&freezer));
            oci.subreaper = false;
            oci.looks_only = true;
            let runtime = OciRuntime::new(oci)?;
            let catalog = Catalog::open(&root.join(layout::CATALOG))?;
            let databases = config.socket().exists().then(|| config.daemon_client());
            let disks = config.ramdisks();
            let ramdisks = if disks.is_dir() { Some(TmpfsRamDisks::new(&disks, record.id_base)?) } else { None };
            let places = check::Places {
                databases: databases.as_ref().map(|d| d as &dyn LockedDb),
                ramdisks: ramdisks.as_ref().map(|d| d as &dyn RamDisks),
                shares: Some(&BindShareMount),
            };
            let mut found = check::compare(&catalog, &store, &*freezer, &runtime, &places, repair)?;
            found.extend(stray_mounts(config, || {
                let names = ramdisks.iter().map(TmpfsRamDisks::list).collect::<Result<Vec<_>>>()?.concat();
                Ok(names.iter().map(|n| disks.join(n)).chain([config.databases_mount()]).map(|p| absolute(&p)).collect())
            })?);
            Ok(found)
        })
    }
}
