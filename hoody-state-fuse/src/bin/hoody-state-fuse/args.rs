//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  hoody-state-fuse mount /srv/app/data        Mount a directory over itself: no path changes
  hoody-state-fuse mount /srv/backing /mnt    Mount it elsewhere
  hoody-state-fuse status /mnt                Show who holds and who waits for which database
  hoody-state-fuse quiesce /mnt -- sh -c 'cp -r \"$BACKING\" /backup'
  hoody-state-fuse unmount /mnt";

/// SQLite without `database is locked`: mount a directory so that processes wait for each other instead of failing.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Mount BACKING on MOUNTPOINT, or over itself. Returns once it is mounted; a daemon keeps running
    Mount(MountArgs),
    /// Show who holds and who waits for which database, and counters
    Status {
        #[command(flatten)]
        mount: MountedArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold all write transactions while COMMAND runs, so that it can copy or snapshot the files in $BACKING
    Quiesce(QuiesceArgs),
    /// Unmount and end the daemon
    Unmount(MountedArgs),
}

#[derive(Args)]
pub(crate) struct MountArgs {
    /// Directory with the files; `-` for volumes, which are added through the control socket
    pub(crate) backing: PathBuf,
    /// Empty directory to mount on [default: BACKING itself; its files are then reached only through the mount]
    pub(crate) mountpoint: Option<PathBuf>,
    /// Control socket, for root only [default: /run/hoody-state-fuse<MOUNTPOINT with dashes>.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Log file of the daemon in the background [default: the system log]
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Restart the daemon if it dies, and mount again
    #[arg(long)]
    pub(crate) supervise: bool,
    /// Close the caller's streams once it is mounted: this is the daemon in the background.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    /// Standard input is a socket to the supervisor, which keeps the locks if this daemon dies.
    #[arg(long, hide = true)]
    pub(crate) kept: bool,
    /// A restart by the supervisor: nobody reads standard output any more.
    #[arg(long, hide = true)]
    pub(crate) again: bool,
    /// Serve files from the page cache, even if the kernel supports passthrough
    #[arg(long)]
    pub(crate) no_passthrough: bool,
    /// Threads that take requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) event_loops: usize,
    /// Let idle processors sleep while databases are busy. Saves power; a transaction takes up to four times as long
    #[arg(long)]
    pub(crate) save_power: bool,
    /// Most descriptors for the open files of one volume [default: an eighth of the limit; the whole limit for a single directory]
    #[arg(long, value_name = "N")]
    pub(crate) volume_descriptors: Option<usize>,
    /// With volumes: only root and members of this group, given by its number, may enter the mount
    #[arg(long, value_name = "GID")]
    pub(crate) group: Option<u32>,
}

/// An existing mount.
#[derive(Args)]
pub(crate) struct MountedArgs {
    /// Where it is mounted
    pub(crate) mountpoint: PathBuf,
    /// Control socket of the mount, if it is not the default one
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct QuiesceArgs {
    #[command(flatten)]
    pub(crate) mount: MountedArgs,
    /// How long to wait for running write transactions, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000)]
    pub(crate) timeout_ms: u64,
    /// How long to hold new write transactions at most, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    pub(crate) lease_ms: u64,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<String>,
}
