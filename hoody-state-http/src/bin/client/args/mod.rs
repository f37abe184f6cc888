//! The command line.

mod checkout;
mod container;
mod diff;
mod files;
mod policy;
mod promote;
mod snapshot;
mod trash;

pub use checkout::Checkout;
pub use container::{Change, Container, Copy, CreateContainer, Fork, Move, Sync};
pub use diff::Diff;
pub use files::{Cat, Cp, Ls};
pub use policy::{NewPolicy, Policy, PolicyEvent, PolicyTarget};
pub use promote::{Prefer, Promote, Reset, ResetTo};
pub use snapshot::{Filter, OneSnapshot, Snapshot};
pub use trash::Trash;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  hoody-state container create box --project dev    Create a container and start it
  hoody-state snapshot create box before-upgrade    Take a snapshot of it
  hoody-state diff box:before-upgrade               See what has changed since
  hoody-state snapshot restore box before-upgrade   Restore that snapshot
  hoody-state snapshot undo box                     Undo the restore";

/// Snapshot, restore, branch and pause containers.
#[derive(Debug, Parser)]
#[command(
    name = "hoody-state",
    version,
    about = "Snapshot, restore, copy and pause the containers of a hoody-state server",
    after_help = EXAMPLES,
    arg_required_else_help = true,
    propagate_version = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub noun: Noun,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// URL of the server [env: HOODY_STATE_URL; default: for root without a token the socket of the server on this machine, else http://127.0.0.1:7878]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    pub url: Option<String>,
    /// UNIX socket of the server; root needs no token there [env: HOODY_STATE_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// File with the certificate of an https server (`hoody-state-http certificate` prints it there) or of its authority [env: HOODY_STATE_CA]
    #[arg(long, global = true, value_name = "PEM")]
    pub server_ca: Option<PathBuf>,
    /// Token made by `hoody-state-http token create`. Prefer the variable: other users can see a command line [env: HOODY_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Output format: a table for people, or the data of the server's answer as JSON
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Do not show long output in a pager. A pager is used on a terminal, where the output is longer than the screen [env: PAGER; default: less]
    #[arg(long, global = true)]
    pub no_pager: bool,
    /// When to use colors; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub colors: Color,
    /// Do not ask for confirmation before something is deleted or overwritten
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// When to use colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Manage projects: groups of containers that can share databases
    #[command(subcommand, visible_alias = "projects")]
    Project(Project),
    /// Manage containers. CONTAINER is an id, a name, or PROJECT/NAME
    #[command(subcommand, visible_alias = "containers")]
    Container(Container),
    /// Take, restore and manage snapshots of a container
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(Snapshot),
    /// Set when snapshots are taken automatically, and how long they are kept
    #[command(subcommand, visible_alias = "policies")]
    Policy(Policy),
    /// Show what differs between a snapshot and another state of a container
    Diff(Diff),
    /// Restore single files and directories of a snapshot. The state before is kept as an undo snapshot for a day
    Checkout(Checkout),
    /// Show where the states of containers come from: snapshots, restores, forks, copies
    Log(LogArgs),
    /// Take the changes of a fork over into the container that it came from
    Promote(Promote),
    /// Take a fork back to where it branched off, or to what its source is now
    Reset(Reset),
    /// Print files of a container, as they are or as they were in a snapshot
    Cat(Cat),
    /// List a directory of a container, or the versions of a file
    Ls(Ls),
    /// Copy files out of a container or into it. A file is written in one step
    Cp(Cp),
    /// Manage the images that containers are created from
    #[command(subcommand, visible_alias = "images")]
    Image(Image),
    /// List, recover and delete containers that were deleted and are kept for a while
    #[command(subcommand)]
    Trash(Trash),
    /// Manage the other servers that containers can be copied and moved to
    #[command(subcommand, visible_alias = "peers")]
    Peer(Peer),
    /// Show the BTRFS file system that holds the containers
    #[command(subcommand)]
    Pool(Pool),
    /// List and cancel operations that run in the background
    #[command(subcommand, visible_alias = "operations")]
    Operation(Operation),
    /// Print events as they happen
    Events(EventsArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum Project {
    /// List projects
    #[command(visible_alias = "ls")]
    List,
    /// Create a project
    Create {
        /// Name of the project
        alias: String,
        /// Color, as #RRGGBB
        #[arg(long)]
        color: Option<String>,
        /// How many containers the project may have [default: no limit]
        #[arg(long, value_name = "COUNT")]
        max_containers: Option<u32>,
    },
    /// Show a project
    Show {
        /// Id or alias of the project
        project: String,
    },
    /// Delete a project and all its containers. Those whose policy says so can be recovered from the trash for a while, into another project
    #[command(visible_alias = "rm")]
    Delete {
        /// Id or alias of the project
        project: String,
        /// Delete its containers for good, whatever their policies say
        #[arg(long)]
        permanently: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub enum Peer {
    /// List the servers that this server knows
    #[command(visible_alias = "ls")]
    List,
    /// Add a server. Its replication token is read from standard input or HOODY_PEER_TOKEN
    Add {
        /// https://HOST:PORT, or http://127.0.0.1:PORT for a server on the same machine
        // Not `url`: that is the server that is asked.
        #[arg(value_name = "URL")]
        address: String,
        /// Name for the server here [default: its own name]
        #[arg(long)]
        name: Option<String>,
        /// File with its certificate, as `hoody-state-http certificate` prints it there
        #[arg(long, value_name = "PEM")]
        ca: Option<PathBuf>,
    },
    /// Remove a server
    #[command(visible_alias = "rm")]
    Remove {
        /// Id or name of the server
        peer: String,
    },
}

/// Whether to wait until a change is finished.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Return as soon as the server has accepted the change
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for the change to finish, in seconds
    #[arg(long = "wait-timeout", value_name = "SECONDS", default_value_t = 300)]
    pub timeout_s: u64,
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Show an image
    Show {
        /// Name of the image
        name: String,
    },
    /// Import an image from a tar archive, which may be compressed with gzip or zstd
    Import {
        /// Name for the image
        name: String,
        /// The archive; `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        wait: Wait,
    },
    /// Create an image from a snapshot of a container
    FromSnapshot {
        /// Name for the image
        name: String,
        #[command(flatten)]
        one: OneSnapshot,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete an image. Containers created from it stay
    #[command(visible_alias = "rm")]
    Delete {
        /// Name of the image
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Show size, free space and health
    Show,
    /// Merge equal data of containers and images, so that they take their space once
    Dedupe {
        /// Only containers of this project (id or alias)
        #[arg(short, long)]
        project: Option<String>,
        /// Only this container (id or name); may be given several times
        #[arg(short, long = "container", value_name = "CONTAINER")]
        containers: Vec<String>,
        /// Leave out smaller files, such as 1M
        #[arg(long, value_name = "SIZE")]
        min_size: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub enum Operation {
    /// List operations, newest first
    #[command(visible_alias = "ls")]
    List,
    /// Show an operation
    Show {
        /// Id of the operation
        id: String,
    },
    /// Cancel an operation: it stops, and what it did is undone
    Cancel {
        /// Id of the operation
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events of this container (id or name)
    #[arg(long)]
    pub container: Option<String>,
    /// Only events of this type, such as container.running
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Stop after this many events
    #[arg(long)]
    pub count: Option<u64>,
}

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// A container (id, name or PROJECT/NAME), or a project [default: all projects]
    pub name: Option<String>,
    /// One line for each entry
    #[arg(long)]
    pub oneline: bool,
    /// Draw how the entries come from each other
    #[arg(long)]
    pub graph: bool,
    /// Show at most this many entries, beside what is now
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub number: Option<u64>,
    /// Also show the other containers of the project, and snapshots that were copied along with a container
    #[arg(long)]
    pub all: bool,
}

fn pair(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
