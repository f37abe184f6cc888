//! Receivers that could not be brought in line are tried again, with growing pauses, until they are.

use super::Shares;
use super::source::OpenedSources;
use crate::id::ContainerId;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When something is tried again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Instant,
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
    receivers: BTreeMap<ContainerId, Turn>,
    /// All containers that run: it could not be learnt who the receivers are.
    all: Option<Turn>,
}

impl Behind {
    fn next(&self) -> Option<Instant> {
        self.receivers.values().chain(&self.all).map(|t| t.at).min()
    }
}

impl Shares {
    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This receiver does not see what it should.
    pub(super) fn note_behind(&self, id: &ContainerId) {
        let mut behind = self.behind();
        let turn = Turn::after(behind.receivers.get(id).copied());
        behind.receivers.insert(id.clone(), turn);
        drop(behind);
        self.wake.expiry();
    }

    /// This receiver sees what it should.
    pub(super) fn note_in_line(&self, id: &ContainerId) {
        self.behind().receivers.remove(id);
    }

    /// Some receivers do not see what they should, and it could not be learnt which.
    pub(super) fn note_all_behind(&self) {
        let mut behind = self.behind();
        behind.all = Some(Turn::after(behind.all));
        drop(behind);
        self.wake.expiry();
    }

    /// Brings receivers in line whose turn has come; when the next one's comes.
    pub(crate) fn retry(&self) -> Option<Duration> {
        let now = Instant::now();
        let (due, all) = {
            let behind = self.behind();
            let due: Vec<ContainerId> = behind.receivers.iter().filter(|(_, t)| t.at <= now).map(|(id, _)| id.clone()).collect();
            (due, behind.all.is_some_and(|t| t.at <= now))
        };
        let mut known = OpenedSources::default();
        for id in &due {
            self.sync_or_warn(id, &mut known);
        }
        if all {
            match self.sync_all() {
                Ok(()) => self.behind().all = None,
                Err(e) => {
                    tracing::error!(error = %e, "cannot read who receives shares; trying again");
                    self.note_all_behind();
                }
            }
        }
        self.behind().next().map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
    }
}
