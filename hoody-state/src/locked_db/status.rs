//! What the daemon of the databases says of its locks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Who holds and who waits, and what happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The volumes, by name (empty for a mount of one directory), with their backing.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Whether reads and writes go straight to the backing files.
    pub passthrough: bool,
    /// Files with locks on them.
    pub files: Vec<FileLocks>,
    /// How many descriptors of the daemon each volume uses for open files, by name; daemons of an earlier version do not say.
    #[serde(default)]
    pub open_files: BTreeMap<String, u64>,
    /// What happened so far, by name: grants, refusals by cause, waits, revocations.
    pub counters: BTreeMap<String, u64>,
}

/// The locks on one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLocks {
    /// Its volume.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// `database`, `shm` or `plain`.
    pub class: String,
    /// The process that may write next, and for how many microseconds it has been so.
    pub intent: Option<(u32, u64)>,
    /// Who holds.
    pub holders: Vec<LockUser>,
    /// Who waits, first in line first.
    pub waiters: Vec<LockUser>,
}

/// Somebody who holds or waits for locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockUser {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Microseconds since it holds or waits.
    pub since_us: u64,
    /// `read 123-123, write 120-120`: which bytes.
    pub locks: String,
}
