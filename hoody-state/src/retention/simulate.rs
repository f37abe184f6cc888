//! What a policy would do in the days to come.

use super::decide::{Candidate, Stamp, marks};
use super::plan::{Plan, PlannedSchedule};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{SimulatedDay, SimulatedSnapshot, Trigger, invalid_field};
use crate::name::SnapshotName;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How many days are simulated at most.
pub const MAX_SIMULATED_DAYS: u32 = 400;
/// How many snapshots are looked at in all, over all runs.
const MAX_STEPS: u64 = 2_000_000;
/// How many snapshots an answer lists in all, over all days.
const MAX_LISTED: u64 = 50_000;

/// Says what would exist at the end of each of the next `days` days, today being the first, if every run took a snapshot.
///
/// Events take none here, and nobody takes, pins or deletes any. Snapshots with an expiry go when it has passed.
///
/// # Errors
/// `validation_error` for `simulate_days`, if it is not 1 to 400, or if that many days are too much for how often the policy runs; the message says how many
/// are not.
pub fn simulate(snapshots: &[Stamp], plan: &Plan, container: &ContainerId, now: Timestamp, days: u32) -> Result<Vec<SimulatedDay>> {
    if !(1..=MAX_SIMULATED_DAYS).contains(&days) {
        return Err(invalid_field("simulate_days", format!("{days} is out of range: 1 to {MAX_SIMULATED_DAYS}")));
    }
    check_effort(snapshots, plan, now, days)?;
    let mut histories: Vec<History> = plan.schedules().iter().map(|s| History::new(s, snapshots, container, now)).collect();
    let others: Vec<&Stamp> = snapshots.iter().filter(|s| !is_of_a_schedule(s, plan)).collect();
    let mut date = plan.time_zone().to_datetime(now).date();
    let mut simulated = Vec::new();
    for _ in 0..days {
        let Some((next, end)) = end_of_day(plan.time_zone(), date) else { break };
        let (mut taken, mut removed) = (0, 0);
        for history in &mut histories {
            let (t, r) = history.run_until(end);
            taken += t;
            removed += r;
        }
        let mut list: Vec<SimulatedSnapshot> = histories.iter().flat_map(History::list).collect();
        list.sort_by(|a, b| (b.taken_at, &a.schedule).cmp(&(a.taken_at, &b.schedule)));
        let others = others.iter().filter(|s| !is_expired(s.pinned, s.expires_at, end)).count() as u64;
        simulated.push(SimulatedDay { date: date.to_string(), taken, removed, others, snapshots: list });
        date = next;
    }
    Ok(simulated)
}

fn is_of_a_schedule(s: &Stamp, plan: &Plan) -> bool {
    s.trigger == Trigger::Schedule && s.schedule.as_deref().is_some_and(|name| plan.schedule(name).is_some())
}

fn is_expired(pinned: bool, expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    !pinned && expires_at.is_some_and(|t| t <= now)
}

/// The next date, and the first instant that is of it or later.
fn end_of_day(zone: &TimeZone, date: Date) -> Option<(Date, Timestamp)> {
    let next = date.tomorrow().ok()?;
    Some((next, next.to_zoned_datetime(zone.clone()).ok()?.timestamp()))
}

/// Refuses what would take long or have an answer of many megabytes.
fn check_effort(snapshots: &[Stamp], plan: &Plan, now: Timestamp, days: u32) -> Result<()> {
    let effort = |days: u32| {
        let end = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
        plan.schedules().iter().fold((0u64, 0u64), |(steps, listed), schedule| {
            let runs = schedule.between(now, end).count;
            let own = snapshots.iter().filter(|s| s.schedule.as_deref() == Some(schedule.name())).count() as u64;
            let kept: u64 = schedule.schedule().keep.rules().map(|(_, n)| u64::from(n) + 1).sum();
            let protected = snapshots.iter().filter(|s| s.schedule.as_deref() == Some(schedule.name()) && (s.pinned || s.is_base)).count() as u64;
            let most = (kept + protected).min(own + runs);
            (steps.saturating_add(runs.saturating_mul(most)), listed.saturating_add(u64::from(days).saturating_mul(most)))
        })
    };
    let fits = |days: u32| {
        let (steps, listed) = effort(days);
        steps <= MAX_STEPS && listed <= MAX_LISTED
    };
    if fits(days) {
        return Ok(());
    }
    // More days are never less work, so the limit is found by halving.
    let (mut least, mut most) = (0, days);
    while most - least > 1 {
        let middle = least + (most - least) / 2;
        if fits(middle) { least = middle } else { most = middle }
    }
    let advice = if least == 0 { "simulate a policy that keeps fewer snapshots or runs less often".to_owned() } else { format!("ask for at most {least}") };
    Err(invalid_field("simulate_days", format!("{days} days are too many for how often this policy runs and how much it keeps: {advice}")))
}

