//! How often automatic snapshots are taken at events that may come in a loop.

use crate::id::ContainerId;
use crate::model::AutomaticEvent;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one snapshot in this time, of each container, for events that may come in a loop.
const PAUSE: Duration = Duration::from_secs(60);

/// When the last snapshots for such events were taken, or tried. It is forgotten when the server ends.
#[derive(Default)]
pub(crate) struct Automatic {
    last: Mutex<HashMap<(ContainerId, AutomaticEvent), Instant>>,
}

impl Automatic {
    /// Whether a snapshot may be taken now. If so, none for the same event of the same container may be for a while.
    pub(crate) fn may(&self, id: &ContainerId, event: AutomaticEvent) -> bool {
        self.may_at(id, event, Instant::now())
    }

    fn may_at(&self, id: &ContainerId, event: AutomaticEvent, now: Instant) -> bool {
        if !matches!(event, AutomaticEvent::Oom | AutomaticEvent::ExecFailure) {
            return true;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        match last.entry((id.clone(), event)) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_a_loop_make_one_snapshot_a_minute() {
        let (a, now) = (Automatic::default(), Instant::now());
        let (one, other) = (ContainerId::generate(), ContainerId::generate());
        assert!(a.may_at(&one, AutomaticEvent::Oom, now));
        assert!(!a.may_at(&one, AutomaticEvent::Oom, now + PAUSE / 2));
        assert!(a.may_at(&other, AutomaticEvent::Oom, now));
        assert!(a.may_at(&one, AutomaticEvent::ExecFailure, now));
        assert!(a.may_at(&one, AutomaticEvent::Oom, now + PAUSE));
        assert_eq!(a.last.lock().map(|l| l.len()).unwrap_or_default(), 1, "what is over is forgotten");
        for _ in 0..3 {
            assert!(a.may_at(&one, AutomaticEvent::Stop, now), "a stop comes once a run");
        }
    }
}
