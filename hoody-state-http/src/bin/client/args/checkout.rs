//! Arguments of `hoody-state checkout`.

use super::Wait;
use clap::Args;
use std::ffi::OsString;

#[derive(Debug, Args)]
pub struct Checkout {
    /// The snapshot, as CONTAINER:SNAPSHOT, or with one path as CONTAINER:SNAPSHOT:/PATH
    #[arg(value_name = "CONTAINER:SNAPSHOT")]
    pub from: OsString,
    /// Files and directories, by their paths in the container
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Put them into this directory of the container, under their own names
    #[arg(long, value_name = "DIR")]
    pub to: Option<OsString>,
    /// Delete what is not in the snapshot: directories are replaced as a whole
    #[arg(long)]
    pub delete_new: bool,
    /// Also take back databases that other containers use too
    #[arg(long, value_name = "WHAT", value_parser = ["revert"])]
    pub databases: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
}
