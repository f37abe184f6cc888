//! Reads streams of other servers without a pool: for `fuzz/fuzz_targets`, which cannot reach private items.

use super::apply::{Target, apply};
use super::stream::{Command, StreamReader};
use crate::error::{Code, Error, Result};
use std::os::fd::AsFd;
use std::path::Path;

/// Reads a send stream to its end; returns the number of its commands.
///
/// # Errors
/// `stream_corrupt`, `stream_refused`, `transfer_cut`.
pub fn count_commands(stream: &[u8]) -> Result<u64> {
    let mut reader = StreamReader::new(stream)?;
    let mut commands = 0;
    while reader.next()? != Command::End {
        commands += 1;
    }
    Ok(commands)
}

/// Applies a send stream to a directory, of any file system, as to a new volume. No more than `room` bytes may be reserved by one command.
///
/// # Errors
/// As for a volume: see `apply`.
pub fn apply_to_directory(stream: &[u8], directory: &Path, room: u64) -> Result<()> {
    let root = std::fs::File::open(directory).map_err(|e| Error::io("open a directory to apply a stream to", e))?;
    let enough = |bytes| match bytes > room {
        true => Err(Error::new(Code::PoolFull, "one command reserves more space than there is")),
        false => Ok(()),
    };
    apply(stream, &Target { root: root.as_fd(), base: None, keep: &[], room: &enough }).map(drop)
}
