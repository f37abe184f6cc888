//! Taking a pool of this machine down.

use super::HostConfig;
use super::freezer::freezer;
use crate::catalog::{self, Catalog};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::locked_db::LockedDb;
use crate::pool::{Pool, layout};
use crate::ramdisk::RamDisks;
use crate::ramdisk::tmpfs::TmpfsRamDisks;
use crate::runtime::Runtime;
use crate::runtime::oci::OciRuntime;
use crate::services::pool_watch;

impl Host {
    /// Stops this pool's containers and takes down everything that a reboot would: processes, cgroups, mounts, loop device. The next
    /// start treats it as a reboot: containers with `autostart` that were not stopped by hand run again.
    ///
    /// # Errors
    /// `data_in_use` while a server runs on it.
    pub fn unmount(config: &HostConfig) -> Result<()> {
        if Pool::peek(&config.pool())?.is_some() {
            take_down(config, Pool::open(&config.pool_as_it_is())?)?;
        } else {
            end_daemon(config)?;
            Pool::take_down(&config.pool())?;
        }
        for dir in [config.runtime_state(), config.api_socket_dir()] {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", dir.display()), e)),
                _ => {}
            }
        }
        // Only if nothing of anybody else's is in it.
        let _ = std::fs::remove_dir(&config.run);
        Ok(())
    }
}

fn take_down(config: &HostConfig, pool: Pool) -> Result<()> {
    // First of all: whatever of this is cut short, the next start knows that what is gone was not stopped by hand. Where nothing can be
    // written, it knows by having to mount the pool.
    if !pool.space()?.read_only {
        note_end_of_uptime(&Catalog::open(&pool.root().join(layout::CATALOG))?)?;
    }
    let cgroups = config.cgroups(pool.record())?;
    let freezer = freezer(&cgroups)?;
    let runtime = OciRuntime::new(config.oci(&pool.root(), pool.record(), cgroups, freezer))?;
    for c in runtime.list()? {
        runtime.kill(&c)?;
        runtime.cgroups().remove(&c)?;
    }
    // It ends with the last use of its mount: after those who used it.
    end_daemon(config)?;
    let disks = TmpfsRamDisks::new(config.ramdisks(), pool.record().id_base)?;
    for disk in disks.list()? {
        disks.remove(&disk)?;
    }
    std::fs::remove_dir(config.ramdisks()).io(|| "remove the directory of RAM disks")?;
    drop(runtime);
    pool.unmount()
}

fn end_daemon(config: &HostConfig) -> Result<()> {
    config.daemon_client().take_down().or_else(|e| if config.run.exists() { Err(e) } else { Ok(()) })
}

/// Writes down that nothing of an earlier uptime runs any more.
pub(super) fn note_end_of_uptime(catalog: &Catalog) -> Result<()> {
    catalog.write(catalog::Durability::Disk, SystemClock.now(), |tx| tx.set_meta("boot", catalog::UNMOUNTED))
}

/// Takes down a pool that the kernel has made read-only, if it may be writable once it is mounted anew. Its containers, which cannot write either,
/// end with it and start again with the pool.
pub(super) fn recover_read_only(config: &HostConfig) -> Result<()> {
    let Some(space) = Pool::stuck(&config.pool())? else { return Ok(()) };
    if !pool_watch::can_recover(&space) {
        return Ok(());
    }
    tracing::warn!("the pool is read-only: stopping its containers and mounting it anew");
    Host::unmount(config)
}
