//! How anything changes: locks, then the intent in the journal, then steps, then the catalog's change and the end of the journal's row in one transaction.
//!
//! This module knows no operation. An operation is a type that implements [`Operation`]; its value is the **intent**: everything that recovery needs to
//! know. The intent is on the disk before the first side effect. Recovery is a function of the intent and of what it meets in the world, never of a
//! recorded position: it may run after any step, any number of times. A failed operation goes the same way as a crashed one, so the code that undoes
//! is the code that the crash tests run.
//!
//! **Guarantees.**
//! 1. An operation holds its locks ([`lock`]) from before its intent is written until it has ended or recovery has succeeded.
//! 2. An operation that fails or panics is recovered at once. While recovery fails it is tried again, after growing pauses, until it succeeds or the
//!    host is closed; then the next start goes on.
//! 3. A row of the journal that this version cannot read stops nobody: it is set aside, what it changes stays locked, and `check` reports it.
//! 4. Background operations share a bounded number of threads. One that waits for another server has a thread of its own.

mod caller;
#[cfg(feature = "crash-hooks")]
pub(crate) mod crash;
mod engine;
mod journal;
pub(crate) mod lock;
mod progress;
mod recovery;
mod run;
pub mod step;
#[cfg(test)]
mod tests;
mod workers;

pub use caller::Caller;
pub(crate) use engine::{Engine, Engined};
pub(crate) use journal::{Entry, unreadable};
pub(crate) use lock::{Claim, Held, Key, Pace, Want};
pub(crate) use progress::{Progress, cancelled};
pub(crate) use recovery::{Recovery, take_up_all};
pub(crate) use run::{Begun, Ended, Op};
pub(crate) use workers::Lane;

use crate::error::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One kind of change. Its value is the intent, as the journal has it.
pub(crate) trait Operation: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// What it works on.
    type World: Engined;
    /// What its caller is answered with.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// The intent's word in the journal. It never changes: journals of earlier versions have it.
    const TAG: &'static str;
    /// Whether the caller is answered as soon as [`Op::acknowledge`] was called, however long it would wait for the end.
    const ACKNOWLEDGES: bool = false;

    /// Its word in `GET /operations`, such as `snapshot.create`.
    fn kind(&self) -> &'static str;

    /// What it changes: the kind of thing (`container`, `image`) and its id.
    fn resource(&self) -> (&'static str, &str);

    /// What is locked while it runs, and again when the next start takes it up.
    fn claim(&self) -> Claim;

    /// Which threads it runs on when it runs in the background.
    fn lane(&self) -> Lane {
        match self.claim().pace {
            Pace::Short => Lane::Short,
            Pace::Long => Lane::Long,
        }
    }

    /// Whether recovery that fails keeps the locks until it succeeds. `false` for what nobody else can meet any more: volumes that are in no list.
    fn keeps_locks(&self) -> bool {
        true
    }

    /// Takes its steps, and ends by [`Op::finish`].
    ///
    /// # Errors
    /// Whatever a step meets. [`Operation::recover`] runs then, unless the operation had been finished.
    fn run(self, op: &mut Op<Self::World>) -> Result<Self::Answer>;

    /// Finishes the operation or undoes it, after a failure ([`Recovery::error`]) or a crash, and ends by [`Recovery::finished`] or [`Recovery::undone`].
    /// May be repeated from its beginning at any time.
    ///
    /// # Errors
    /// What keeps it from succeeding now. It is tried again.
    fn recover(&self, recovery: &Recovery<'_, Self::World>) -> Result<()>;

    /// Whether the next start runs it on, in the background, instead of recovering it: for what may take long, or waits for another server.
    ///
    /// # Errors
    /// What keeps it from looking.
    fn continues(&self, _world: &Self::World) -> Result<bool> {
        Ok(false)
    }
}
