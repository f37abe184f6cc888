//! Receivers that could not be brought in line are tried again, with growing pauses, until they are.

use super::component::Shares;
use super::source::OpenedSources;
use crate::id::ContainerId;
use std::time::{Duration, Instant};

impl Shares {
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
