//! Slots: a limit of how many things of one kind are open, in total and for each holder. A holder with many leaves room for the others, and root on this host
//! has a reserve that no token can use.

use crate::auth::Identity;
use hoody_state::{Code, Error};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How many slots only root on this host can use.
pub const ROOT_RESERVE: usize = 4;

/// The holder of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// A token, a project or an address, each with a limit of its own. Empty: only the total counts.
    pub key: String,
    /// Root on this host: it can use the reserve, and only the total counts.
    pub root: bool,
}

impl Holder {
    /// A holder with this name.
    #[must_use]
    pub fn of(who: &Identity, key: impl Into<String>) -> Self {
        Holder { key: key.into(), root: matches!(who, Identity::Root) }
    }

    /// The caller of a request.
    #[must_use]
    pub fn caller(who: &Identity) -> Self {
        Holder::of(who, who.scope())
    }
}

tokio::task_local! {
    /// The holder for the current request.
    pub static CALLER: Holder;
}

/// The holder for the current request, if there is one.
#[must_use]
pub fn current() -> Holder {
    CALLER.try_with(Clone::clone).unwrap_or(Holder { key: String::new(), root: false })
}

/// The slots of one kind.
#[derive(Debug)]
pub struct Slots {
    /// What the slots are for, as it is named in errors.
    pub name: &'static str,
    limit: usize,
    each: usize,
    state: Mutex<State>,
    freed: Notify,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    by: HashMap<String, usize>,
}

/// A slot that is taken. Dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    key: String,
}

/// How many slots are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Load {
    /// In use now.
    pub used: usize,
    /// The limit in total.
    pub limit: usize,
    /// The limit for one caller, project or address.
    pub each: usize,
    /// How many were refused since the server started.
    pub refused: u64,
}

impl Slots {
    /// `limit` slots in total, and `each` for one holder.
    #[must_use]
    pub fn new(name: &'static str, limit: usize, each: usize) -> Arc<Self> {
        Arc::new(Slots { name, limit, each: each.min(limit), state: Mutex::default(), freed: Notify::new(), refused: AtomicU64::new(0) })
    }

    /// How many threads the holders need at most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.limit + ROOT_RESERVE
    }

    /// Takes a slot, if one is free.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, holder: &Holder) -> Option<Slot> {
        let mut state = self.lock();
        let limit = if holder.root { self.limit + ROOT_RESERVE } else { self.limit };
        let own = state.by.get(&holder.key).copied().unwrap_or(0);
        let within_share = holder.root || holder.key.is_empty() || own < self.each;
        if state.used >= limit || !within_share {
            return None;
        }
        state.used += 1;
        *state.by.entry(holder.key.clone()).or_default() += 1;
        drop(state);
        Some(Slot { slots: Arc::clone(self), key: holder.key.clone() })
    }

    /// Takes a slot, or fails.
    ///
    /// # Errors
    /// `code`, with 503 and `Retry-After`.
    pub fn take_now(self: &Arc<Self>, holder: &Holder, code: Code) -> Result<Slot, Error> {
        self.try_take(holder).ok_or_else(|| self.refuse(code))
    }

    /// [`Slots::take_now`] with another code if the limit of the holder is reached.
    ///
    /// # Errors
    /// One of the two codes.
    pub fn take_share_now(self: &Arc<Self>, holder: &Holder, of_share: Code, of_total: Code) -> Result<Slot, Error> {
        self.try_take(holder).ok_or_else(|| {
            let own = self.lock().by.get(&holder.key).copied().unwrap_or(0);
            self.refuse(if own >= self.each { of_share } else { of_total })
        })
    }

    /// Takes a slot as soon as one is free, or fails after `patience`.
    ///
    /// # Errors
    /// `code`, with 503 and `Retry-After`.
    pub async fn take(self: &Arc<Self>, holder: &Holder, patience: Duration, code: Code) -> Result<Slot, Error> {
        if let Some(slot) = self.try_take(holder) {
            return Ok(slot);
        }
        let wait = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // Registered before the attempt, so that a slot freed right after it is not missed.
                freed.as_mut().enable();
                if let Some(slot) = self.try_take(holder) {
                    return slot;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, wait).await.map_err(|_| self.refuse(code))
    }

    fn refuse(&self, code: Code) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Slots { name, limit, each, .. } = self;
        let data = serde_json::json!({ "what": name, "limit": limit, "each": each });
        Error::new(code, format!("too many {name}: the limit is {limit} at a time, and {each} for one holder; try again in a moment")).with_data(data)
    }

    /// How many slots are in use.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { used: self.lock().used, limit: self.limit, each: self.each, refused: self.refused.load(Ordering::Relaxed) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        state.used -= 1;
        if let Some(n) = state.by.get_mut(&self.key) {
            *n -= 1;
            if *n == 0 {
                state.by.remove(&self.key);
            }
        }
        drop(state);
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn holder(key: &str) -> Holder {
        Holder { key: key.into(), root: false }
    }

    #[test]
    fn a_share_bounds_one_and_the_total_bounds_all_but_root() {
        let slots = Slots::new("things", 3, 2);
        let a: Vec<_> = (0..2).map(|_| slots.try_take(&holder("a")).unwrap()).collect();
        assert!(slots.try_take(&holder("a")).is_none(), "its share");
        let b = slots.try_take(&holder("b")).unwrap();
        assert!(slots.try_take(&holder("c")).is_none(), "the total");
        let root = Holder { key: "root".into(), root: true };
        let reserve: Vec<_> = (0..ROOT_RESERVE).map(|_| slots.try_take(&root).unwrap()).collect();
        assert!(slots.try_take(&root).is_none());
        let e = slots.take_now(&holder("c"), Code::ServerBusy).unwrap_err();
        assert_eq!((e.code(), e.data().unwrap()["limit"].as_u64()), (Code::ServerBusy, Some(3)));
        assert_eq!(slots.load(), Load { used: 3 + ROOT_RESERVE, limit: 3, each: 2, refused: 1 });
        drop((a, b, reserve));
        assert_eq!(slots.load().used, 0);
        assert!(slots.lock().by.is_empty());
    }

    #[tokio::test]
    async fn one_that_waits_gets_what_is_given_back_and_no_more_than_its_patience() {
        let slots = Slots::new("things", 1, 1);
        let first = slots.try_take(&holder("a")).unwrap();
        assert!(slots.take(&holder("b"), Duration::from_millis(20), Code::ServerBusy).await.is_err());
        let waiting = {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move { slots.take(&holder("b"), Duration::from_secs(30), Code::ServerBusy).await.is_ok() })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(first);
        assert!(waiting.await.unwrap());
    }
}
