//! Events: what happened, announced after the commit that made it true.

use crate::model::Event;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct State {
    next: u64,
    listeners: BTreeMap<u64, Listener>,
    /// Events that were committed and not announced yet, in the order of their commits.
    queue: VecDeque<Event>,
    /// A thread announces what is in the queue.
    announcing: bool,
}

/// The listeners, and the events that they are about to be called with.
///
/// A writer enqueues its events while it has the catalog ([`Bus::enqueue`]), so that they stand in the order of the commits, and announces once the catalog is
/// free ([`Bus::announce_queued`]). One thread announces at a time; events of others that come meanwhile, from a listener too, are announced by that thread.
#[derive(Clone, Default)]
pub(crate) struct Bus(Arc<Mutex<State>>);

/// A listener's place; dropping it ends the listening.
pub struct Subscription {
    id: u64,
    bus: Weak<Mutex<State>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the announcing of a thread whose listener panics.
struct Announcing<'a>(&'a Bus);

impl Drop for Announcing<'_> {
    fn drop(&mut self) {
        locked(&self.0.0).announcing = false;
    }
}

impl Bus {
    /// Puts events behind those that wait to be announced.
    pub(crate) fn enqueue(&self, events: Vec<Event>) {
        if !events.is_empty() {
            locked(&self.0).queue.extend(events);
        }
    }

    /// Calls every listener with each event that waits, in order, unless another call does so already. Holds no lock during a listener's call.
    pub(crate) fn announce_queued(&self) {
        let mut state = locked(&self.0);
        if state.announcing || state.queue.is_empty() {
            return;
        }
        state.announcing = true;
        let on_panic = Announcing(self);
        loop {
            let Some(event) = state.queue.pop_front() else {
                // With the lock that finds the queue empty: whoever enqueues after that announces.
                state.announcing = false;
                std::mem::forget(on_panic);
                return;
            };
            let listeners: Vec<Listener> = state.listeners.values().cloned().collect();
            drop(state);
            for listener in listeners {
                listener(&event);
            }
            state = locked(&self.0);
        }
    }

    /// Adds a listener, which must return at once.
    pub(crate) fn subscribe(&self, listener: Box<dyn Fn(&Event) + Send + Sync>) -> Subscription {
        let mut state = locked(&self.0);
        let id = state.next;
        state.next += 1;
        state.listeners.insert(id, Arc::from(listener));
        Subscription { id, bus: Arc::downgrade(&self.0) }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Dropped outside the lock: a listener may own another subscription.
        let _listener = self.bus.upgrade().map(|bus| locked(&bus).listeners.remove(&self.id));
    }
}
