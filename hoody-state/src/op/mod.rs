//! How anything changes: locks, then the intent in the journal, then steps, then the catalog's change and the end of the journal's row in one transaction.
//!
//! This module knows no operation. An operation is a type that implements `Operation`; its value is the **intent**: everything that recovery needs to
//! know. The intent is on the disk before the first side effect. Recovery is a function of the intent and of what it meets in the world, never of a
//! recorded position: it may run after any step, any number of times. A failed operation goes the same way as a crashed one, so the code that undoes
//! is the code that the crash tests run.
//!
//! **Guarantees.**
//! 1. An operation holds its locks (`lock`) from before its intent is written until it has ended or recovery has succeeded.
//! 2. An operation that fails or panics is recovered at once. While recovery fails it is tried again, after growing pauses, until it succeeds or the
//!    host is closed; then the next start goes on.
//! 3. A row of the journal that this version cannot read stops nobody: it is set aside, what it changes stays locked, and `check` reports it.
//! 4. Background operations share a bounded number of threads. One that waits for another server has a thread of its own.

mod begun;
mod caller;
#[cfg(feature = "crash-hooks")]
pub(crate) mod crash;
mod engine;
mod journal;
mod lock;
mod operation;
mod pending;
mod recovery;
mod retries;
mod running;
pub mod step;
mod taken;
#[cfg(test)]
mod tests;
mod workers;

pub(crate) use crate::progress::{Progress, cancelled};
pub(crate) use begun::{Begun, Ended};
pub use caller::Caller;
pub(crate) use engine::{Engine, Engined};
pub(crate) use journal::{Entry, unreadable};
pub(crate) use lock::{Claim, Held, Key, Want};
pub(crate) use operation::Operation;
pub(crate) use pending::take_up_all;
pub(crate) use recovery::Recovery;
pub(crate) use running::Op;
pub(crate) use workers::Lane;
