//! Snapshot policies of the server, of projects and of containers, and when each schedule of a container runs next.

use super::{Tx, json, ms, time, to_json};
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::model::{PolicyTarget, SnapshotPolicy};
use crate::retention::{Plan, PlannedSchedule};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The policy that is set on this scope itself.
pub(crate) fn get(c: &Connection, scope: &PolicyTarget) -> Result<Option<SnapshotPolicy>> {
    let mut s = c.prepare_cached("SELECT policy FROM policies WHERE scope = ?1 AND id = ?2")?;
    let text: Option<String> = s.query_row([scope.as_str(), scope.id()], |r| r.get(0)).optional()?;
    text.map(|t| json(&t, "snapshot policy")).transpose()
}

/// The policy that applies to a container, and what it is set on: its own, else its project's, else the server's. Nothing is merged.
pub(crate) fn effective(c: &Connection, id: &ContainerId) -> Result<Option<(SnapshotPolicy, PolicyTarget)>> {
    let sql = "SELECT p.scope, p.id, p.policy FROM containers c JOIN policies p
                 ON (p.scope = 'container' AND p.id = c.id) OR (p.scope = 'project' AND p.id = c.project_id) OR (p.scope = 'server' AND p.id = '')
               WHERE c.id = ?1 ORDER BY CASE p.scope WHEN 'container' THEN 0 WHEN 'project' THEN 1 ELSE 2 END LIMIT 1";
    nearest(c, sql, id.as_str())
}

/// The same for the containers of a project that have no policy of their own.
pub(crate) fn effective_in(c: &Connection, id: &ProjectId) -> Result<Option<(SnapshotPolicy, PolicyTarget)>> {
    let sql = "SELECT scope, id, policy FROM policies WHERE (scope = 'project' AND id = ?1) OR (scope = 'server' AND id = '') ORDER BY scope LIMIT 1";
    nearest(c, sql, id.as_str())
}

fn nearest(c: &Connection, sql: &str, id: &str) -> Result<Option<(SnapshotPolicy, PolicyTarget)>> {
    let found: Option<(String, String, String)> = c.prepare_cached(sql)?.query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
    let Some((word, id, policy)) = found else { return Ok(None) };
    let scope = match word.as_str() {
        "container" => PolicyTarget::Container(id.parse()?),
        "project" => PolicyTarget::Project(id.parse()?),
        _ => PolicyTarget::Server,
    };
    Ok(Some((json(&policy, "snapshot policy")?, scope)))
}

/// The containers to which the policy of this scope applies, or would apply if it had one. Those that are being deleted are left out.
pub(crate) fn containers_under(c: &Connection, scope: &PolicyTarget) -> Result<Vec<ContainerId>> {
    let wanted = match scope {
        PolicyTarget::Container(_) => "c.id = ?1",
        PolicyTarget::Project(_) => "c.project_id = ?1 AND NOT EXISTS(SELECT 1 FROM policies p WHERE p.scope = 'container' AND p.id = c.id)",
        PolicyTarget::Server => {
            "?1 = '' AND NOT EXISTS(SELECT 1 FROM policies p WHERE (p.scope = 'container' AND p.id = c.id) OR (p.scope = 'project' AND p.id = c.project_id))"
        }
    };
    let mut s = c.prepare_cached(&format!("SELECT c.id FROM containers c WHERE {wanted} AND c.status <> 'deleting'"))?;
    s.query_map([scope.id()], |r| r.get::<_, String>(0))?.map(|id| id?.parse()).collect()
}

/// Where a schedule of a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScheduleRow {
    pub container: ContainerId,
    pub schedule: String,
    /// The time by the schedule of the next run.
    pub due: Timestamp,
    /// When that run starts: later than `due` by the spread, or by the pause after a failure.
    pub start: Timestamp,
    /// The time by the schedule of the last run that is done.
    pub last: Option<Timestamp>,
    /// Why the last attempt failed; nothing when it succeeded.
    pub last_error: Option<String>,
    /// Attempts that failed since the last run that is done.
    pub failures: u32,
    /// What the times are computed from, as text: when it changes, they are computed anew.
    pub rule: String,
}

/// A run of a schedule: the time that it stands for, and the run after it. It is part of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub container: ContainerId,
    pub schedule: String,
    /// What the times were computed from.
    pub rule: String,
    due_ms: i64,
    next_due_ms: i64,
    next_start_ms: i64,
}

