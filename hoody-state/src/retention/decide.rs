//! Which snapshots are kept, and why.

use super::period::{Periods, label};
use super::plan::Plan;
use crate::model::{Action, Protection, Reason, Schedule, Tier, Trigger};
use crate::name::SnapshotName;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::HashSet;

/// What a decision needs to know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Its name, unique among the snapshots.
    pub name: SnapshotName,
    /// When it was taken.
    pub taken: Timestamp,
    /// Why it was taken.
    pub trigger: Trigger,
    /// The schedule that took it, if `trigger` says that one did.
    pub schedule: Option<String>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// When it will be deleted by itself.
    pub expires_at: Option<Timestamp>,
    /// Whether a running sync or copy starts from it.
    pub is_base: bool,
    /// Whether all of it is there.
    pub complete: bool,
}

/// What was decided about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub snapshot: SnapshotName,
    /// What becomes of it.
    pub action: Action,
    /// The rules that keep it.
    pub reasons: Vec<Reason>,
    /// What keeps it beside the rules.
    pub protected_by: Option<Protection>,
}

/// A rule's mark on a snapshot: a [`Reason`] without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) tier: Tier,
    pub(super) nth: u32,
    pub(super) oldest: bool,
}

/// A snapshot that a schedule decides about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) taken: Timestamp,
    pub(super) periods: Periods,
}

impl Candidate {
    pub(super) fn new(zone: &TimeZone, taken: Timestamp) -> Candidate {
        Candidate { taken, periods: Periods::of(zone, taken) }
    }
}

/// What the rules of a schedule mark of its snapshots, which are complete, not of the future, and given the newest first.
pub(super) fn marks(newest_first: &[Candidate], schedule: &Schedule, now: Timestamp) -> Vec<Vec<Mark>> {
    let mut marks = vec![Vec::new(); newest_first.len()];
    let earliest = schedule.max_age.map_or(Timestamp::MIN, |age| age.before(now));
    let young = newest_first.partition_point(|candidate| candidate.taken >= earliest);
    for (tier, wanted) in schedule.keep.rules() {
        mark_newest_of_periods(&newest_first[..young], tier, wanted, &mut marks[..young]);
    }
    marks
}

fn mark_newest_of_periods(newest_first: &[Candidate], tier: Tier, wanted: u32, marks: &mut [Vec<Mark>]) {
    let mut seen = HashSet::new();
    let mut found = 0;
    let mut previous = None;
    for (candidate, marks) in newest_first.iter().zip(marks.iter_mut()) {
        if found == wanted {
            return;
        }
        let period = candidate.periods.of_tier(tier);
        // The snapshots of a period mostly follow one another, but not where a clock is set back over midnight.
        let repeated = period.is_some_and(|p| previous == period || !seen.insert(p));
        previous = period;
        if !repeated {
            found += 1;
            marks.push(Mark { tier, nth: found, oldest: false });
        }
    }
    if let Some(oldest) = marks.last_mut().filter(|_| found < wanted)
        && oldest.last().is_none_or(|mark| mark.tier != tier)
    {
        oldest.push(Mark { tier, nth: found + 1, oldest: true });
    }
}

/// Decides what becomes of each snapshot of a container, in the order in which they are given.
///
/// The module's page has the rules. Nothing that is protected is ever removed. Cost: linear in the snapshots and the rules, and sorting them.
#[must_use]
pub fn decide(snapshots: &[Stamp], plan: &Plan, now: Timestamp) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = snapshots
        .iter()
        .map(|s| Decision { snapshot: s.name.clone(), action: Action::Keep, reasons: Vec::new(), protected_by: standing_protection(s, plan, now) })
        .collect();
    protect_newest(snapshots.iter().enumerate(), now, &mut decisions);
    for schedule in plan.schedules() {
        let own = |s: &Stamp| s.trigger == Trigger::Schedule && s.schedule.as_deref() == Some(schedule.name());
        protect_newest(snapshots.iter().enumerate().filter(|(_, s)| own(s)), now, &mut decisions);
        let mut candidates: Vec<usize> = (0..snapshots.len()).filter(|i| own(&snapshots[*i]) && snapshots[*i].complete && snapshots[*i].taken <= now).collect();
        for i in &candidates {
            decisions[*i].action = Action::Remove;
        }
        candidates.sort_by(|a, b| (snapshots[*b].taken, &snapshots[*b].name).cmp(&(snapshots[*a].taken, &snapshots[*a].name)));
        let zone = plan.time_zone();
        let dated: Vec<Candidate> = candidates.iter().map(|i| Candidate::new(zone, snapshots[*i].taken)).collect();
        for (i, marks) in candidates.iter().zip(marks(&dated, schedule.schedule(), now)) {
            let reason = |m: Mark| Reason { tier: m.tier, bucket: label(m.tier, zone, snapshots[*i].taken), nth: m.nth, oldest: m.oldest };
            decisions[*i].reasons = marks.into_iter().map(reason).collect();
        }
    }
    for decision in &mut decisions {
        if !decision.reasons.is_empty() || decision.protected_by.is_some() {
            decision.action = Action::Keep;
        }
    }
    decisions
}

/// What protects a snapshot by itself, whatever other snapshots there are.
fn standing_protection(s: &Stamp, plan: &Plan, now: Timestamp) -> Option<Protection> {
    if s.taken > now {
        return Some(Protection::Future);
    }
    if !s.complete {
        return Some(Protection::Incomplete);
    }
    if s.pinned {
        return Some(Protection::Pinned);
    }
    match s.trigger {
        Trigger::Schedule if s.schedule.as_deref().is_none_or(|name| plan.schedule(name).is_none()) => Some(Protection::OtherSchedule),
        Trigger::Schedule => s.is_base.then_some(Protection::Base),
        Trigger::Manual | Trigger::Exec => Some(Protection::Manual),
        Trigger::Restore => Some(Protection::Undo),
        Trigger::Stop | Trigger::Oom | Trigger::ExecFailure | Trigger::BeforeDelete | Trigger::Copy => Some(Protection::Event),
    }
}

/// Protects the newest complete snapshot among these.
fn protect_newest<'a>(among: impl Iterator<Item = (usize, &'a Stamp)>, now: Timestamp, decisions: &mut [Decision]) {
    let newest = among.filter(|(_, s)| s.complete && s.taken <= now).max_by_key(|(_, s)| (s.taken, &s.name));
    if let Some((i, _)) = newest {
        decisions[i].protected_by.get_or_insert(Protection::Newest);
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
