//! Snapshot policies: reading them, setting them, and what applies where none is set.

use super::{Caller, Host};
use crate::catalog::{Tx, containers, policies, projects};
use crate::error::Result;
use crate::model::{NextRun, PolicyAnswer, PolicyLevel, PolicyTarget, SnapshotPolicy, Status};
use crate::retention::Plan;
use rusqlite::Connection;
use serde_json::json;

impl Host {
    /// The policy that applies to a container, a project or the server, and when its schedules run next. A container without a policy of its own shows its
    /// project's, else the server's.
    ///
    /// # Errors
    /// `container_not_found`, `project_not_found`.
    pub fn snapshot_policy(&self, target: &PolicyTarget) -> Result<PolicyAnswer> {
        self.0.read(|c| {
            self.require_target(c, target)?;
            self.policy_answer(c, target)
        })
    }

    /// Sets the policy of a container, a project or the server, and starts its schedules wherever it applies. Schedules whose times stay the same go on as they
    /// were. A policy without schedules switches an inherited one off. Cost: a row for each schedule and container to which it applies.
    ///
    /// # Errors
    /// `validation_error` with the path of the field, `container_not_found`, `project_not_found`.
    pub fn set_snapshot_policy(&self, caller: &Caller, target: &PolicyTarget, policy: &SnapshotPolicy) -> Result<PolicyAnswer> {
        let plan = Plan::new(policy)?;
        let answer = self.change(caller, |tx| {
            self.require_target(tx.conn, target)?;
            tx.put_policy(target, policy)?;
            for id in policies::containers_under(tx.conn, target)? {
                tx.align_schedules_with(&id, &plan)?;
            }
            self.announce(tx, target, "updated", json!({ "policy": policy }))?;
            self.policy_answer(tx.conn, target)
        })?;
        self.0.policies.ring();
        Ok(answer)
    }

    /// Deletes the policy of a container, a project or the server; the answer is what applies from now on. Where none was set, nothing changes. Snapshots that its
    /// schedules took stay, unless a schedule of the same name applies afterwards.
    ///
    /// # Errors
    /// `container_not_found`, `project_not_found`.
    pub fn delete_snapshot_policy(&self, caller: &Caller, target: &PolicyTarget) -> Result<PolicyAnswer> {
        let answer = self.change(caller, |tx| {
            self.require_target(tx.conn, target)?;
            if tx.delete_policy(target)? {
                let plan = self.applying(tx.conn, target)?.map(|(policy, _)| Plan::new(&policy)).transpose()?;
                for id in policies::containers_under(tx.conn, target)? {
                    match &plan {
                        Some(plan) => tx.align_schedules_with(&id, plan)?,
                        None => tx.align_schedules(&id)?,
                    }
                }
                self.announce(tx, target, "deleted", json!({}))?;
            }
            self.policy_answer(tx.conn, target)
        })?;
        self.0.policies.ring();
        Ok(answer)
    }

    /// The policy that applies to a container, if any: for what takes snapshots at events.
    pub(crate) fn applying(&self, c: &Connection, target: &PolicyTarget) -> Result<Option<(SnapshotPolicy, PolicyTarget)>> {
        match target {
            PolicyTarget::Container(id) => policies::effective(c, id),
            PolicyTarget::Project(id) => policies::effective_in(c, id),
            PolicyTarget::Server => Ok(policies::get(c, target)?.map(|p| (p, PolicyTarget::Server))),
        }
    }

    fn require_target(&self, c: &Connection, target: &PolicyTarget) -> Result<()> {
        match target {
            PolicyTarget::Container(id) => match containers::get(c, id)?.status {
                Status::Deleting => Err(crate::ops::delete::deleting(id)),
                _ => Ok(()),
            },
            PolicyTarget::Project(id) => projects::get(c, self.0.catalog.user(), id).map(drop),
            PolicyTarget::Server => Ok(()),
        }
    }

    fn policy_answer(&self, c: &Connection, target: &PolicyTarget) -> Result<PolicyAnswer> {
        let Some((policy, source)) = self.applying(c, target)? else {
            return Ok(PolicyAnswer { policy: None, inherited_from: None, next_runs: Vec::new(), warnings: Vec::new() });
        };
        let plan = Plan::new(&policy)?;
        let now = self.0.now();
        let mut next_runs: Vec<NextRun> = match target {
            PolicyTarget::Container(id) => {
                let rows = policies::schedules(c, id)?;
                rows.into_iter().map(|r| NextRun { schedule: r.schedule, at: r.start }).collect()
            }
            _ => {
                let next = |s: &crate::retention::PlannedSchedule| Some(NextRun { schedule: s.name().to_owned(), at: s.next_after(now)? });
                plan.schedules().iter().filter_map(next).collect()
            }
        };
        next_runs.sort_by(|a, b| (a.at, &a.schedule).cmp(&(b.at, &b.schedule)));
        let inherited_from = Some(match source {
            PolicyTarget::Container(_) => PolicyLevel::Container,
            PolicyTarget::Project(_) => PolicyLevel::Project,
            PolicyTarget::Server => PolicyLevel::Server,
        });
        Ok(PolicyAnswer { warnings: plan.warnings(now), policy: Some(policy), inherited_from, next_runs })
    }

    fn announce(&self, tx: &mut Tx<'_>, target: &PolicyTarget, what: &str, payload: serde_json::Value) -> Result<()> {
        let event = format!("{}.snapshot_policy.{what}", target.as_str());
        match target {
            PolicyTarget::Container(id) => {
                let row = containers::get(tx.conn, id)?;
                tx.emit_container(&event, &row, payload)
            }
            PolicyTarget::Project(id) => {
                let mut payload = payload;
                payload["project_id"] = json!(id);
                tx.emit(&event, "project", id.as_str(), Some(id), payload)
            }
            PolicyTarget::Server => tx.emit(&event, "server", self.0.server.id.as_str(), None, payload),
        }
    }
}
