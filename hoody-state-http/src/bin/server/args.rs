//! The command line.

pub use crate::limits::LimitArgs;
use clap::{Parser, Subcommand};
use hoody_state::HostConfig;
use hoody_state::error::IoContext;
use hoody_state::host::{HostNetwork, Settings};
use hoody_state::id::ProjectId;
use hoody_state::model::IdentityPart;
use hoody_state::pool::Reserve;
use hoody_state::units::Bytes;
use hoody_state::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Serve containers and their snapshots over HTTP.
///
/// Exit codes: 0 success, 1 failure (`check`: findings are left), 2 wrong arguments, 3 in use, 4 not permitted, 5 something that is needed is
/// missing, 6 not found, 7 no space. The log goes to standard error; HOODY_STATE_LOG sets its level (error, warn, info, debug or trace).
#[derive(Debug, Parser)]
#[command(name = "hoody-state-http", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server. On SIGTERM or SIGINT it stops; the containers keep running.
    Serve(Box<ServeArgs>),
    /// Create, list and revoke access tokens. The server may be running.
    Token(TokenArgs),
    /// Check that catalog, pool, mounts, cgroups and loop devices agree. Prints one line for each finding.
    Check(CheckArgs),
    /// Stop all containers and unmount the pool. The server must not be running.
    Unmount(PoolArgs),
    /// Print the server's self-signed certificate. Other servers need it to trust this one (`hoody-state peer add --ca`).
    Certificate {
        /// Directory of the pool
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Host name or address at which other servers reach this one. Can be repeated. Used only when the certificate is created.
        #[arg(long, value_name = "HOST")]
        name: Vec<String>,
    },
    /// Write a small image to standard output: a tar archive with this machine's static busybox.
    DemoImage {
        /// A statically linked busybox, such as the one of Debian's package busybox-static
        #[arg(long, value_name = "PATH", default_value = "/bin/busybox")]
        busybox: PathBuf,
    },
}

/// The pool.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    /// Directory of the pool
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory for mounts, sockets and state that a reboot removes [default: /run/hoody-state/<hash of the data path>]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Block device to use instead of an image file in the data directory
    #[arg(long, value_name = "DEV")]
    pub device: Option<PathBuf>,
}

/// Settings of the server.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub pool: PoolArgs,
    /// TCP address to listen on; port 0 picks a free one. TLS is used for any address but loopback.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7878")]
    pub listen: SocketAddr,
    /// Certificate chain for TLS, in PEM [default: none on loopback, else a self-signed one: see `certificate`]
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "PEM", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// UNIX socket to listen on [default: <run>/api.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Size of the image file when the pool is created
    #[arg(long, value_name = "SIZE", conflicts_with = "device")]
    pub pool_size: Option<Bytes>,
    /// Disk space to reserve for the image file: full (all of it), a SIZE beyond what is in use, or none. Without a reserve, a full disk makes the
    /// pool read-only.
    #[arg(long, value_name = "SIZE|full|none", default_value = "2G", conflicts_with = "device")]
    pub pool_reserve: Reserve,
    /// Disk limit of containers that are created without one, for their volumes and snapshots [default: none]
    #[arg(long, value_name = "SIZE")]
    pub default_disk: Option<Bytes>,
    /// Most subvolumes inside a container. Snapshots of a container with more are refused.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_nested_volumes: u32,
    /// Name of this server [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// OCI runtime, as a name or a path [default: the first of runc, crun, youki in PATH]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// Path of hoody-state-fuse, which serves /hoody/databases [default: beside this program, else in PATH]
    #[arg(long, value_name = "PATH", conflicts_with = "no_databases")]
    pub databases: Option<PathBuf>,
    /// Run without /hoody/databases
    #[arg(long)]
    pub no_databases: bool,
    /// Let idle processors sleep while databases are busy. Saves power; a transaction takes up to four times as long.
    #[arg(long)]
    pub save_power: bool,
    /// First user id on the host for the users of containers. Used only when the pool is created.
    #[arg(long, value_name = "N")]
    pub id_base: Option<u32>,
    /// Most processes and threads of a container
    #[arg(long, value_name = "N", default_value_t = hoody_state::runtime::oci::CONTAINER_TASKS, value_parser = clap::value_parser!(u64).range(32..))]
    pub container_tasks: u64,
    /// Most processes and threads of all containers together [default: three quarters of what the host allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(32..))]
    pub pool_tasks: Option<u64>,
    /// How long the state before a restore is kept, such as 30m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub undo_expiry: Duration,
    /// What a copy of a container gets anew before its first boot, unless the copy is to stand by for its source
    #[arg(long, value_name = "PARTS", value_enum, value_delimiter = ',', default_value = "machine-id,ssh-host-keys,random-seed")]
    pub new_identity: Vec<WhichIdentity>,
    /// Which containers may use the network of the host. Their creator needs a token with that right, too.
    #[arg(long, value_name = "WHICH", default_value = "local")]
    pub host_network: WhichNetwork,
    /// Serve /metrics. It needs no token: everybody who can reach the address can read it.
    #[arg(long)]
    pub metrics: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Which containers may use the network of the host.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum WhichNetwork {
    /// None; existing ones do not start
    Never,
    /// Those created on this server
    Local,
    /// Those created on this server, and those copied or moved here from other servers
    Any,
}

