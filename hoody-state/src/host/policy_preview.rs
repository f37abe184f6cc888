//! What a snapshot policy would do to a container.

use super::Host;
use crate::catalog::{containers, policies, snapshots};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{NextRun, PolicyPreview, PolicyPreviewRequest, Protection, SnapshotPolicy, SnapshotPreview, Trigger};
use crate::ops::prune::stamps;
use crate::retention::{Decision, Plan, Stamp, decide, simulate};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

impl Host {
    /// Says what a policy would keep and remove of a container's snapshots, and why. Without a policy in the request, that which applies to the container. Decided
    /// by the same function as the runs themselves; a run that a clock that moved holds back is not foreseen. Nothing is changed.
    ///
    /// Cost: the catalog's rows of the container; what is freed is said only where it is known already, else it is measured for later requests. The bounds of a
    /// simulation are those of [`simulate`].
    ///
    /// # Errors
    /// `container_not_found`; `validation_error` for the policy (its field begins with `policy.`) or for `simulate_days`.
    pub fn preview_policy(&self, id: &ContainerId, request: &PolicyPreviewRequest) -> Result<PolicyPreview> {
        let (rows, applying) = self.0.read(|c| {
            containers::get(c, id)?;
            Ok((snapshots::all(c, id)?, policies::effective(c, id)?))
        })?;
        let policy = match (&request.policy, applying) {
            (Some(own), _) => own.clone(),
            (None, Some((policy, _))) => policy,
            (None, None) => SnapshotPolicy::default(),
        };
        let plan = Plan::new(&policy).map_err(|e| if request.policy.is_some() { within_policy(e) } else { e })?;
        let now = self.0.now();
        let mut stamps = stamps(&self.0, id, &rows)?;
        stamps.sort_by(|a, b| (b.taken, &b.name).cmp(&(a.taken, &a.name)));
        let decisions = decide(&stamps, &plan, now);
        let days = request.simulate_days.map(|days| simulate(&stamps, &plan, id, now, days)).transpose()?;
        let names: Vec<_> = stamps.iter().map(|s| s.name.clone()).collect();
        let frees = self.frees(id, &names, Duration::ZERO)?;
        let mut warnings = plan.warnings(now);
        warnings.extend(leftovers(&stamps, &decisions));
        let snapshots = stamps.into_iter().zip(decisions).map(|(s, d)| SnapshotPreview {
            created_at: s.taken,
            schedule: s.schedule,
            action: d.action,
            reasons: d.reasons,
            protected_by: d.protected_by,
            frees_bytes: frees.get(&d.snapshot).copied(),
            snapshot: d.snapshot,
        });
        Ok(PolicyPreview { snapshots: snapshots.collect(), next_runs: next_runs(&plan, id, now), warnings, days })
    }
}

/// The same error, its field as it is called in the request.
fn within_policy(e: crate::Error) -> crate::Error {
    let field = e.data().and_then(|d| d["field"].as_str()).map(|field| format!("policy.{field}"));
    match field {
        Some(field) => e.with_data(serde_json::json!({ "field": field })),
        None => e,
    }
}

fn next_runs(plan: &Plan, id: &ContainerId, now: Timestamp) -> Vec<NextRun> {
    let next = |s: &crate::retention::PlannedSchedule| {
        let delay: SignedDuration = s.offset(id);
        let at = s.next_after(now.checked_sub(delay).unwrap_or(now))?.checked_add(delay).ok()?;
        Some(NextRun { schedule: s.name().to_owned(), at })
    };
    let mut runs: Vec<NextRun> = plan.schedules().iter().filter_map(next).collect();
    runs.sort_by(|a, b| (a.at, &a.schedule).cmp(&(b.at, &b.schedule)));
    runs
}

/// Says which snapshots no schedule will ever remove, although a schedule took them.
fn leftovers(stamps: &[Stamp], decisions: &[Decision]) -> Vec<String> {
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut future = 0;
    for (s, d) in stamps.iter().zip(decisions) {
        match (d.protected_by, s.trigger, s.schedule.as_deref()) {
            (Some(Protection::OtherSchedule), Trigger::Schedule, Some(name)) => *of.entry(name).or_default() += 1,
            (Some(Protection::Future), ..) => future += 1,
            _ => {}
        }
    }
    let count = |n: usize| if n == 1 { "1 snapshot".to_owned() } else { format!("{n} snapshots") };
    let mut warnings: Vec<String> =
        of.into_iter().map(|(name, n)| format!("{} of schedule {name:?}, which this policy does not have: nothing removes them", count(n))).collect();
    if future > 0 {
        warnings.push(format!("{} dated in the future: ignored until then", count(future)));
    }
    warnings
}