/// The snapshots of one schedule as time goes on, the oldest first.
struct History<'a> {
    schedule: &'a PlannedSchedule,
    delay: SignedDuration,
    next_run: Option<Timestamp>,
    snapshots: Vec<Own>,
}

struct Own {
    dated: Candidate,
    name: Option<SnapshotName>,
    pinned: bool,
    /// It is pinned or a base.
    stays: bool,
    complete: bool,
    expires_at: Option<Timestamp>,
}

impl<'a> History<'a> {
    fn new(schedule: &'a PlannedSchedule, all: &[Stamp], container: &ContainerId, now: Timestamp) -> Self {
        let own = all.iter().filter(|s| s.trigger == Trigger::Schedule && s.schedule.as_deref() == Some(schedule.name()));
        let mut snapshots: Vec<Own> = own
            .map(|s| Own {
                dated: Candidate::new(schedule.time_zone(), s.taken),
                name: Some(s.name.clone()),
                pinned: s.pinned,
                stays: s.pinned || s.is_base,
                complete: s.complete,
                expires_at: s.expires_at,
            })
            .collect();
        snapshots.sort_by(|a, b| (a.dated.taken, &a.name).cmp(&(b.dated.taken, &b.name)));
        let delay = schedule.offset(container);
        // A run that is due and was not started yet, because it is spread, is one of the future.
        let next_run = schedule.next_after(now.checked_sub(delay).unwrap_or(now));
        History { schedule, delay, next_run, snapshots }
    }

    /// Does all runs that start before `end`; says how many snapshots were taken, and how many are gone.
    fn run_until(&mut self, end: Timestamp) -> (u64, u64) {
        let (mut taken, mut removed) = (0, 0);
        while let Some(scheduled_for) = self.next_run {
            let Some(at) = scheduled_for.checked_add(self.delay).ok().filter(|at| *at < end) else { break };
            removed += self.expire(at);
            let place = self.snapshots.partition_point(|s| s.dated.taken <= at);
            let dated = Candidate::new(self.schedule.time_zone(), at);
            self.snapshots.insert(place, Own { dated, name: None, pinned: false, stays: false, complete: true, expires_at: None });
            taken += 1;
            removed += self.prune(at);
            self.next_run = self.schedule.next_after(scheduled_for);
        }
        removed += self.expire(end);
        (taken, removed)
    }

    fn expire(&mut self, now: Timestamp) -> u64 {
        let before = self.snapshots.len();
        self.snapshots.retain(|s| !is_expired(s.pinned, s.expires_at, now));
        (before - self.snapshots.len()) as u64
    }

    /// What a run removes after it took its snapshot: as [`super::decide`] decides.
    fn prune(&mut self, now: Timestamp) -> u64 {
        let before = self.snapshots.len();
        let is_candidate = |s: &Own| s.complete && s.dated.taken <= now;
        let newest_first: Vec<Candidate> = self.snapshots.iter().rev().filter(|s| is_candidate(s)).map(|s| s.dated).collect();
        // The newest stays without any mark.
        let mut kept = marks(&newest_first, self.schedule.schedule(), now).into_iter().enumerate().map(|(i, marks)| i == 0 || !marks.is_empty()).rev();
        self.snapshots.retain(|s| !is_candidate(s) || kept.next().unwrap_or(true) || s.stays);
        (before - self.snapshots.len()) as u64
    }

    fn list(&self) -> impl Iterator<Item = SimulatedSnapshot> {
        self.snapshots.iter().map(|s| SimulatedSnapshot { schedule: self.schedule.name().to_owned(), taken_at: s.dated.taken, name: s.name.clone() })
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
