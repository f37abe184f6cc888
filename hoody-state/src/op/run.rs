use super::{Intent, LockGuard};
use crate::catalog::idempotency::IdempotencyKey;
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{OperationId, ProjectId};
use crate::model::OperationStatus;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How far a running operation is.
#[derive(Default)]
pub(crate) struct Progress {
    pub cancelled: AtomicBool,
    pub cancellable: AtomicBool,
    pub done: AtomicU64,
    pub total: AtomicU64,
    /// Bytes over the network, and since when.
    pub sent: AtomicU64,
    began: OnceLock<Instant>,
    step: Mutex<&'static str>,
}

/// How far a transfer is.
pub(crate) struct TransferProgress {
    pub sent: u64,
    /// Bytes a second.
    pub rate: u64,
}

impl Progress {
    /// From now on bytes come over the network.
    pub(crate) fn begin_transfer(&self) {
        let _ = self.began.set(Instant::now());
    }

    /// Bytes that came over the network, if any did.
    pub(crate) fn sent_bytes(&self) -> Option<u64> {
        self.began.get().map(|_| self.sent.load(Ordering::Relaxed))
    }

    pub(crate) fn transfer(&self) -> Option<TransferProgress> {
        let ms = u64::try_from(self.began.get()?.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.done.load(Ordering::Relaxed).saturating_mul(1000) / ms;
        Some(TransferProgress { sent: self.sent.load(Ordering::Relaxed), rate })
    }

    pub(crate) fn step(&self) -> &'static str {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operations that run in this process.
#[derive(Default)]
pub(crate) struct Registry {
    running: Mutex<HashMap<OperationId, Arc<Progress>>>,
    ended: Condvar,
}

impl Registry {
    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<Progress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &OperationId) -> Option<Arc<Progress>> {
        self.running().get(id).cloned()
    }

    /// Waits until it no longer runs; whether that came about.
    pub(crate) fn wait(&self, id: &OperationId, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut running = self.running();
        while running.contains_key(id) {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { return false };
            running = self.ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// An operation under way: its intent is on the disk, its lock is held.
pub(crate) struct Op {
    pub id: OperationId,
    pub intent: Intent,
    pub progress: Arc<Progress>,
    key: Option<IdempotencyKey>,
    /// Taken up from the journal: its key, if it has one, is known by the operation's id alone.
    taken_up: bool,
    lock: Option<LockGuard>,
    finished: AtomicBool,
    host: Host,
}

impl Op {
    /// A step is about to be taken.
    pub(crate) fn step(&self, name: &'static str) -> Result<()> {
        *self.progress.step.lock().unwrap_or_else(PoisonError::into_inner) = name;
        if self.progress.cancellable.load(Ordering::Relaxed) && self.progress.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        self.host.0.hook.step(self.intent.kind(), name)
    }

    /// Ends the operation: what it comes to and the closing of the journal are one transaction.
    pub(crate) fn finish<T: serde::Serialize>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.step("finish")?;
        let t = self.host.write(durability, |tx| {
            let t = f(tx)?;
            tx.answer_key(self.key.as_ref(), &t)?;
            if self.taken_up {
                tx.answer_key_of(&self.id, &serde_json::to_value(&t).map_err(|e| Error::internal(e.to_string()))?)?;
            }
            tx.close_operation(&self.id, OperationStatus::Succeeded, None)?;
            Ok(t)
        })?;
        self.finished.store(true, Ordering::Relaxed);
        Ok(t)
    }

    /// Answers the caller's key with what it is told now, while the rest goes on. For what recovery comes to as well by the intent and the world.
    pub(crate) fn tell<T: serde::Serialize>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.step("tell")?;
        self.host.write(Durability::Process, |tx| {
            let t = f(tx)?;
            tx.answer_key(self.key.as_ref(), &t)?;
            Ok(t)
        })
    }

    /// Writes what has been learnt on the way into the intent, and answers the caller's key with what it is told now.
    pub(crate) fn amend<T: serde::Serialize>(&mut self, durability: Durability, intent: Intent, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.step("amend")?;
        let t = self.host.write(durability, |tx| {
            let t = f(tx)?;
            tx.answer_key(self.key.as_ref(), &t)?;
            tx.amend_operation(&self.id, &intent)?;
            Ok(t)
        })?;
        self.intent = intent;
        Ok(t)
    }
}

impl Op {
    /// What the operation ends with is not the answer to the caller's key: that is given by [`Tx::answer_key_of`].
    pub(crate) fn forget_key(&mut self) {
        self.key = None;
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        // The lock first: who waits for the end may begin the next change at once.
        self.lock = None;
        self.host.0.registry.running().remove(&self.id);
        self.host.0.registry.ended.notify_all();
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(Code::OperationCancelled, "the operation was cancelled; what it had begun was undone")
}

impl Host {
    /// Journals an intent. `with` goes into the same transaction.
    pub(crate) fn begin(
        &self,
        caller: &Caller,
        lock: LockGuard,
        durability: Durability,
        intent: Intent,
        project: Option<&ProjectId>,
        with: impl FnOnce(&mut Tx<'_>) -> Result<()>,
    ) -> Result<Op> {
        let id = OperationId::generate();
        self.0.hook.step(intent.kind(), "intent")?;
        self.write(durability, |tx| {
            tx.claim_key(caller.idempotency.as_ref(), Some(&id))?;
            tx.open_operation(&id, &intent, project)?;
            with(tx)
        })?;
        let mut op = self.resume(id, intent, lock);
        (op.key, op.taken_up) = (caller.idempotency.clone(), false);
        Ok(op)
    }

    /// An operation whose intent is in the journal already.
    pub(crate) fn resume(&self, id: OperationId, intent: Intent, lock: LockGuard) -> Op {
        let progress = Arc::new(Progress::default());
        self.0.registry.running().insert(id.clone(), Arc::clone(&progress));
        Op { id, intent, progress, key: None, taken_up: true, lock: Some(lock), finished: AtomicBool::new(false), host: self.clone() }
    }

    /// Takes an operation's steps. If one fails, recovery finishes or undoes it just as after a crash; the error is the caller's either way.
    pub(crate) fn perform<T>(&self, mut op: Op, body: impl FnOnce(&mut Op) -> Result<T>) -> Result<T> {
        let error = match body(&mut op) {
            Ok(t) => return Ok(t),
            Err(e) => e,
        };
        if error.code() == Code::Crashed {
            if let Some(lock) = op.lock.take() {
                lock.keep();
            }
            return Err(error);
        }
        // What fails after the journal was closed (clearing away, a boot that is told as an error) undoes nothing.
        if op.finished.load(Ordering::Relaxed) {
            return Err(error);
        }
        if let Err(e) = self.settle(&op.id, &op.intent, Some(&error)) {
            tracing::error!(operation = %op.id, kind = op.intent.kind(), error = %e, "could be neither finished nor undone; the next start tries again");
            if let Some(lock) = op.lock.take() {
                lock.keep();
            }
        }
        Err(error)
    }

    /// The same on a thread of its own; its result if it comes within `wait`, else nothing, and it continues in the background.
    pub(crate) fn behind<T: Send + 'static>(
        &self,
        op: Op,
        wait: Duration,
        body: impl FnOnce(&Host, &mut Op) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let host = self.clone();
        let work = move || {
            let (id, kind) = (op.id.clone(), op.intent.kind());
            let result = host.clone().perform(op, |op| body(&host, op));
            if let Err(e) = &result {
                tracing::warn!(operation = %id, kind, error = %e, "operation failed");
            }
            let _ = send.send(result);
        };
        // Kept outside the thread until it runs: where there is none to be had, the work is done here.
        let work = Arc::new(Mutex::new(Some(work)));
        let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let theirs = Arc::clone(&work);
        let started = std::thread::Builder::new().name("operation".into()).spawn(move || {
            if let Some(work) = take(&theirs) {
                work();
            }
        });
        if started.is_err()
            && let Some(work) = take(&work)
        {
            work();
        }
        match receive.recv_timeout(wait) {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }
}
