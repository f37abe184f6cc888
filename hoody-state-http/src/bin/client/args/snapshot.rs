//! Arguments of `hoody-state snapshot`.

use super::{Change, Wait, pair};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// List the snapshots of a container
    #[command(visible_alias = "ls")]
    List {
        /// Id or name of the container
        container: String,
        #[command(flatten)]
        filter: Filter,
        /// Also show the older snapshots that restores and promotions have kept
        #[arg(long)]
        all: bool,
    },
    /// Take a snapshot
    Create {
        /// Id or name of the container
        container: String,
        /// Alias for the snapshot [default: none; its name is then the time]
        alias: Option<String>,
        /// Delete the snapshot after this many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expiry: Option<u32>,
        /// Delete the snapshot after this time, such as 90s, 15m, 6h, 7d or 2w
        #[arg(long, value_name = "AGE", conflicts_with = "expiry")]
        expires_in: Option<String>,
        /// A description
        #[arg(long)]
        description: Option<String>,
        /// Add a label
        #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Replace the snapshot that has this alias
        #[arg(long, requires = "alias")]
        replace: bool,
        /// Keep this many of the snapshots that had this alias before, without it; delete older ones
        #[arg(long, value_name = "COUNT", requires = "replace")]
        keep_replaced: Option<u32>,
    },
    /// Show a snapshot
    Show(OneSnapshot),
    /// Restore a snapshot. The state before is kept as an undo snapshot for a day
    Restore {
        #[command(flatten)]
        one: OneSnapshot,
        /// Keep the state before as a snapshot with this alias
        #[arg(long, value_name = "ALIAS")]
        keep_current: Option<String>,
        /// Whether to revert databases that other containers use too
        #[arg(long, value_parser = ["revert", "keep"])]
        databases: Option<String>,
        /// Leave the container stopped
        #[arg(long)]
        no_start: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Undo the last restore
    Undo {
        #[command(flatten)]
        change: Change,
        /// Whether to revert databases that other containers use too
        #[arg(long, value_parser = ["revert", "keep"])]
        databases: Option<String>,
    },
    /// Change the alias of a snapshot
    Rename {
        #[command(flatten)]
        one: OneSnapshot,
        /// The new alias
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        alias: Option<String>,
        /// Remove the alias
        #[arg(long)]
        none: bool,
    },
    /// Pin a snapshot: it does not expire and cannot be deleted
    Pin {
        #[command(flatten)]
        one: OneSnapshot,
        /// Why it is pinned
        #[arg(long, default_value = "pinned by hoody-state")]
        reason: String,
    },
    /// Unpin a snapshot
    Unpin(OneSnapshot),
    /// Set when a snapshot expires
    Expire {
        #[command(flatten)]
        one: OneSnapshot,
        #[command(flatten)]
        when: Expiry,
    },
    /// Delete a snapshot
    #[command(visible_alias = "rm")]
    Delete(OneSnapshot),
}

/// Which snapshots are listed: those that match all of it.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only snapshots with this label; may be repeated
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<String>,
    /// Only snapshots taken since then: a time such as 2026-12-31T12:00:00Z, or an age such as 7d
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only snapshots taken before then
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// Only snapshots taken for this reason: manual, schedule, stop, oom, restore, exec, exec_failure, copy
    #[arg(long)]
    pub trigger: Option<String>,
    /// Only snapshots whose alias begins like this, or began so until it was replaced
    #[arg(long, value_name = "PREFIX")]
    pub alias: Option<String>,
}

/// One snapshot of a container.
#[derive(Debug, Args)]
pub struct OneSnapshot {
    /// Id or name of the container
    pub container: String,
    /// Name or alias of the snapshot
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub snapshot: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Expiry {
    /// In this many days
    #[arg(long = "in", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: Option<u32>,
    /// After this time, such as 90s, 15m, 6h, 7d or 2w
    #[arg(long, value_name = "AGE")]
    pub expires_in: Option<String>,
    /// At this time, such as 2026-12-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
    /// Never
    #[arg(long)]
    pub never: bool,
}
