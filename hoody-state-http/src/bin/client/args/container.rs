//! Arguments of `hoody-state container`.

use super::{Wait, pair};
use clap::{Args, Subcommand};
use hoody_state::units::Bytes;

#[derive(Debug, Subcommand)]
pub enum Container {
    /// List containers
    #[command(visible_alias = "ls")]
    List {
        /// Only containers of this project (id or alias)
        #[arg(short, long)]
        project: Option<String>,
    },
    /// Create a container and start it
    Create(Box<CreateContainer>),
    /// Change the disk limit of a container, or whether it has a socket for a part of the API
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Update {
        /// Id or name of the container
        container: String,
        /// Disk space for its volumes and snapshots, such as 20G; `none` removes the limit. It takes effect at once
        #[arg(long, value_name = "SIZE", group = "what")]
        disk: Option<String>,
        /// Whether it has the socket /run/hoody.sock: from its next start on; `false` closes it at once
        #[arg(long, value_name = "BOOL", group = "what")]
        api_socket: Option<bool>,
    },
    /// Show a container
    Show {
        /// Id or name of the container
        container: String,
    },
    /// Start a container
    Start(Change),
    /// Stop a container
    Stop {
        #[command(flatten)]
        change: Change,
        /// Kill its processes at once
        #[arg(long)]
        force: bool,
        /// How long its init may take to end before it is killed, in seconds
        #[arg(long, value_name = "SECONDS", conflicts_with = "force", value_parser = clap::value_parser!(u32).range(1..=600))]
        grace: Option<u32>,
    },
    /// Stop a container, then start it
    Restart(Change),
    /// Pause a container: freeze all its processes
    Pause(Change),
    /// Resume a paused container
    Resume(Change),
    /// Delete a container and all its snapshots. If its policy says so, it can be recovered from the trash for a while
    #[command(visible_alias = "rm")]
    Delete(DeleteContainer),
    /// Copy a container with all its snapshots, on this server or to another
    Copy(Copy),
    /// Create several copies of a container at once
    Fork(Fork),
    /// Bring a copy up to date with the container it was copied from
    Sync(Sync),
    /// Move a container to another server
    Move(Move),
    /// Print the console output of a container's init
    Logs {
        /// Id or name of the container
        container: String,
        /// Keep printing new output
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "LINES")]
        tail: Option<u64>,
    },
    /// Run a command in a container and exit with its exit code
    Exec {
        /// Id or name of the container
        container: String,
        /// Set a variable for the command
        #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
        env: Vec<(String, String)>,
        /// Working directory in the container [default: /]
        #[arg(short = 'w', long)]
        cwd: Option<String>,
        /// Pass standard input to the command
        #[arg(short, long)]
        interactive: bool,
        /// Kill the command after this time
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 3_600_000)]
        timeout_ms: u64,
        /// Take a snapshot before the command runs
        #[arg(long)]
        snapshot: bool,
        /// Take a snapshot before the command runs, and restore it if the command fails
        #[arg(long)]
        undo_on_failure: bool,
        /// Show what changed in the files of the container while the command ran
        #[arg(long)]
        diff: bool,
        /// What an undo does with databases that other containers use too
        #[arg(long, value_name = "WHAT", value_parser = ["revert", "keep"], requires = "undo_on_failure")]
        databases: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show the CPU time, memory and disk space that a container uses
    Stats {
        /// Id or name of the container
        container: String,
    },
    /// Show what a container and its snapshots keep on disk, and what deleting each snapshot would free
    Usage {
        /// Id or name of the container
        container: String,
        /// How long to wait for what has still to be measured, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=25))]
        wait: u64,
    },
    /// Show or change the environment variables of a container
    Env {
        /// Id or name of the container
        container: String,
        /// Variables to set
        #[arg(value_name = "KEY=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Variable to remove
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Copy {
    /// Id or name of the container to copy
    pub container: String,
    /// Name for the copy [default: a generated one]
    pub name: Option<String>,
    /// Copy this snapshot instead of the live state
    #[arg(short, long)]
    pub snapshot: Option<String>,
    /// Project for the copy (id or alias) [default: the same project]
    #[arg(short, long)]
    pub project: Option<String>,
    /// Server to copy to (id or name) [default: this server]
    #[arg(long)]
    pub server: Option<String>,
    /// Do not start the copy
    #[arg(long)]
    pub no_start: bool,
    /// Keep the machine id, SSH host keys and random seed of the source, for a copy that stands by for it
    #[arg(long)]
    pub same_identity: bool,
    /// Limit the transfer to this many bytes a second, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Fork {
    /// Id or name of the container to copy
    pub container: String,
    /// How many copies
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub count: u32,
    /// Copy this snapshot instead of the live state
    #[arg(short, long)]
    pub snapshot: Option<String>,
    /// Names of the copies are this and a number [default: the container's name]
    #[arg(long)]
    pub prefix: Option<String>,
    /// Do not start the copies
    #[arg(long)]
    pub no_start: bool,
    /// Keep the machine id, SSH host keys and random seed of the source
    #[arg(long)]
    pub same_identity: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Sync {
    /// Id or name of the copy
    pub container: String,
    /// Refuse if the copy was changed, instead of keeping its changes as a snapshot
    #[arg(long)]
    pub no_force: bool,
    /// Limit the transfer to this many bytes a second, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Move {
    /// Id or name of the container
    pub container: String,
    /// Server to move it to (id or name)
    pub server: String,
    /// Project on that server (id, or alias here) [default: the same project]
    #[arg(short, long)]
    pub project: Option<String>,
    /// Name on that server [default: the same name]
    #[arg(long)]
    pub name: Option<String>,
    /// Limit the transfer to this many bytes a second, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

/// A change of one container.
#[derive(Debug, Args)]
pub struct Change {
    /// Id or name of the container
    pub container: String,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct CreateContainer {
    /// 3 to 100 characters of A-Z a-z 0-9 _ - [default: a generated name]
    pub name: Option<String>,
    /// Project of the container (id or alias)
    #[arg(short, long)]
    pub project: String,
    /// Image to create it from [default: the server's default image]
    #[arg(short, long)]
    pub image: Option<String>,
    /// Set an environment variable
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Memory limit in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Disk space for its volumes and snapshots, such as 20G; `none` sets no limit [default: the server's]
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// CPU limit as a number of processors, such as 0.5
    #[arg(long, value_name = "PROCESSORS")]
    pub cpu: Option<f64>,
    /// Its network: none, or the network of the host
    #[arg(long, value_parser = ["none", "host"])]
    pub network: Option<String>,
    /// Give it the socket /run/hoody.sock, by which its root uses a part of the API for this container
    #[arg(long)]
    pub api_socket: bool,
    /// Whether its directory of databases is shared with the project or private
    #[arg(long, value_parser = ["project", "private"])]
    pub databases: Option<String>,
    /// File system of its root
    #[arg(long, value_parser = ["btrfs", "ext4"])]
    pub filesystem: Option<String>,
    /// A comment
    #[arg(long)]
    pub comment: Option<String>,
    /// Do not start it when the host starts
    #[arg(long)]
    pub no_autostart: bool,
    /// Do not mount a RAM disk on /ramdisk
    #[arg(long)]
    pub no_ramdisk: bool,
    #[command(flatten)]
    pub wait: Wait,
    /// Command to run as its init, instead of the image's
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `container delete`.
#[derive(Debug, Args)]
pub struct DeleteContainer {
    #[command(flatten)]
    pub change: Change,
    /// Delete it for good, whatever its policy says
    #[arg(long)]
    pub permanently: bool,
}
