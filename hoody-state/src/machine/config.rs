//! How a host on this machine is opened, and where its parts are.

use crate::cgroup::CgroupTree;
use crate::error::Result;
use crate::freeze::Freezer;
use crate::locked_db::fuse::FuseLockedDb;
use crate::locked_db::fuse::daemon::DaemonConfig;
use crate::model::Server;
use crate::pool::{Pool, PoolConfig, PoolRecord, Reserve, layout};
use crate::runtime::oci::{CONTAINER_TASKS, OciConfig};
use crate::settings::Settings;
use crate::transfer::Transport;
use crate::units::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a host on this machine is opened.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Keeps the pool's image and lock.
    pub data: PathBuf,
    /// Mounts, sockets and runtime state: gone at reboot, rebuilt at start.
    pub run: PathBuf,
    /// A device for the pool instead of an image.
    pub device: Option<PathBuf>,
    /// The size the image is made with or grown to.
    pub pool_size: Option<Bytes>,
    /// What is reserved beneath the image.
    pub pool_reserve: Reserve,
    /// The server's name; kept in the pool. Default: the machine's host name.
    pub server_name: Option<String>,
    /// Name or path of the OCI runtime; default: the first of runc, crun and youki that is installed.
    pub runtime: Option<PathBuf>,
    /// The first host id of containers; kept in the pool. Default 100000.
    pub id_base: Option<u32>,
    /// The cgroup above the containers'. Default `/hoody/<first digits of the pool's id>`.
    pub cgroup_parent: Option<String>,
    /// How many processes and threads a container may have. Default 4096.
    pub container_tasks: Option<u64>,
    /// How many processes and threads all containers of the pool may have together. Default: three quarters of what the host can have.
    pub pool_tasks: Option<u64>,
    /// The program `hoody-state-fuse`; without it containers have no `/hoody/databases`.
    pub databases: Option<PathBuf>,
    /// Idle processors may sleep while databases are busy too: a transaction takes up to four times as long then.
    pub save_power: bool,
    /// Whether containers may have a socket for a part of the API. Somebody must then serve it: [`Host::serve_api_sockets`](crate::Host::serve_api_sockets).
    pub api_sockets: bool,
    /// How other servers are reached; nothing: they are not.
    pub transport: Option<Arc<dyn Transport>>,
    /// What an operator sets.
    pub settings: Settings,
}

impl HostConfig {
    /// The defaults, for a pool in `data` with its mounts in `run`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        HostConfig { data: data.into(), run: run.into(), ..Self::default() }
    }

    /// The run directory under which this pool is mounted now, if it is.
    ///
    /// # Errors
    /// Of reading `/proc` and `/sys`.
    pub fn mounted_run(&self) -> Result<Option<PathBuf>> {
        Pool::mounted_run(&self.pool())
    }

    pub(super) fn pool(&self) -> PoolConfig {
        PoolConfig {
            data: self.data.clone(),
            run: self.run.clone(),
            device: self.device.clone(),
            size: self.pool_size,
            id_base: self.id_base,
            server_name: self.server_name.clone(),
            reserve: Some(self.pool_reserve),
        }
    }

    /// Of a pool that is only looked at or taken down.
    pub(super) fn pool_as_it_is(&self) -> PoolConfig {
        PoolConfig { size: None, reserve: None, ..self.pool() }
    }

    pub(super) fn cgroups(&self, pool: &PoolRecord) -> Result<CgroupTree> {
        let id = pool.pool_id.simple().to_string();
        let parent = self.cgroup_parent.clone().unwrap_or_else(|| format!("/hoody/{}", &id[..12]));
        Ok(CgroupTree::new(&parent)?.with_task_limit(self.pool_tasks))
    }

    /// How containers of this pool are run. Their control groups are those of `cgroups`.
    pub(super) fn oci(&self, root: &Path, pool: &PoolRecord, cgroups: CgroupTree, freezer: Arc<dyn Freezer>) -> OciConfig {
        let consoles = root.join(layout::CONSOLES);
        let mut config = OciConfig::new(self.runtime_state(), cgroups, freezer, move |c| consoles.join(format!("{c}.log")));
        config.runtime.clone_from(&self.runtime);
        config.id_base = pool.id_base;
        config.pids_limit = Some(self.container_tasks.unwrap_or(CONTAINER_TASKS));
        config
    }

    /// Where the runtime keeps what it knows of runs.
    pub(super) fn runtime_state(&self) -> PathBuf {
        self.run.join("oci")
    }

    /// Where the RAM disks are mounted.
    pub(super) fn ramdisks(&self) -> PathBuf {
        self.run.join("ramdisks")
    }

    /// Where the sockets of containers are.
    pub(super) fn api_socket_dir(&self) -> PathBuf {
        self.run.join("api")
    }

    /// The daemon of the databases: `program` is started if none answers.
    pub(super) fn daemon(&self, program: PathBuf, group: u32) -> DaemonConfig {
        DaemonConfig { program, socket: self.socket(), mountpoint: self.databases_mount(), save_power: self.save_power, group: Some(group) }
    }

    /// The daemon of the databases, if one answers.
    pub(super) fn daemon_client(&self) -> FuseLockedDb {
        FuseLockedDb::new(&self.socket(), &self.databases_mount())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("databases.sock")
    }

    pub(super) fn databases_mount(&self) -> PathBuf {
        self.run.join("databases")
    }

    pub(super) fn server(&self, pool: &PoolRecord) -> Server {
        let machine = || nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).filter(|n| !n.is_empty()).unwrap_or_else(|| "hoody".into());
        Server { id: pool.server_id.clone(), name: pool.server_name.clone().unwrap_or_else(machine) }
    }
}
