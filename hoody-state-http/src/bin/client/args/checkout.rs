//! Arguments of `hoody-state checkout`.

use super::{OneSnapshot, Wait};
use clap::Args;
use std::ffi::OsString;

#[derive(Debug, Args)]
pub struct Checkout {
    #[command(flatten)]
    pub one: OneSnapshot,
    /// Files and directories, by their paths in the container
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Put them into this directory of the container, under their own names
    #[arg(long, value_name = "DIR")]
    pub to: Option<OsString>,
    /// Delete what is not in the snapshot: directories are replaced as a whole
    #[arg(long)]
    pub delete_new: bool,
    #[command(flatten)]
    pub wait: Wait,
}
