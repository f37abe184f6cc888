//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use hoody_state::units::Bytes;
use std::path::PathBuf;

/// Snapshot, restore, branch and pause containers.
#[derive(Debug, Parser)]
#[command(
    name = "hoody-state",
    version,
    about = "Snapshot, restore and pause containers of a hoody-state server",
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
pub struct Global {
    /// The server's address [env: HOODY_STATE_URL; default: for root without a token the socket of the server on this machine, else http://127.0.0.1:7878]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    pub url: Option<String>,
    /// The server's UNIX socket, which takes root without a token [env: HOODY_STATE_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The certificate of an https server, as `hoody-state-http certificate` prints it there, or of its authority [env: HOODY_STATE_CA]
    #[arg(long, global = true, value_name = "PEM")]
    pub server_ca: Option<PathBuf>,
    /// The token made by `hoody-state-http token create` [env: HOODY_TOKEN, the better place: a command line can be seen by others]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How to print: for people, or the answer's data as JSON
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Do not ask before something is deleted or overwritten
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Projects: groups of containers with databases in common
    #[command(subcommand, visible_alias = "projects")]
    Project(Project),
    /// Containers: by id, name, or PROJECT/NAME
    #[command(subcommand, visible_alias = "containers")]
    Container(Container),
    /// Snapshots of a container
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(Snapshot),
    /// Images that containers are made from
    #[command(subcommand, visible_alias = "images")]
    Image(Image),
    /// Other servers, to copy and move containers to
    #[command(subcommand, visible_alias = "peers")]
    Peer(Peer),
    /// The file system everything is in
    #[command(subcommand)]
    Pool(Pool),
    /// Operations that run in the background
    #[command(subcommand, visible_alias = "operations")]
    Operation(Operation),
    /// Follow what happens
    Events(EventsArgs),
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum Project {
    /// List projects
    #[command(visible_alias = "ls")]
    List,
    /// Make a project
    Create {
        alias: String,
        /// #RRGGBB
        #[arg(long)]
        color: Option<String>,
        #[arg(long)]
        max_containers: Option<u32>,
    },
    /// Show a project
    Show { project: String },
    /// Delete a project and all of its containers
    #[command(visible_alias = "rm")]
    Delete { project: String },
}

#[derive(Debug, Subcommand)]
pub enum Container {
    /// List containers
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this project (id or alias)
        #[arg(short, long)]
        project: Option<String>,
    },
    /// Make a container and start it
    Create(Box<CreateContainer>),
    /// Changes the disk limit of a container, at once
    Update {
        container: String,
        /// What its volumes and snapshots may hold, such as 20G; none: no limit
        #[arg(long, value_name = "SIZE")]
        disk: String,
    },
    /// Show a container
    Show { container: String },
    /// Start it
    Start(Change),
    /// Stop it
    Stop {
        #[command(flatten)]
        change: Change,
        /// Kill at once
        #[arg(long)]
        force: bool,
        /// Seconds until it is killed
        #[arg(long, value_name = "SECONDS", conflicts_with = "force", value_parser = clap::value_parser!(u32).range(1..=600))]
        grace: Option<u32>,
    },
    /// Stop it, then start it
    Restart(Change),
    /// Freeze every process of it
    Pause(Change),
    /// Let its processes go on
    Resume(Change),
    /// Delete it and all of its snapshots
    #[command(visible_alias = "rm")]
    Delete(Change),
    /// Copy it with all of its snapshots, here or to another server
    Copy(Copy),
    /// Make several copies of it at once
    Fork(Fork),
    /// Bring a copy up to what it was copied from
    Sync(Sync),
    /// Move it to another server
    Move(Move),
    /// Print the console of its init
    Logs {
        container: String,
        /// Go on printing what comes
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "LINES")]
        tail: Option<u64>,
    },
    /// Run a command in it; ends with the command's own exit code
    Exec {
        container: String,
        #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
        env: Vec<(String, String)>,
        #[arg(short = 'w', long)]
        cwd: Option<String>,
        /// Give it this program's standard input
        #[arg(short, long)]
        interactive: bool,
        /// It is killed after so long
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 3_600_000)]
        timeout_ms: u64,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show what it uses
    Stats { container: String },
    /// Show or change its environment
    Env {
        container: String,
        /// Variables to set
        #[arg(value_name = "KEY=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Variables to remove
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Copy {
    pub container: String,
    /// What to call it; made up when absent
    pub name: Option<String>,
    /// The snapshot to begin from; the live state when absent
    #[arg(short, long)]
    pub snapshot: Option<String>,
    /// The project it belongs to (id or alias); the same when absent
    #[arg(short, long)]
    pub project: Option<String>,
    /// The server it goes to (id or name); this one when absent
    #[arg(long)]
    pub server: Option<String>,
    /// Do not start it
    #[arg(long)]
    pub no_start: bool,
    /// Bytes a second at most, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Fork {
    pub container: String,
    /// How many
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub count: u32,
    /// The snapshot to begin from; the live state when absent
    #[arg(short, long)]
    pub snapshot: Option<String>,
    /// Their names are this and a number; the container's name when absent
    #[arg(long)]
    pub prefix: Option<String>,
    /// Do not start them
    #[arg(long)]
    pub no_start: bool,
}

#[derive(Debug, Args)]
pub struct Sync {
    pub container: String,
    /// Refuse if the copy was changed, instead of keeping that as a snapshot
    #[arg(long)]
    pub no_force: bool,
    /// Bytes a second at most, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Move {
    pub container: String,
    /// The server it goes to (id or name)
    pub server: String,
    /// The project there (id or alias here); the same when absent
    #[arg(short, long)]
    pub project: Option<String>,
    /// Its name there; the same when absent
    #[arg(long)]
    pub name: Option<String>,
    /// Bytes a second at most, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub rate_limit: Option<Bytes>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Subcommand)]
pub enum Peer {
    /// List the servers that this one knows
    #[command(visible_alias = "ls")]
    List,
    /// Make a server known; its replication token is read from standard input or HOODY_PEER_TOKEN
    Add {
        /// https://HOST:PORT, or http://127.0.0.1:PORT for one on the same machine
        // Not `url`: that is the server that is asked.
        #[arg(value_name = "URL")]
        address: String,
        /// What to call it; its own name when absent
        #[arg(long)]
        name: Option<String>,
        /// Its certificate, as `hoody-state-http certificate` prints it there
        #[arg(long, value_name = "PEM")]
        ca: Option<PathBuf>,
    },
    /// Forget a server
    #[command(visible_alias = "rm")]
    Remove { peer: String },
}

/// A change of one container.
#[derive(Debug, Args)]
pub struct Change {
    pub container: String,
    #[command(flatten)]
    pub wait: Wait,
}

/// Whether to wait for the end of it.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Return as soon as the server has taken it on
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait at most
    #[arg(long = "wait-timeout", value_name = "SECONDS", default_value_t = 300)]
    pub timeout_s: u64,
}

#[derive(Debug, Args)]
pub struct CreateContainer {
    /// 3 to 100 of A-Z a-z 0-9 _ -; made up when absent
    pub name: Option<String>,
    /// The project (id or alias)
    #[arg(short, long)]
    pub project: String,
    /// The image; the server's default when absent
    #[arg(short, long)]
    pub image: Option<String>,
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// MiB of memory
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// What its volumes and snapshots may hold, such as 20G; none: no limit [default: the server's]
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// Number of processors, may be a fraction
    #[arg(long)]
    pub cpu: Option<f64>,
    #[arg(long, value_parser = ["none", "host"])]
    pub network: Option<String>,
    #[arg(long, value_parser = ["project", "private"])]
    pub databases: Option<String>,
    #[arg(long, value_parser = ["btrfs", "ext4"])]
    pub filesystem: Option<String>,
    #[arg(long)]
    pub comment: Option<String>,
    /// Do not start it when the host starts
    #[arg(long)]
    pub no_autostart: bool,
    /// Without /ramdisk
    #[arg(long)]
    pub no_ramdisk: bool,
    #[command(flatten)]
    pub wait: Wait,
    /// Its init, instead of the image's
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// List a container's snapshots
    #[command(visible_alias = "ls")]
    List { container: String },
    /// Take one
    Create {
        container: String,
        /// What to call it
        alias: Option<String>,
        /// Days after which it goes by itself
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expiry: Option<u32>,
        #[arg(long)]
        description: Option<String>,
        #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Replace the snapshot that has this alias
        #[arg(long, requires = "alias")]
        replace: bool,
    },
    /// Show one
    Show(OneSnapshot),
    /// Put the container back to it; what is overwritten is kept as an undo snapshot for a day
    Restore {
        #[command(flatten)]
        one: OneSnapshot,
        /// Keep what is overwritten as a snapshot of this alias
        #[arg(long, value_name = "ALIAS")]
        keep_current: Option<String>,
        /// What becomes of databases that other containers use
        #[arg(long, value_parser = ["revert", "keep"])]
        databases: Option<String>,
        /// Leave the container stopped
        #[arg(long)]
        no_start: bool,
    },
    /// Undo the last restore
    Undo { container: String },
    /// Change what it is called
    Rename {
        #[command(flatten)]
        one: OneSnapshot,
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        alias: Option<String>,
        /// Take its alias away
        #[arg(long)]
        none: bool,
    },
    /// Keep it from being deleted or expiring
    Pin {
        #[command(flatten)]
        one: OneSnapshot,
        #[arg(long, default_value = "pinned by hoody-state")]
        reason: String,
    },
    /// Take the pin away
    Unpin(OneSnapshot),
    /// Say when it goes by itself
    Expire {
        #[command(flatten)]
        one: OneSnapshot,
        #[command(flatten)]
        when: Expiry,
    },
    /// Delete it
    #[command(visible_alias = "rm")]
    Delete(OneSnapshot),
}

/// One snapshot of a container.
#[derive(Debug, Args)]
pub struct OneSnapshot {
    pub container: String,
    /// Its name or alias
    pub snapshot: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Expiry {
    /// After so many days
    #[arg(long = "in", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: Option<u32>,
    /// At this time, as 2026-12-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
    /// Never
    #[arg(long)]
    pub never: bool,
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Show an image
    Show { name: String },
    /// Make an image from a tar, plain or compressed by gzip or zstd
    Import {
        name: String,
        /// `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        wait: Wait,
    },
    /// Make an image from a snapshot
    FromSnapshot {
        name: String,
        #[command(flatten)]
        one: OneSnapshot,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete an image; containers made from it stay
    #[command(visible_alias = "rm")]
    Delete { name: String },
}

#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Show its space and health
    Show,
}

#[derive(Debug, Subcommand)]
pub enum Operation {
    /// List operations
    #[command(visible_alias = "ls")]
    List,
    /// Show an operation
    Show { id: String },
    /// Ask an operation to stop and undo what it did
    Cancel { id: String },
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this container (id or name)
    #[arg(long)]
    pub container: Option<String>,
    /// Only events of this type, such as container.running
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// End after so many
    #[arg(long)]
    pub count: Option<u64>,
}

fn pair(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
