//! The rules once more, written from the requirement alone and without the code beside it: by what it says of each single snapshot, in quadratic time.
//! Random histories must be decided alike.
#![allow(clippy::unwrap_used)]

use super::{Plan, Stamp, decide};
use crate::model::{Action, Keep, Schedule, SnapshotPolicy, Trigger, While};
use crate::units::Age;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// The calendar period of `unit` in which a time lies, as a text.
fn period(unit: usize, t: Timestamp, zone: &TimeZone) -> String {
    let z = t.to_zoned_datetime(zone.clone());
    let week = z.date().iso_week_date();
    match unit {
        0 => format!("{} {} {}", z.date(), z.hour(), z.offset().seconds()),
        1 => format!("{}", z.date()),
        2 => format!("{} {}", week.year(), week.week()),
        3 => format!("{} {}", z.year(), z.month()),
        _ => format!("{}", z.year()),
    }
}

/// Whether a rule keeps the snapshot `s` among `all`, each of which has the time it was taken, its name and the period of the rule.
fn keeps(n: u32, s: usize, all: &[(Timestamp, &str, String)]) -> bool {
    let newer = |a: usize, b: usize| (all[a].0, all[a].1) > (all[b].0, all[b].1);
    let newest_of_its_period = |i: usize| !(0..all.len()).any(|j| all[j].2 == all[i].2 && newer(j, i));
    let newer_periods = || (0..all.len()).filter(|i| newer(*i, s) && newest_of_its_period(*i)).count();
    let periods = || all.iter().map(|(_, _, period)| period).collect::<BTreeSet<&String>>().len();
    let is_oldest = !(0..all.len()).any(|j| newer(s, j));
    (newest_of_its_period(s) && newer_periods() < n as usize) || (is_oldest && periods() < n as usize)
}

/// The names of what is removed.
fn removed(snapshots: &[Stamp], policy: &SnapshotPolicy, zone: &TimeZone, now: Timestamp) -> BTreeSet<String> {
    let existing: Vec<&Stamp> = snapshots.iter().filter(|s| s.taken <= now && s.complete).collect();
    let mut removed = BTreeSet::new();
    for schedule in &policy.schedules {
        let own: Vec<&Stamp> = existing.iter().copied().filter(|s| s.trigger == Trigger::Schedule && s.schedule.as_ref() == Some(&schedule.name)).collect();
        let age = |s: &Stamp| now.duration_since(s.taken);
        let is_young = |s: &Stamp| schedule.max_age.is_none_or(|max| age(s) <= SignedDuration::from_secs(max.as_secs() as i64));
        let young: Vec<&Stamp> = own.iter().copied().filter(|s| is_young(s)).collect();
        let keep = schedule.keep;
        let dated = |unit: usize| young.iter().map(|s| (s.taken, s.name.as_str(), period(unit, s.taken, zone))).collect::<Vec<_>>();
        let counts = [keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly];
        let tiers: Vec<_> = counts.iter().enumerate().filter_map(|(unit, n)| n.map(|n| (n, dated(unit)))).collect();
        for s in own.iter().filter(|s| !s.pinned && !s.is_base) {
            let newer = |all: &[&Stamp]| all.iter().filter(|o| (o.taken, &o.name) > (s.taken, &s.name)).count();
            let place = young.iter().position(|y| y.name == s.name);
            let kept = place.is_some_and(|place| newer(&young) < keep.last.unwrap_or(0) as usize || tiers.iter().any(|(n, all)| keeps(*n, place, all)));
            if !kept && newer(&own) > 0 && newer(&existing) > 0 {
                removed.insert(s.name.to_string());
            }
        }
    }
    removed
}

/// Numbers that look random and are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn keep(&mut self) -> Keep {
        let mut count = |most| if self.one_in(2) { Some(self.below(most) as u32) } else { None };
        let keep = Keep { last: count(4), hourly: count(9), daily: count(8), weekly: count(5), monthly: count(5), yearly: count(3) };
        if keep.rules().next().is_none() { Keep { daily: Some(3), ..keep } } else { keep }
    }

    fn policy(&mut self, zone: &str) -> SnapshotPolicy {
        let names = ["hourly", "daily", "x"];
        let schedules = names[..1 + self.below(3) as usize].iter().map(|name| Schedule {
            name: (*name).to_owned(),
            cron: "@hourly".to_owned(),
            alias_pattern: None,
            keep: self.keep(),
            max_age: self.one_in(3).then(|| format!("{}h", 1 + self.below(2000)).parse::<Age>().unwrap()),
            only_if_changed: false,
            spread: None,
            condition: While::Any,
        });
        let schedules = schedules.collect();
        SnapshotPolicy { timezone: zone.to_owned(), schedules, on: Default::default() }
    }

    /// How long it is until the next snapshot.
    fn pause(&mut self) -> SignedDuration {
        let minutes = match self.below(8) {
            0 => 0,
            1 | 2 => self.below(60),
            3 | 4 => 60,
            5 => self.below(1500),
            6 => 1440,
            _ => self.below(60_000),
        };
        SignedDuration::from_mins(minutes as i64)
    }

    fn stamp(&mut self, i: u64, taken: Timestamp) -> Stamp {
        let trigger = if self.one_in(4) { Trigger::ALL[self.below(9) as usize] } else { Trigger::Schedule };
        Stamp {
            name: format!("s{}-{i}", self.below(10)).parse().unwrap(),
            taken,
            trigger,
            schedule: (trigger == Trigger::Schedule).then(|| ["hourly", "daily", "x", "hourly"][self.below(4) as usize].to_owned()),
            pinned: self.one_in(15),
            expires_at: self.one_in(10).then(|| taken + self.pause()),
            is_base: self.one_in(20),
            complete: !self.one_in(20),
        }
    }
}

