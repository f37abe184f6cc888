//! How many of one kind of thing are under way, in all and for each of those who ask. One who takes much leaves room for the others, and the host's root has a
//! reserve that no token can use up.

use crate::auth::Identity;
use hoody_state::{Code, Error};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// More than what tokens may use, for the host's root.
pub const ROOT_RESERVE: usize = 4;

/// For whom a slot is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// A token, a project, an address: whoever has a share of its own. Empty: nobody in particular, bounded by the total alone.
    pub key: String,
    /// The host's root: it may use the reserve, and is not held to a share.
    pub root: bool,
}

impl Holder {
    /// By what it is counted by.
    #[must_use]
    pub fn of(who: &Identity, key: impl Into<String>) -> Self {
        Holder { key: key.into(), root: matches!(who, Identity::Root) }
    }

    /// A caller as such.
    #[must_use]
    pub fn caller(who: &Identity) -> Self {
        Holder::of(who, who.scope())
    }
}

tokio::task_local! {
    /// For whom the request at hand is answered.
    pub static CALLER: Holder;
}

/// For whom the request at hand is answered, where that is known.
#[must_use]
pub fn current() -> Holder {
    CALLER.try_with(Clone::clone).unwrap_or(Holder { key: String::new(), root: false })
}

/// The slots of one kind.
#[derive(Debug)]
pub struct Slots {
    /// What they are for, as the figures name it.
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

/// One that is taken; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    key: String,
}

/// How full they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Load {
    /// Under way now.
    pub used: usize,
    /// The most in all.
    pub limit: usize,
    /// The most for one caller, project or address.
    pub each: usize,
    /// Refused since the server began.
    pub refused: u64,
}

impl Slots {
    /// So many in all, and for each.
    #[must_use]
    pub fn new(name: &'static str, limit: usize, each: usize) -> Arc<Self> {
        Arc::new(Slots { name, limit, each: each.min(limit), state: Mutex::default(), freed: Notify::new(), refused: AtomicU64::new(0) })
    }

    /// The most threads that their work needs.
    #[must_use]
    pub fn most(&self) -> usize {
        self.limit + ROOT_RESERVE
    }

    /// Takes one, if one is free.
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

    /// Takes one now.
    ///
    /// # Errors
    /// `code`, with 503 and `Retry-After`.
    pub fn take_now(self: &Arc<Self>, holder: &Holder, code: Code) -> Result<Slot, Error> {
        self.try_take(holder).ok_or_else(|| self.refuse(code))
    }

    /// [`Slots::take_now`] with another code for a holder who has its share.
    ///
    /// # Errors
    /// One of the two codes.
    pub fn take_share_now(self: &Arc<Self>, holder: &Holder, of_share: Code, of_total: Code) -> Result<Slot, Error> {
        self.try_take(holder).ok_or_else(|| {
            let own = self.lock().by.get(&holder.key).copied().unwrap_or(0);
            self.refuse(if own >= self.each { of_share } else { of_total })
        })
    }

    /// Takes one as soon as it is free, within `patience`.
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
                // Before the look, so that what is given back after it is not missed.
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
        Error::new(code, format!("too many {name} are under way: this server takes {limit} at once and {each} of one holder; try again in a moment"))
            .with_data(data)
    }

    /// How full they are.
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
