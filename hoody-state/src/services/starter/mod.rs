//! Starting containers: what a container has besides its own volume is made ready, then the runtime starts it.
//!
//! `/hoody/storage` is in its volume; `/hoody/databases`, `/ramdisk`, `/hoody/snapshots` and `/hoody/shares` are mounted.

mod etc;
mod init;

use super::api_sockets::ApiSockets;
use super::databases::{DATABASES, Databases, IfServed, Served};
use super::dirs::ContainerDirs;
use super::identity::Identities;
use super::ramdisks::Ramdisks;
use super::shares::Shares;
use crate::catalog::Durability;
use crate::catalog::containers::ContainerRow;
use crate::catalog::records::Records;
use crate::error::{IoContext, Result};
use crate::id::{ContainerId, RunId};
use crate::model::mount::{API_SOCKET, Mount, RECEIVED, SNAPSHOTS, Tree};
use crate::model::{CopiedIdentity, Status};
use crate::rootfs::RootFs;
use crate::runtime::{Limits, RunSpec, Running, Runtime};
use crate::settings::HostNetwork;
use crate::snapshot::SnapshotStore;
use crate::units::Bytes;
use std::path::Path;
use std::sync::Arc;

/// Starts containers.
pub(crate) struct Starter {
    pub(crate) store: Arc<dyn SnapshotStore>,
    pub(crate) roots: Arc<dyn RootFs>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) databases: Arc<Databases>,
    pub(crate) ramdisks: Arc<Ramdisks>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) api_sockets: Arc<ApiSockets>,
    pub(crate) dirs: ContainerDirs,
    pub(crate) host_network: HostNetwork,
    pub(crate) identities: Identities,
    pub(crate) records: Records,
}

/// What a start mounts.
struct Mounts {
    /// All but the shares.
    own: Vec<Mount>,
    shares: Vec<Mount>,
    databases: Option<Served>,
}

impl Starter {
    /// Starts a container from its live volume. What the databases' daemon does meanwhile is made up for. Errors: `host_network_denied`,
    /// `databases_unavailable`, and those of [`Runtime::start`].
    pub(crate) fn start(&self, r: &ContainerRow, run: &RunId) -> Result<Running> {
        self.host_network.check(r.spec.network, false)?;
        let root = self.roots.mount(&r.id)?;
        let limits = Limits { memory: r.spec.memory_mib.map(Bytes::mib), cpus: r.spec.cpu };
        let command = if r.spec.command.is_empty() { init::default_command(root.as_deref()) } else { r.spec.command.clone() };
        let hostname = init::hostname(r.name.as_str());
        self.runtime.prepare(&r.id, &limits)?;
        if let Some(root) = &root {
            self.own_identity(r, root);
            etc::put_right(self.dirs, root, &hostname);
        }
        let changes = self.shares.changes();
        let start = |mounts: Mounts| {
            self.runtime.start(&RunSpec {
                container: r.id.clone(),
                run: run.clone(),
                root: root.clone(),
                command: command.clone(),
                env: r.spec.env.clone(),
                cwd: "/".into(),
                hostname: hostname.clone(),
                network: r.spec.network,
                limits,
                mounts: mounts.own,
                shares: Some(mounts.shares),
            })
        };
        let mounts = self.mounts_for(r, root.as_deref())?;
        let with_shares = !mounts.shares.is_empty();
        let mut served = mounts.databases.clone();
        let mut started = start(mounts);
        if started.is_err() && served.as_ref().is_some_and(|s| self.databases.ended(s)) {
            let mounts = self.mounts_for(r, root.as_deref())?;
            served = mounts.databases.clone();
            started = start(mounts);
        }
        let running = started?;
        if served.as_ref().is_some_and(|s| self.databases.ended(s)) {
            self.databases.remount(r, &*self.runtime);
        }
        // Whoever changed shares meanwhile left this container to us; a runtime without files has mounted nothing.
        if self.shares.changes() != changes || (with_shares && root.is_none()) {
            self.shares.sync_each(&[&r.id]);
        }
        Ok(running)
    }

