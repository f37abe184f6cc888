//! Arguments of `hoody-state diff`.

use clap::Args;
use std::ffi::OsString;

#[derive(Debug, Args)]
pub struct Diff {
    /// The old state, as CONTAINER:SNAPSHOT
    #[arg(value_name = "A")]
    pub old: String,
    /// The new state: a SNAPSHOT of the same container, CONTAINER:SNAPSHOT, or `live` [default: live]; then a PATH, to see only what is there
    #[arg(value_name = "B|PATH", num_args = 0..=2)]
    pub rest: Vec<OsString>,
    /// Show counts by directory instead of names
    #[arg(long)]
    pub stat: bool,
    /// Also show changes of directories' times, and of times of access
    #[arg(long)]
    pub times: bool,
    /// Read both states completely if what changed cannot be told otherwise
    #[arg(long)]
    pub walk: bool,
    /// Also show how many rows the tables of changed databases have: rows are counted, not compared
    #[arg(long)]
    pub databases: bool,
}
