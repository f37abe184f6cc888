//! The command line.

pub use crate::limits::LimitArgs;
use clap::{Parser, Subcommand};
use hoody_state::error::IoContext;
use hoody_state::host::{HostConfig, HostNetwork, Settings};
use hoody_state::id::ProjectId;
use hoody_state::pool::Reserve;
use hoody_state::units::Bytes;
use hoody_state::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The state of containers as a commit graph, over HTTP.
///
/// Exit codes: 0 good, 1 failed (check: findings), 2 wrong arguments, 3 in use, 4 not allowed, 5 something this needs is
/// not there, 6 not found, 7 no space. The log goes to stderr; HOODY_STATE_LOG sets its level.
#[derive(Debug, Parser)]
#[command(name = "hoody-state-http", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves a pool until TERM or INT; its containers go on.
    Serve(Box<ServeArgs>),
    /// Makes, lists and revokes tokens; beside a running server or without one.
    Token(TokenArgs),
    /// Compares catalog, pool, mounts, cgroups and loop devices: one line a finding.
    Check(CheckArgs),
    /// Stops the pool's containers and takes everything down that a reboot would.
    Unmount(PoolArgs),
    /// Prints the certificate that this server makes for itself, for other servers to pin: the `ca` of POST /peers.
    Certificate {
        /// Where the pool is kept.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A host name or address by which other servers reach this one; may be repeated. Counts when the certificate is made.
        #[arg(long, value_name = "HOST")]
        name: Vec<String>,
    },
    /// Writes a small root file system round the machine's static busybox to standard output, as a tar to import.
    DemoImage {
        /// A statically linked busybox, as in Debian's busybox-static.
        #[arg(long, value_name = "PATH", default_value = "/bin/busybox")]
        busybox: PathBuf,
    },
}

/// Which pool.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    /// Where the pool is kept.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where mounts, sockets and pid files go [default: /run/hoody-state/<hash of the data path>].
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// A block device instead of the image file under the data directory.
    #[arg(long, value_name = "DEV")]
    pub device: Option<PathBuf>,
}

/// How to serve.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub pool: PoolArgs,
    /// TCP address; port 0 takes a free one. Beyond loopback it takes TLS.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7878")]
    pub listen: SocketAddr,
    /// Serve TCP with TLS: a certificate chain in PEM [default beyond loopback: one that this server makes for itself, see `certificate`].
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key in PEM.
    #[arg(long, value_name = "PEM", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// UNIX socket [default: <run>/api.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Size of the image file when it is made.
    #[arg(long, value_name = "SIZE", conflicts_with = "device")]
    pub pool_size: Option<Bytes>,
    /// What to reserve for the image on the disk beneath it: full (all of it), a SIZE ahead of what is in use, or none. Without a reserve, a disk that
    /// fills up makes the pool read-only.
    #[arg(long, value_name = "SIZE|full|none", default_value = "2G", conflicts_with = "device")]
    pub pool_reserve: Reserve,
    /// Disk limit of a container that is made without one: what its volumes and snapshots may hold [default: none].
    #[arg(long, value_name = "SIZE")]
    pub default_disk: Option<Bytes>,
    /// With more subvolumes inside a container than this, no snapshots of it are taken.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_nested_volumes: u32,
    /// Name of this server [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// OCI runtime: a name or a path [default: the first of runc, crun, youki].
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// The program hoody-state-fuse, for /hoody/databases [default: beside this program, else in PATH].
    #[arg(long, value_name = "PATH", conflicts_with = "no_databases")]
    pub databases: Option<PathBuf>,
    /// Serve without /hoody/databases.
    #[arg(long)]
    pub no_databases: bool,
    /// Let idle processors sleep while databases are busy too: a transaction takes up to four times as long.
    #[arg(long)]
    pub save_power: bool,
    /// First host id of the containers' user namespace, when the pool is made.
    #[arg(long, value_name = "N")]
    pub id_base: Option<u32>,
    /// Processes and threads that a container may have at once.
    #[arg(long, value_name = "N", default_value_t = hoody_state::runtime::oci::CONTAINER_TASKS, value_parser = clap::value_parser!(u64).range(32..))]
    pub container_tasks: u64,
    /// Processes and threads that all containers may have together [default: three quarters of what the host can have].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(32..))]
    pub pool_tasks: Option<u64>,
    /// How long the state before a restore is kept: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub undo_expiry: Duration,
    /// Which containers may use the host's network, where whoever makes them has that right: none, those made here, or also those that come from other servers.
    #[arg(long, value_name = "WHICH", default_value = "local")]
    pub host_network: WhichNetwork,
    /// Serve /metrics, to anybody who can reach the address.
    #[arg(long)]
    pub metrics: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Which containers may use the host's network.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum WhichNetwork {
    /// None; those that there are do not start.
    Never,
    /// Those that are made on this server.
    Local,
    /// Also those that other servers copy or move here.
    Any,
}

