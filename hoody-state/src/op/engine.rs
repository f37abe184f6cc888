use super::caller::Caller;
use super::lock::{Claim, Held, Locks};
use super::retries::Retries;
use super::step::StepHook;
use super::workers::{Lane, Workers};
use crate::catalog::records::Records;
use crate::catalog::{Durability, Tx, operations};
use crate::error::{Code, Error, Result};
use crate::id::OperationId;
use crate::model::OperationStatus;
use crate::progress::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What an operation works on: it has an engine.
pub(crate) trait Engined: Clone + Send + Sync + 'static {
    /// The same for those that must not keep it alive.
    type Weak: Clone + Send + Sync + 'static;

    fn engine(&self) -> &Engine;
    fn downgrade(&self) -> Self::Weak;
    fn upgrade(weak: &Self::Weak) -> Option<Self>;
}

/// The state of what is under way.
pub(crate) struct Engine {
    pub records: Records,
    pub hook: Box<dyn StepHook>,
    pub locks: Locks,
    pub registry: Arc<Registry>,
    pub(super) workers: Workers,
    pub(super) retries: Retries,
    on_recovered: OnceLock<OnRecovered>,
    set_aside: Mutex<Vec<SetAside>>,
    closing: AtomicBool,
}

/// Called after each recovery that succeeded.
type OnRecovered = Box<dyn Fn() + Send + Sync>;

/// A row of the journal that cannot be read.
struct SetAside {
    id: OperationId,
    /// Nobody changes what it was changing.
    _held: Option<Held>,
}

impl Engine {
    /// An engine that journals into this catalog.
    pub(crate) fn new(records: Records, hook: Box<dyn StepHook>) -> Self {
        Engine {
            records,
            hook,
            locks: Locks::default(),
            registry: Arc::default(),
            workers: Workers::default(),
            retries: Retries::default(),
            on_recovered: OnceLock::new(),
            set_aside: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Takes locks for a change, as patiently as its caller is.
    pub(crate) fn lock(&self, caller: &Caller, claim: Claim) -> Result<Held> {
        self.locks.take(claim, caller.patience)
    }

    pub(crate) fn read<T>(&self, f: impl FnOnce(&rusqlite::Connection) -> Result<T>) -> Result<T> {
        self.records.read(f)
    }

    pub(crate) fn write<T>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.records.write(durability, f)
    }

    /// Whether a change of the catalog could be made: nothing is changed.
    pub(crate) fn would<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.records.catalog.would(self.records.now(), f)
    }

    /// The first answer to this request, if its key has been used.
    pub(crate) fn replay<T: DeserializeOwned>(&self, caller: &Caller) -> Result<Option<T>> {
        self.records.replay(caller.idempotency.as_ref())
    }

    /// A change of the catalog alone, with its key.
    pub(crate) fn change<T: Serialize + DeserializeOwned>(&self, caller: &Caller, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.records.change(caller.idempotency.as_ref(), f)
    }

    /// Runs work that changes nothing on one of the background threads. After [`Engine::close`] it is dropped.
    pub(crate) fn background(&self, job: impl FnOnce() + Send + 'static) {
        self.workers.run(Lane::Long, Box::new(job));
    }

    /// A point between two side effects that belongs to no operation of its own.
    pub(crate) fn step(&self, operation: &str, step: &str) -> Result<()> {
        self.hook.step(operation, step)
    }

    /// Asks a running operation to stop and undo what it began. Returns at once. Errors: `operation_not_found`, `operation_finished`,
    /// `operation_not_cancellable`.
    pub(crate) fn cancel(&self, id: &OperationId) -> Result<()> {
        let o = self.read(|c| operations::get(c, id))?;
        if o.status != OperationStatus::Running {
            return Err(Error::new(Code::OperationFinished, format!("operation {id} has ended: there is nothing to cancel")));
        }
        match self.registry.get(id) {
            Some(p) if p.cancellable.load(Ordering::Relaxed) => {
                p.cancelled.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Error::new(Code::OperationNotCancellable, format!("{} cannot be cancelled at this point: it will end by itself", o.kind))),
        }
    }

    /// Calls `f` after each recovery that succeeded, which may have journalled what follows from it. Set once.
    pub(crate) fn on_recovered(&self, f: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_recovered.set(Box::new(f));
    }

    pub(super) fn recovered(&self) {
        if let Some(f) = self.on_recovered.get() {
            f();
        }
    }

    pub(super) fn put_aside(&self, id: OperationId, held: Option<Held>) {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).push(SetAside { id, _held: held });
    }

    /// Whether a row of the journal was set aside by this process, which cannot read it.
    pub(crate) fn is_set_aside(&self, id: &OperationId) -> bool {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|s| s.id == *id)
    }

    /// Whether the background work is to end: what can stop anywhere stops.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends the background work, waiting up to `patience` for what runs; whether all of it has ended. What waits for a thread, or for another try of its
    /// recovery, is left to the next start.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        self.closing.store(true, Ordering::Relaxed);
        self.retries.close();
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let idle = self.locks.wait_idle(patience);
        self.workers.close();
        idle
    }
}
