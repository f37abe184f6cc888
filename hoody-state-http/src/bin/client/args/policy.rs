use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Show the policy that applies, and when its schedules run next
    Show {
        #[command(flatten)]
        target: PolicyTarget,
    },
    /// Set the policy, instead of the one that was set there before
    #[command(after_help = "Examples:
  hoody-state policy set box --hourly 24 --daily 7          a snapshot each hour; of 24 hours and 7 days one each is kept
  hoody-state policy set --project web --daily 7 --monthly 12 --timezone Europe/Berlin
  hoody-state policy set --server --file policy.json        what the flags cannot say: several schedules, patterns of aliases
  hoody-state policy set box --none                         nothing automatic, whatever the project's policy says")]
    Set {
        #[command(flatten)]
        target: PolicyTarget,
        #[command(flatten)]
        what: NewPolicy,
    },
    /// Delete the policy: the project's or the server's applies again. Snapshots stay
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        target: PolicyTarget,
    },
    /// Show which snapshots a policy would keep and remove, and why. Nothing is changed
    #[command(after_help = "Examples:
  hoody-state policy preview box                            what the policy that applies would do now
  hoody-state policy preview box --daily 7 --monthly 12     what this one would do
  hoody-state policy preview box --days 60                  also what would exist on each of the next 60 days")]
    Preview {
        /// Id or name of the container
        container: String,
        #[command(flatten)]
        what: NewPolicy,
        /// Show also what would exist on each of the next DAYS days
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
}

/// What a policy is set on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PolicyTarget {
    /// Id or name of a container
    pub container: Option<String>,
    /// A project: for its containers that have no policy of their own
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// The server: for all containers for which nothing nearer is set
    #[arg(long)]
    pub server: bool,
}

/// A policy, as a file or as one schedule.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Policy")]
pub struct NewPolicy {
    /// JSON file with the policy; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["none", "last", "hourly", "daily", "weekly", "monthly", "yearly", "cron", "timezone", "max_age", "spread", "while_running", "only_if_changed", "on"])]
    pub file: Option<PathBuf>,
    /// A policy that does nothing: it switches an inherited one off
    #[arg(long, conflicts_with_all = ["last", "hourly", "daily", "weekly", "monthly", "yearly", "cron", "max_age", "spread", "while_running", "only_if_changed", "on"])]
    pub none: bool,
    /// Keep the COUNT newest snapshots
    #[arg(long, value_name = "COUNT")]
    pub last: Option<u32>,
    /// Keep one snapshot of each of COUNT hours
    #[arg(long, value_name = "COUNT")]
    pub hourly: Option<u32>,
    /// Keep one of each of COUNT days
    #[arg(long, value_name = "COUNT")]
    pub daily: Option<u32>,
    /// Keep one of each of COUNT weeks
    #[arg(long, value_name = "COUNT")]
    pub weekly: Option<u32>,
    /// Keep one of each of COUNT months
    #[arg(long, value_name = "COUNT")]
    pub monthly: Option<u32>,
    /// Keep one of each of COUNT years
    #[arg(long, value_name = "COUNT")]
    pub yearly: Option<u32>,
    /// When to take snapshots, such as "30 3 * * *" [default: once in the shortest period of which some are kept]
    #[arg(long, value_name = "CRON")]
    pub cron: Option<String>,
    /// Time zone of the schedule and of days, weeks and months, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Remove snapshots that are older, such as 90d
    #[arg(long, value_name = "AGE")]
    pub max_age: Option<String>,
    /// Start up to this much later, by an offset that is fixed for each container, such as 10m
    #[arg(long, value_name = "AGE")]
    pub spread: Option<String>,
    /// Take snapshots only while the container runs
    #[arg(long)]
    pub while_running: bool,
    /// Take no snapshot if nothing has changed since the last one
    #[arg(long)]
    pub only_if_changed: bool,
    /// Take a snapshot at this event too, or (before_delete) keep the deleted container in the trash; can be repeated
    #[arg(long, value_enum, value_name = "EVENT")]
    pub on: Vec<PolicyEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyEvent {
    /// It stops: by `stop`, or because its init ended. A restart and a forced stop take none
    Stop,
    /// The kernel kills something in it for lack of memory; at most one a minute
    Oom,
    /// Changes nothing by itself: a restore keeps the state before in any case. A file can say for how long
    Restore,
    /// A command run in it fails; at most one a minute
    ExecFailure,
    /// No snapshot: a deleted container itself is in the trash for 7d, with its snapshots
    BeforeDelete,
}