impl From<WhichNetwork> for HostNetwork {
    fn from(which: WhichNetwork) -> Self {
        match which {
            WhichNetwork::Never => HostNetwork::Never,
            WhichNetwork::Local => HostNetwork::Local,
            WhichNetwork::Any => HostNetwork::Any,
        }
    }
}

/// Tokens.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token and prints it: it is shown this once.
    Create {
        #[command(flatten)]
        pool: PoolArgs,
        /// To tell it by.
        #[arg(long)]
        name: Option<String>,
        /// A project it reaches; may be repeated [default: all].
        #[arg(long, value_name = "ID")]
        project: Vec<ProjectId>,
        /// It may only read.
        #[arg(long)]
        read_only: bool,
        /// It is for another server, which may copy its own containers here with it, and read those of which a copy was ordered for it.
        #[arg(long, conflicts_with = "read_only")]
        replication: bool,
        /// The server it is for: a peer's name, or a server's id [default: the first server that uses it].
        #[arg(long, requires = "replication", value_name = "NAME|ID")]
        peer: Option<String>,
        /// It may make containers that use the host's network (`network: "host"`).
        #[arg(long, conflicts_with_all = ["read_only", "replication"])]
        allow_host_network: bool,
    },
    /// Lists tokens, not their secrets.
    List {
        #[command(flatten)]
        pool: PoolArgs,
    },
    /// Revokes a token at once.
    Revoke {
        #[command(flatten)]
        pool: PoolArgs,
        /// Its id or name.
        token: String,
    },
}

/// How to check.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub pool: PoolArgs,
    /// Mend what can be mended.
    #[arg(long)]
    pub repair: bool,
}

impl PoolArgs {
    /// The configuration of an existing pool.
    ///
    /// # Errors
    /// When the data directory is not there.
    pub fn config(&self) -> Result<HostConfig> {
        let data = self.data.canonicalize().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(Code::DataNotFound, format!("there is no pool in {}: `serve --data` makes one", self.data.display())),
            _ => Error::io(format!("open {}", self.data.display()), e),
        })?;
        let mounted = HostConfig { device: self.device.clone(), ..HostConfig::new(&data, "") }.mounted_run()?;
        // Without --run the pool's own place is taken: where it is mounted now, else the default one.
        let run = self.run.clone().or(mounted).unwrap_or_else(|| {
            let mut hash = String::new();
            for b in &Sha256::digest(data.as_os_str().as_encoded_bytes())[..8] {
                let _ = write!(hash, "{b:02x}");
            }
            PathBuf::from("/run/hoody-state").join(hash)
        });
        Ok(HostConfig { device: self.device.clone(), ..HostConfig::new(data, run) })
    }
}

impl ServeArgs {
    /// The configuration; the data directory is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn config(&self) -> Result<HostConfig> {
        use std::os::unix::fs::DirBuilderExt;
        let data = &self.pool.data;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).io(|| format!("make {}", data.display()))?;
        Ok(HostConfig {
            pool_size: self.pool_size,
            pool_reserve: self.pool_reserve,
            server_name: self.server_name.clone(),
            runtime: self.runtime.clone(),
            id_base: self.id_base,
            databases: if self.no_databases { None } else { Some(self.databases.clone().unwrap_or_else(beside)) },
            container_tasks: Some(self.container_tasks),
            pool_tasks: self.pool_tasks,
            save_power: self.save_power,
            transport: Some(std::sync::Arc::new(hoody_state_http::transport::HttpTransport::new())),
            settings: Settings {
                undo_expiry: self.undo_expiry,
                default_disk: self.default_disk,
                max_nested_volumes: self.max_nested_volumes,
                host_network: self.host_network.into(),
                ..Settings::default()
            },
            ..self.pool.config()?
        })
    }
}

/// The daemon that was installed with this program.
fn beside() -> PathBuf {
    let name = "hoody-state-fuse";
    let own = std::env::current_exe().ok().map(|exe| exe.with_file_name(name)).filter(|p| p.is_file());
    own.unwrap_or_else(|| PathBuf::from(name))
}

/// `90s`, `30m`, `24h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: write 90s, 30m, 24h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let n: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    n.checked_mul(unit).filter(|s| *s <= 10 * 365 * 86_400).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "h", "24", "-1h", "1w", "99999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