impl Slot {
    pub(crate) fn new(schedule: &PlannedSchedule, container: &ContainerId, scheduled_for: Timestamp) -> Self {
        let (next, start) = run_after(schedule, container, scheduled_for);
        Slot {
            container: container.clone(),
            schedule: schedule.name().to_owned(),
            rule: rule(schedule),
            due_ms: ms(scheduled_for),
            next_due_ms: ms(next),
            next_start_ms: ms(start),
        }
    }

    /// The time by the schedule.
    pub(crate) fn scheduled_for(&self) -> Timestamp {
        time(self.due_ms)
    }
}

/// What the times of a schedule are computed from, as text.
pub(crate) fn rule(schedule: &PlannedSchedule) -> String {
    let zone = schedule.time_zone().iana_name().unwrap_or("UTC");
    let spread = schedule.schedule().spread.map_or(0, |s| s.as_secs());
    format!("{zone} {spread} {}", schedule.schedule().cron)
}

/// The time by the schedule of the first run after `after`, and when it starts in this container. One that never comes is at the end of time.
fn run_after(schedule: &PlannedSchedule, container: &ContainerId, after: Timestamp) -> (Timestamp, Timestamp) {
    let due = schedule.next_after(after).unwrap_or(Timestamp::MAX);
    (due, due.checked_add(schedule.offset(container)).unwrap_or(due))
}

/// Where a schedule stands that begins to apply at `now`, or whose times have changed. `before`: what is known of its runs until now.
pub(crate) fn first_run(container: &ContainerId, schedule: &PlannedSchedule, now: Timestamp, before: Option<&ScheduleRow>) -> ScheduleRow {
    let (due, start) = run_after(schedule, container, now);
    ScheduleRow {
        container: container.clone(),
        schedule: schedule.name().to_owned(),
        due,
        start,
        last: before.and_then(|b| b.last),
        last_error: before.and_then(|b| b.last_error.clone()),
        failures: 0,
        rule: rule(schedule),
    }
}

const COLUMNS: &str = "container_id, schedule, due_ms, next_due_ms, last_ms, last_error, failures, rule";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<ScheduleRow>> {
    let (id, schedule, due, start): (String, String, i64, i64) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
    let (last, last_error, failures, rule): (Option<i64>, Option<String>, u32, String) = (r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?);
    Ok(id.parse().map(|container| ScheduleRow { container, schedule, due: time(due), start: time(start), last: last.map(time), last_error, failures, rule }))
}

/// Where the schedules of a container stand, by their names.
pub(crate) fn schedules(c: &Connection, id: &ContainerId) -> Result<Vec<ScheduleRow>> {
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM schedules WHERE container_id = ?1 ORDER BY schedule"))?;
    s.query_map([id.as_str()], row)?.map(|r| r?).collect()
}

/// Where all schedules stand.
pub(crate) fn all_schedules(c: &Connection) -> Result<Vec<ScheduleRow>> {
    let mut s = c.prepare(&format!("SELECT {COLUMNS} FROM schedules"))?;
    s.query_map([], row)?.map(|r| r?).collect()
}

/// The schedules of a container whose next run is to start by `now`, the earliest first.
pub(crate) fn due_of(c: &Connection, id: &ContainerId, now: Timestamp) -> Result<Vec<ScheduleRow>> {
    let sql = format!("SELECT {COLUMNS} FROM schedules WHERE container_id = ?1 AND next_due_ms <= ?2 ORDER BY next_due_ms, schedule");
    c.prepare_cached(&sql)?.query_map(params![id.as_str(), ms(now)], row)?.map(|r| r?).collect()
}

/// The containers that have a run to be started by `now`, the earliest first, and when the next one after `now` starts.
pub(crate) fn due(c: &Connection, now: Timestamp) -> Result<(Vec<ContainerId>, Option<Timestamp>)> {
    let mut s = c.prepare_cached("SELECT container_id FROM schedules WHERE next_due_ms <= ?1 GROUP BY container_id ORDER BY min(next_due_ms), container_id")?;
    let due = s.query_map([ms(now)], |r| r.get::<_, String>(0))?.map(|id| id?.parse()).collect::<Result<_>>()?;
    let mut s = c.prepare_cached("SELECT min(next_due_ms) FROM schedules WHERE next_due_ms > ?1")?;
    let next: Option<i64> = s.query_row([ms(now)], |r| r.get(0))?;
    Ok((due, next.map(time)))
}

