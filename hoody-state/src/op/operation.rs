use super::engine::Engined;
use super::lock::{Claim, Pace};
use super::recovery::Recovery;
use super::running::Op;
use super::workers::Lane;
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
