//! How far a running operation is, who waits for its end, and whether it was cancelled.

use crate::error::{Code, Error};
use crate::id::OperationId;
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

    pub(super) fn set_step(&self, name: &'static str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// Whether to stop here.
    pub(super) fn must_stop(&self) -> bool {
        self.cancellable.load(Ordering::Relaxed) && self.cancelled.load(Ordering::Relaxed)
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(Code::OperationCancelled, "the operation was cancelled; what it had begun was undone")
}

/// The operations that this process works on.
#[derive(Default)]
pub(crate) struct Registry {
    running: Mutex<HashMap<OperationId, Arc<Progress>>>,
    ended: Condvar,
}

/// Keeps an operation in the registry until it is dropped.
pub(crate) struct Registered {
    registry: Arc<Registry>,
    id: OperationId,
    pub progress: Arc<Progress>,
}

impl Registry {
    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<Progress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(self: &Arc<Self>, id: &OperationId) -> Registered {
        let progress = Arc::new(Progress::default());
        self.running().insert(id.clone(), Arc::clone(&progress));
        Registered { registry: Arc::clone(self), id: id.clone(), progress }
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

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.running().remove(&self.id);
        self.registry.ended.notify_all();
    }
}
