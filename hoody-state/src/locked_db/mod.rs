//! SQLite databases that any number of processes and containers write at once, without `database is locked`.
//!
//! **Vocabulary.** A *volume* is a directory whose files are served at another place of the host, under the volume's name; the directory is its *backing*.
//! To *quiesce* volumes is to hold every write transaction in them for a short time. To *rebind* a volume is to exchange its backing. A *session* lasts as long
//! as what serves the volumes runs: with a daemon that died and was started again another session begins, in which no volume is served and in which
//! mounts of the session before are dead.
//!
//! **Guarantees** of a [`LockedDb`], tested by `suite` (feature `conformance`) on every backend:
//! 1. While a [`Quiesced`] lives, no write transaction is open in the databases of its volumes and none begins; readers are not held. It ends when it is
//!    dropped, when its lease runs out, or when the process that holds it dies.
//! 2. After `rebind`, whoever opens a name sees the new directory; what was open stays open.
//! 3. Volumes do not reach each other.
//! 4. `park` ends the waits for locks of processes that are being frozen, and these do not notice: they ask again when they are thawed.
//! 5. A database is restored or reverted in one transaction: connections stay open, and see either the old content or the new.
//!
//! **Crashes.** Nothing here is remembered for a host: after a crash of the host's process the volumes are served on, or are not, and the host adds
//! again what it needs (`volume_exists` says that it was there). A restore or revert that was cut short may be repeated.
//!
//! **Cost.** Adding, removing and rebinding take milliseconds. A hold waits for the write transactions that are open, and then costs each writer the time that it
//! lasts. Reverting reads what it compares.
//!
//! [`broker`] decides, without I/O; [`control`] is the protocol with the daemon `hoody-state-fuse`: both need the feature `locks` alone. Behind the trait are
//! [`fuse`], which is that daemon, and [`memory`], for tests.

#[cfg(feature = "host")]
mod attributes;
pub mod broker;
#[cfg(feature = "host")]
mod contract;
pub mod control;
#[cfg(feature = "host")]
mod copy_database;
#[cfg(feature = "host")]
pub mod fuse;
#[cfg(feature = "host")]
pub mod memory;
#[cfg(feature = "host")]
mod merge;
#[cfg(feature = "host")]
mod restore;
mod status;
#[cfg(all(feature = "host", any(test, feature = "conformance")))]
pub mod suite;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use status::{FileLocks, LockUser, Status};

#[cfg(feature = "host")]
pub use contract::{DatabaseFile, LockedDb, Quiesced, RestartListener, databases_in};
#[cfg(feature = "host")]
pub use merge::NewNames;
#[cfg(feature = "host")]
pub use restore::restore_database;