    /// Gives a copy an identity of its own, if it is to have one and has not. A start does not fail for it: the next one tries again.
    fn own_identity(&self, r: &ContainerRow, root: &Path) {
        let renewed = self.renew(r, root).and_then(|renewed| match renewed {
            Some(now) => self.records.write(Durability::Process, |tx| tx.change_container(&r.id, "identity", None, |r| r.state.identity = Some(now)).map(drop)),
            None => Ok(()),
        });
        if let Err(e) = renewed {
            tracing::warn!(container = %r.id, error = %e, "this copy boots with the identity of its source");
        }
    }

    /// Exchanges in a copy, of which nothing runs, what still identifies it as its source; what is to be noted of it then. `root`: its mounted root.
    pub(crate) fn renew(&self, r: &ContainerRow, root: &Path) -> Result<Option<CopiedIdentity>> {
        match &r.state.identity {
            Some(known) => self.identities.renew(root, known, &init::hostname(r.name.as_str())),
            None => Ok(None),
        }
    }

    /// Makes ready what a container is about to start with. `root`: its volume, with backends that have files.
    fn mounts_for(&self, r: &ContainerRow, root: Option<&Path>) -> Result<Mounts> {
        if let Some(root) = root {
            self.dirs.open_or_make(root, &["hoody", "storage"])?;
        }
        let databases = self.databases.serve_and_wait(r, root, IfServed::Exchange)?;
        let mut own: Vec<Mount> = databases.iter().map(|d| Mount::new(d.source.clone(), DATABASES)).collect();
        own.extend(self.ramdisks.mounts_for(r)?);
        own.extend(self.snapshots_of(r, root)?);
        own.extend(root.and_then(|root| self.api_sockets.mount_for(r, root)));
        Ok(Mounts { own, shares: self.shares.mounts_for(r)?, databases })
    }

    /// The container's snapshots, to be seen in it. Without set-user-ID bits, as all mounts by descriptor: an old program may have a hole that is closed since.
    fn snapshots_of(&self, r: &ContainerRow, root: Option<&Path>) -> Result<Option<Mount>> {
        let (Some(root), Some(dir)) = (root, self.store.snapshots_dir(&r.id)?) else { return Ok(None) };
        if self.dirs.open_or_make(root, &["hoody", "snapshots"])?.is_none() {
            tracing::warn!(container = %r.id, "something else is at {SNAPSHOTS}: the container does not see its snapshots there");
            return Ok(None);
        }
        let tree = Tree::new(dir, true).io(|| format!("ask for the directory of the snapshots of container {}", r.id))?;
        Ok(Some(Mount::new(tree, SNAPSHOTS)))
    }

    /// The paths of its own that a container has, by kind, as they are now.
    pub(crate) fn paths_of(&self, r: &ContainerRow) -> Result<Vec<crate::model::Mount>> {
        let mount = |path: &str, kind: &str| crate::model::Mount { path: path.into(), kind: kind.into() };
        let mut all = vec![mount("/hoody/storage", "storage")];
        all.extend(self.databases.backend().map(|_| mount(DATABASES, "databases")));
        all.extend(self.ramdisks.paths(r).iter().map(|path| mount(path, "ramdisk")));
        if self.roots.path(&r.id).is_some() {
            all.push(mount(SNAPSHOTS, "snapshots"));
        }
        if self.api_sockets.is_open(&r.id) {
            all.push(mount(API_SOCKET, "api_socket"));
        }
        if matches!(r.status, Status::Running | Status::Paused) {
            all.extend(self.shares.seen_by(&r.id)?.into_iter().map(|name| mount(&format!("{RECEIVED}/{name}"), "share")));
        }
        Ok(all)
    }

    /// After the databases' daemon was started again: everything is served and mounted as it was in those of `all` that run. One that is being started looks
    /// by itself once it runs.
    pub(crate) fn remount_databases(&self, all: &[ContainerRow]) {
        if self.databases.backend().is_none() {
            return;
        }
        let running: Vec<&ContainerRow> = all.iter().filter(|r| self.runtime.running(&r.id).is_ok_and(|r| r.is_some())).collect();
        running.iter().for_each(|r| self.databases.remount(r, &*self.runtime));
        // What is shared of them is another mount.
        self.shares.sync_each(&running.iter().map(|r| &r.id).collect::<Vec<_>>());
    }

    /// Removes what a deleted container had beside its volume.
    pub(crate) fn forget(&self, id: &ContainerId) -> Result<()> {
        self.shares.forget(id);
        self.databases.forget_private(id)?;
        self.ramdisks.remove(id)
    }
}
