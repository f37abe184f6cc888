//! Arguments of `hoody-state cat`, `ls` and `cp`.

use clap::Args;
use std::ffi::OsString;

const PLACES: &str = "\
CONTAINER:/PATH is the present state of a container, CONTAINER:SNAPSHOT:/PATH a snapshot.

Examples:
  hoody-state cat box:before-upgrade:/etc/hosts          Print a file as it was
  hoody-state ls box:before-upgrade:/etc                 List a directory as it was
  hoody-state ls --versions box:/etc/hosts               List all versions of a file
  hoody-state cp box:before-upgrade:/etc/hosts .         Copy a file out
  hoody-state cp -r box:/var/log logs                    Copy a directory out
  hoody-state cp hosts box:/etc/hosts                    Write a file in one step";

#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct Cat {
    /// Files, as CONTAINER:/PATH or CONTAINER:SNAPSHOT:/PATH
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct Ls {
    /// A directory or a file, as CONTAINER:/PATH or CONTAINER:SNAPSHOT:/PATH
    pub place: OsString,
    /// List the versions of a file over all snapshots
    #[arg(long)]
    pub versions: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct Cp {
    /// What to copy: a path on this machine, CONTAINER:/PATH or CONTAINER:SNAPSHOT:/PATH. A path that begins with `/` or `.` is one on this machine
    pub from: OsString,
    /// Where to: a path on this machine, `-` for standard output, or CONTAINER:/PATH. If it is a directory, the copy is put into it
    pub to: OsString,
    /// Copy a directory with everything in it. Owners are not copied; into a container only files are, and the directories above them
    #[arg(short, long)]
    pub recursive: bool,
    /// In a container, make the directories that are missing
    #[arg(short, long)]
    pub parents: bool,
}