/// When the next run of a container starts.
pub(crate) fn first_start_of(c: &Connection, id: &ContainerId) -> Result<Option<Timestamp>> {
    let mut s = c.prepare_cached("SELECT min(next_due_ms) FROM schedules WHERE container_id = ?1")?;
    let next: Option<i64> = s.query_row([id.as_str()], |r| r.get(0))?;
    Ok(next.map(time))
}

/// How many schedules failed at their last attempt.
pub(crate) fn count_failing(c: &Connection) -> Result<u64> {
    Ok(c.prepare_cached("SELECT count(*) FROM schedules WHERE failures > 0")?.query_row([], |r| r.get(0))?)
}

/// When the first run starts, which may be past.
pub(crate) fn first_start(c: &Connection) -> Result<Option<Timestamp>> {
    let first: Option<i64> = c.prepare_cached("SELECT min(next_due_ms) FROM schedules")?.query_row([], |r| r.get(0))?;
    Ok(first.map(time))
}

impl Tx<'_> {
    /// Sets the policy of a scope. The schedules of the containers under it are to be brought in line within the same transaction.
    pub(crate) fn put_policy(&mut self, scope: &PolicyTarget, policy: &SnapshotPolicy) -> Result<()> {
        self.conn.execute(
            "INSERT INTO policies(scope, id, policy, updated_ms) VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT(scope, id) DO UPDATE SET policy = excluded.policy, updated_ms = excluded.updated_ms",
            params![scope.as_str(), scope.id(), to_json(policy)?, ms(self.now)],
        )?;
        Ok(())
    }

    /// Deletes the policy of a scope; whether it had one.
    pub(crate) fn delete_policy(&mut self, scope: &PolicyTarget) -> Result<bool> {
        Ok(self.conn.execute("DELETE FROM policies WHERE scope = ?1 AND id = ?2", [scope.as_str(), scope.id()])? > 0)
    }

    /// Brings the rows of a container's schedules in line with the policy that applies to it. Times that are computed as before stay.
    pub(crate) fn align_schedules(&mut self, id: &ContainerId) -> Result<()> {
        let Some((policy, target)) = effective(self.conn, id)? else { return self.keep_schedules(id, &BTreeSet::new()) };
        match Plan::new(&policy) {
            Ok(plan) => self.align_schedules_with(id, &plan),
            // Another version has checked it. Nothing else fails because of it.
            Err(e) => {
                tracing::error!(container = %id, error = %e, "the snapshot policy of {target} cannot be used");
                Ok(())
            }
        }
    }

    /// The same, with the policy that applies.
    pub(crate) fn align_schedules_with(&mut self, id: &ContainerId, plan: &Plan) -> Result<()> {
        let known = schedules(self.conn, id)?;
        for schedule in plan.schedules() {
            let before = known.iter().find(|r| r.schedule == schedule.name());
            if before.is_none_or(|r| r.rule != rule(schedule)) {
                self.put_schedule(&first_run(id, schedule, self.now, before))?;
            }
        }
        self.keep_schedules(id, &plan.schedules().iter().map(PlannedSchedule::name).collect())
    }

    /// A run is done: the next one is due. A schedule that has changed or gone meanwhile stays as it is.
    pub(crate) fn end_run(&mut self, id: &ContainerId, slot: &Slot) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE schedules SET due_ms = ?4, next_due_ms = ?5, last_ms = ?3, last_error = NULL, failures = 0
                 WHERE container_id = ?1 AND schedule = ?2 AND rule = ?6 AND due_ms <= ?3",
            )?
            .execute(params![id.as_str(), slot.schedule, slot.due_ms, slot.next_due_ms, slot.next_start_ms, slot.rule])?;
        Ok(())
    }

    /// Writes where a schedule stands.
    pub(crate) fn put_schedule(&mut self, r: &ScheduleRow) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO schedules(container_id, schedule, due_ms, next_due_ms, last_ms, last_error, failures, rule) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT(container_id, schedule) DO UPDATE SET due_ms = excluded.due_ms, next_due_ms = excluded.next_due_ms, last_ms = excluded.last_ms,
                 last_error = excluded.last_error, failures = excluded.failures, rule = excluded.rule",
            )?
            .execute(params![r.container.as_str(), r.schedule, ms(r.due), ms(r.start), r.last.map(ms), r.last_error, r.failures, r.rule])?;
        Ok(())
    }

    /// Deletes the rows of a container's schedules, but for those named.
    pub(crate) fn keep_schedules(&mut self, id: &ContainerId, names: &BTreeSet<&str>) -> Result<()> {
        for row in schedules(self.conn, id)?.iter().filter(|r| !names.contains(r.schedule.as_str())) {
            self.conn.execute("DELETE FROM schedules WHERE container_id = ?1 AND schedule = ?2", [id.as_str(), &row.schedule])?;
        }
        Ok(())
    }

    /// Deletes the policy and the schedules of a container that is deleted.
    pub(crate) fn forget_policies_of(&mut self, id: &ContainerId) -> Result<()> {
        self.delete_policy(&PolicyTarget::Container(id.clone()))?;
        self.keep_schedules(id, &BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalog::{Catalog, Durability};

    #[test]
    fn the_nearest_policy_applies_as_a_whole() {
        let c = Catalog::in_memory().unwrap();
        let (project, other): (ProjectId, ProjectId) = (ProjectId::generate(), ProjectId::generate());
        let ids = [ContainerId::generate(), ContainerId::generate(), ContainerId::generate()];
        let policy = |zone: &str| SnapshotPolicy { timezone: zone.into(), ..Default::default() };
        let scopes = [PolicyTarget::Server, PolicyTarget::Project(project.clone()), PolicyTarget::Container(ids[0].clone())];
        c.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| {
            for (id, p) in ids.iter().zip([&project, &project, &other]) {
                let sql = "INSERT INTO containers(id, project_id, name, status, status_ms, spec, state, created_ms, updated_ms) VALUES(?1, ?2, ?1, 'stopped', 0, '', '', 0, 0)";
                tx.conn.execute(sql, [id.as_str(), p.as_str()])?;
            }
            assert_eq!(effective(tx.conn, &ids[0])?, None);
            for scope in &scopes {
                tx.put_policy(scope, &policy(scope.as_str()))?;
            }
            for (id, scope) in ids.iter().zip(scopes.iter().rev()) {
                assert_eq!(effective(tx.conn, id)?, Some((policy(scope.as_str()), scope.clone())));
                assert_eq!(containers_under(tx.conn, scope)?, std::slice::from_ref(id), "{scope}");
            }
            assert_eq!(effective_in(tx.conn, &project)?.unwrap().1, scopes[1]);
            assert_eq!(effective_in(tx.conn, &other)?.unwrap().1, scopes[0]);
            assert!(tx.delete_policy(&scopes[1])? && !tx.delete_policy(&scopes[1])?);
            assert_eq!(effective(tx.conn, &ids[1])?, Some((policy("server"), PolicyTarget::Server)));
            assert_eq!((get(tx.conn, &scopes[1])?, get(tx.conn, &scopes[2])?), (None, Some(policy("container"))));
            tx.forget_policies_of(&ids[0])?;
            assert_eq!(containers_under(tx.conn, &PolicyTarget::Server)?.len(), 3);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn what_is_due_comes_in_the_order_of_its_start() {
        let c = Catalog::in_memory().unwrap();
        let (a, b) = (ContainerId::generate(), ContainerId::generate());
        let of = |container: &ContainerId, schedule: &str, start: i64| ScheduleRow {
            container: container.clone(),
            schedule: schedule.into(),
            due: time(0),
            start: time(start),
            last: None,
            last_error: None,
            failures: 0,
            rule: String::new(),
        };
        c.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| {
            for r in [of(&a, "daily", 30), of(&a, "hourly", 10), of(&b, "hourly", 5), of(&b, "daily", 50)] {
                tx.put_schedule(&r)?;
            }
            assert_eq!(due(tx.conn, time(4))?, (vec![], Some(time(5))));
            assert_eq!(due(tx.conn, time(10))?, (vec![b.clone(), a.clone()], Some(time(30))));
            assert_eq!(due(tx.conn, time(50))?.1, None);
            assert_eq!(due_of(tx.conn, &a, time(30))?.iter().map(|r| r.schedule.as_str()).collect::<Vec<_>>(), ["hourly", "daily"]);
            assert_eq!(first_start(tx.conn)?, Some(time(5)));
            tx.keep_schedules(&b, &BTreeSet::from(["daily"]))?;
            assert_eq!(schedules(tx.conn, &b)?, [of(&b, "daily", 50)]);
            assert_eq!(all_schedules(tx.conn)?.len(), 3);
            tx.forget_policies_of(&a)?;
            assert_eq!(first_start(tx.conn)?, Some(time(50)));
            Ok(())
        })
        .unwrap();
    }
}
