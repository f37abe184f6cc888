use super::Wait;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hoody-state promote try-3                    into the container that try-3 was forked from
  hoody-state promote try-3 --into staging     into another fork of the same container
  hoody-state promote try-3 --prefer fork      where both changed the same, take the fork's version
  hoody-state snapshot undo agent              take it back")]
pub struct Promote {
    /// Id or name of the fork
    pub fork: String,
    /// Container that takes the changes over [default: the one that the fork came from]
    #[arg(long, value_name = "CONTAINER")]
    pub into: Option<String>,
    /// Whose version to take where both changed the same differently [default: change nothing and list the conflicts]
    #[arg(long, value_enum)]
    pub prefer: Option<Prefer>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prefer {
    Fork,
    Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hoody-state reset try-3                      back to where try-3 branched off
  hoody-state reset try-3 --to source          to what its source is now")]
pub struct Reset {
    /// Id or name of the fork
    pub fork: String,
    /// What to go back to
    #[arg(long, value_enum, default_value = "branch-point")]
    pub to: ResetTo,
    /// Do not start the fork afterwards, even if it runs now
    #[arg(long)]
    pub no_start: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResetTo {
    BranchPoint,
    Source,
}
