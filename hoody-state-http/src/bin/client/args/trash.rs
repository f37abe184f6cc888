//! Arguments of `hoody-state trash`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Trash {
    /// List deleted containers that can still be recovered
    #[command(visible_alias = "ls")]
    List,
    /// Recover a deleted container, with all its snapshots. It is stopped
    Recover {
        /// Id or name of the deleted container
        container: String,
        /// Recover it under this name [default: the name that it had]
        #[arg(long)]
        name: Option<String>,
        /// Recover it into this project [default: the one that it was in]
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
    },
    /// Delete a container in the trash for good
    #[command(visible_alias = "rm")]
    Delete {
        /// Id or name of the deleted container
        container: String,
    },
}