/// A part of what makes a machine a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WhichIdentity {
    /// /etc/machine-id
    MachineId,
    /// /etc/ssh/ssh_host_*_key
    SshHostKeys,
    /// What the random numbers of the next boot begin from
    RandomSeed,
    /// Nothing: alone
    None,
}

impl WhichIdentity {
    fn part(self) -> Option<IdentityPart> {
        match self {
            WhichIdentity::MachineId => Some(IdentityPart::MachineId),
            WhichIdentity::SshHostKeys => Some(IdentityPart::SshHostKeys),
            WhichIdentity::RandomSeed => Some(IdentityPart::RandomSeed),
            WhichIdentity::None => None,
        }
    }
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

/// Manage tokens.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// The commands for tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it. It cannot be shown again.
    Create {
        #[command(flatten)]
        pool: PoolArgs,
        /// Name of the token [default: a generated one]
        #[arg(long)]
        name: Option<String>,
        /// Limit the token to this project. Can be repeated [default: all projects]
        #[arg(long, value_name = "ID")]
        project: Vec<ProjectId>,
        /// The token can only read
        #[arg(long)]
        read_only: bool,
        /// The token is for another server, which can use it to copy containers here, and to read the containers that are to be copied to it
        #[arg(long, conflicts_with = "read_only")]
        replication: bool,
        /// The server the token is for: the name of a peer, or the id of a server [default: the first server that uses it]
        #[arg(long, requires = "replication", value_name = "NAME|ID")]
        peer: Option<String>,
        /// The token can create containers that use the network of the host (`network: "host"`)
        #[arg(long, conflicts_with_all = ["read_only", "replication"])]
        allow_host_network: bool,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        pool: PoolArgs,
    },
    /// Revoke a token. It takes effect at once, also for open streams
    Revoke {
        #[command(flatten)]
        pool: PoolArgs,
        /// Id or name of the token
        token: String,
    },
}

/// Settings of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub pool: PoolArgs,
    /// Repair what can be repaired
    #[arg(long)]
    pub repair: bool,
}

impl PoolArgs {
    /// The configuration of an existing pool.
    ///
    /// # Errors
    /// When the data directory does not exist.
    pub fn config(&self) -> Result<HostConfig> {
        let data = self.data.canonicalize().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(Code::DataNotFound, format!("there is no pool in {}: `serve --data` creates one", self.data.display())),
            _ => Error::io(format!("open {}", self.data.display()), e),
        })?;
        let mounted = HostConfig { device: self.device.clone(), ..HostConfig::new(&data, "") }.mounted_run()?;
        // Without --run: where the pool is mounted now, else the default.
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
    /// The configuration. The data directory is created if it does not exist.
    ///
    /// # Errors
    /// When it cannot be created.
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
            databases: if self.no_databases { None } else { Some(self.databases.clone().unwrap_or_else(fuse_program)) },
            container_tasks: Some(self.container_tasks),
            pool_tasks: self.pool_tasks,
            save_power: self.save_power,
            api_sockets: true,
            transport: Some(std::sync::Arc::new(hoody_state_http::transport::HttpTransport::new())),
            settings: Settings {
                undo_expiry: self.undo_expiry,
                default_disk: self.default_disk,
                max_nested_volumes: self.max_nested_volumes,
                new_identity: self.new_identity.iter().filter_map(|which| which.part()).collect(),
                host_network: self.host_network.into(),
                ..Settings::default()
            },
            ..self.pool.config()?
        })
    }
}

/// hoody-state-fuse: beside this program, else to be found in PATH.
fn fuse_program() -> PathBuf {
    let name = "hoody-state-fuse";
    let own = std::env::current_exe().ok().map(|exe| exe.with_file_name(name)).filter(|p| p.is_file());
    own.unwrap_or_else(|| PathBuf::from(name))
}

/// `90s`, `30m`, `24h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time: write 90s, 30m, 24h or 7d");
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
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "h", "24", "-1h", "1w", "99999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
