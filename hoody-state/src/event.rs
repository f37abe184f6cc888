//! Events: what happened, announced after the commit that made it true.

use crate::model::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct Listeners {
    next: u64,
    all: BTreeMap<u64, Listener>,
}

/// Who is told of events.
#[derive(Clone, Default)]
pub(crate) struct Bus(Arc<Mutex<Listeners>>);

/// A listener's place; dropping it ends the listening.
pub struct Subscription {
    id: u64,
    bus: Weak<Mutex<Listeners>>,
}

impl Bus {
    /// Tells everybody, in order.
    pub(crate) fn announce(&self, event: &Event) {
        let listeners: Vec<Listener> = self.0.lock().unwrap_or_else(PoisonError::into_inner).all.values().cloned().collect();
        for l in listeners {
            l(event);
        }
    }

    /// Adds a listener, which is called on the changing thread and must return at once.
    pub(crate) fn subscribe(&self, listener: Box<dyn Fn(&Event) + Send + Sync>) -> Subscription {
        let mut l = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = l.next;
        l.next += 1;
        l.all.insert(id, Arc::from(listener));
        Subscription { id, bus: Arc::downgrade(&self.0) }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(bus) = self.bus.upgrade() {
            bus.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.id);
        }
    }
}
