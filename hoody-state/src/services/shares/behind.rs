//! Which receivers are behind what they should see, and when they are tried again.

use crate::id::ContainerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub at: Instant,
    pause: Duration,
}

impl Turn {
    fn after(before: Option<Turn>) -> Self {
        let pause = before.map_or(FIRST_PAUSE, |b| (b.pause * 2).min(LONGEST_PAUSE));
        Turn { at: Instant::now() + pause, pause }
    }
}

/// Who is to be brought in line again, and when.
#[derive(Default)]
pub(super) struct Behind {
    pub receivers: BTreeMap<ContainerId, Turn>,
    /// All containers that run: it could not be learnt who the receivers are.
    pub all: Option<Turn>,
}

impl Behind {
    pub(super) fn next(&self) -> Option<Instant> {
        self.receivers.values().chain(&self.all).map(|t| t.at).min()
    }
}

impl Behind {
    /// This receiver does not see what it should.
    pub(super) fn add(&mut self, id: &ContainerId) {
        let turn = Turn::after(self.receivers.get(id).copied());
        self.receivers.insert(id.clone(), turn);
    }

    /// Some receivers do not see what they should, and it could not be learnt which.
    pub(super) fn add_all(&mut self) {
        self.all = Some(Turn::after(self.all));
    }
}
