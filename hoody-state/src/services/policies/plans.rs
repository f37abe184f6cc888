use crate::error::Result;
use crate::model::SnapshotPolicy;
use crate::retention::Plan;
use std::sync::{Arc, Mutex, PoisonError};

/// How many policies are kept checked. A server has few that differ.
const KEPT: usize = 32;

/// Policies that were checked: a check takes as long as a snapshot.
#[derive(Default)]
pub(super) struct Plans(Mutex<Vec<(SnapshotPolicy, Arc<Plan>)>>);

impl Plans {
    /// Error: `validation_error`.
    pub(super) fn of(&self, policy: SnapshotPolicy) -> Result<Arc<Plan>> {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(p, _)| *p == policy) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::new(&policy)?);
        if plans.len() >= KEPT {
            plans.remove(0);
        }
        plans.push((policy, Arc::clone(&plan)));
        Ok(plan)
    }
}