const ZONES: [(&str, &[&str]); 5] = [
    ("Europe/Berlin", &["2026-10-24T20:00:00Z", "2026-03-28T20:00:00Z", "2026-12-30T20:00:00Z", "2020-12-31T20:00:00Z"]),
    ("Australia/Lord_Howe", &["2026-04-04T10:00:00Z", "2026-10-03T10:00:00Z", "2026-12-31T02:00:00Z"]),
    ("Pacific/Apia", &["2011-12-29T20:00:00Z", "2021-04-03T08:00:00Z", "2012-04-01T00:00:00Z", "1892-07-04T10:00:00Z"]),
    ("America/St_Johns", &["2006-10-28T20:00:00Z", "2010-11-07T00:00:00Z"]),
    ("America/Havana", &["2026-11-01T00:00:00Z", "2026-03-08T00:00:00Z"]),
];

/// What must stay whatever a policy says, by a list of its own.
fn is_protected(s: &Stamp, all: &[Stamp], now: Timestamp) -> bool {
    let newest = all.iter().filter(|o| o.complete && o.taken <= now).max_by_key(|o| (o.taken, o.name.clone()));
    s.trigger != Trigger::Schedule || s.pinned || s.is_base || s.taken > now || !s.complete || newest.is_some_and(|n| n.name == s.name)
}

#[track_caller]
fn compare(stamps: &[Stamp], policy: &SnapshotPolicy, now: Timestamp, seed: u64) -> BTreeSet<String> {
    let plan = Plan::new(policy).unwrap();
    let decisions = decide(stamps, &plan, now);
    assert_eq!(decisions.len(), stamps.len());
    let gone: BTreeSet<String> = decisions.iter().filter(|d| d.action == Action::Remove).map(|d| d.snapshot.to_string()).collect();
    assert_eq!(gone, removed(stamps, policy, plan.time_zone(), now), "seed {seed}: {policy:?} at {now}: {stamps:#?}");
    for (s, d) in stamps.iter().zip(&decisions) {
        assert!(d.action == Action::Keep || !is_protected(s, stamps, now), "seed {seed}: {s:?} is protected");
        assert!(d.action == Action::Remove || !d.reasons.is_empty() || d.protected_by.is_some(), "seed {seed}: nothing says why {s:?} is kept");
        assert!(d.action == Action::Keep || (d.reasons.is_empty() && d.protected_by.is_none()), "seed {seed}: {d:?}");
    }
    gone
}

#[test]
fn random_histories_are_decided_as_the_requirement_says() {
    let (mut removed, mut kept) = (0, 0);
    for seed in 1..=10_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (zone, starts) = ZONES[seed as usize % ZONES.len()];
        let mut clock: Timestamp = starts[random.below(starts.len() as u64) as usize].parse().unwrap();
        let mut stamps = Vec::new();
        for i in 0..random.below(45) {
            clock += random.pause();
            if random.one_in(25) {
                clock -= SignedDuration::from_hours(random.below(2000) as i64);
            }
            let at = if random.one_in(30) { "2042-01-01T00:00:00Z".parse().unwrap() } else { clock };
            stamps.push(random.stamp(i, at));
        }
        let policy = random.policy(zone);
        let now = if random.one_in(4) { clock - random.pause() } else { clock + random.pause() };
        let gone = compare(&stamps, &policy, now, seed);
        removed += gone.len();
        stamps.retain(|s| !gone.contains(s.name.as_str()));
        kept += stamps.len();
        assert!(compare(&stamps, &policy, now, seed).is_empty(), "seed {seed}: a second run at the same time removes more");
    }
    assert!(removed > 20_000 && kept > 20_000, "too one-sided to be a test: {removed} removed, {kept} kept");
}

/// Run after run, as a server does it, while its clock is set forward and back.
#[test]
fn histories_that_are_pruned_as_they_grow_are_decided_alike() {
    for seed in 1..=150u64 {
        let mut random = Random(seed.wrapping_mul(0xD134_2543_DE82_EF95));
        let (zone, starts) = ZONES[seed as usize % ZONES.len()];
        let policy = random.policy(zone);
        let mut clock: Timestamp = starts[0].parse().unwrap();
        let mut stamps: Vec<Stamp> = Vec::new();
        for i in 0..60 {
            clock += random.pause();
            match random.below(40) {
                0 => clock += SignedDuration::from_hours(24 * 365),
                1 => clock -= SignedDuration::from_hours(24 * 365),
                2 => clock -= SignedDuration::from_hours(2),
                _ => {}
            }
            stamps.push(random.stamp(i, clock));
            let gone = compare(&stamps, &policy, clock, seed);
            stamps.retain(|s| !gone.contains(s.name.as_str()));
        }
    }
}
