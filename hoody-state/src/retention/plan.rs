//! A policy that was checked.

use super::alias;
use super::cron::{Cron, Runs};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{Schedule, SnapshotPolicy, Tier, invalid_field};
use crate::name::ContainerName;
use crate::units::Age;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// A policy whose form, time zone and cron texts were checked, ready to be asked.
#[derive(Debug, Clone)]
pub struct Plan {
    zone: TimeZone,
    schedules: Vec<PlannedSchedule>,
}

/// A schedule of a [`Plan`].
#[derive(Debug, Clone)]
pub struct PlannedSchedule {
    schedule: Schedule,
    cron: Cron,
    zone: TimeZone,
}

impl Plan {
    /// Checks a policy. Cost: less than a millisecond for each schedule.
    ///
    /// # Errors
    /// `validation_error`; the message names the schedule, and the data have the path of the field, such as `schedules[0].cron`.
    pub fn new(policy: &SnapshotPolicy) -> Result<Plan> {
        policy.check_form()?;
        let zone = time_zone(&policy.timezone)?;
        let planned = |(index, schedule): (usize, &Schedule)| {
            let cron = Cron::parse(&schedule.cron).map_err(|problem| schedule.invalid(index, "cron", problem))?;
            alias::check(schedule.alias_pattern.as_deref()).map_err(|problem| schedule.invalid(index, "alias_pattern", problem))?;
            Ok(PlannedSchedule { schedule: schedule.clone(), cron, zone: zone.clone() })
        };
        let schedules = policy.schedules.iter().enumerate().map(planned).collect::<Result<_>>()?;
        Ok(Plan { zone, schedules })
    }

    /// Its time zone.
    #[must_use]
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Its schedules, in the policy's order.
    #[must_use]
    pub fn schedules(&self) -> &[PlannedSchedule] {
        &self.schedules
    }

    /// The schedule of this name.
    #[must_use]
    pub fn schedule(&self, name: &str) -> Option<&PlannedSchedule> {
        self.schedules.iter().find(|s| s.name() == name)
    }

    /// What is allowed but probably not meant, for people. `now` is where the distance between runs is looked at.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        self.schedules.iter().flat_map(|s| s.warnings(now)).collect()
    }
}

/// A time zone of the IANA database that is built in.
fn time_zone(name: &str) -> Result<TimeZone> {
    let shown: String = name.chars().take(60).collect();
    let unknown = || invalid_field("timezone", format!("no time zone is called {shown:?}: give a name of the IANA database, such as Europe/Berlin, or UTC"));
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?;
    if zone.is_unknown() { Err(unknown()) } else { Ok(zone) }
}

impl PlannedSchedule {
    /// What the policy says.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.schedule.name
    }

    /// The time zone of its policy.
    #[must_use]
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time by the cron text after `after`, without the spread; none if it lies beyond the year 5000.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.next_after(&self.zone, after)
    }

    /// The times by the cron text after `after` up to and including `until`: how many, and the last. Of a longer time the last ten years are counted.
    ///
    /// After a server was down, `last` is the run to make up for, and it stands for `count - 1` others.
    #[must_use]
    pub fn between(&self, after: Timestamp, until: Timestamp) -> Runs {
        self.cron.between(&self.zone, after, until)
    }

    /// How much later than the cron text says a run of this container starts: the same for each run, below `spread`, to the millisecond.
    #[must_use]
    pub fn offset(&self, container: &ContainerId) -> SignedDuration {
        let Some(spread) = self.schedule.spread else { return SignedDuration::ZERO };
        let mut hash = Sha256::new();
        hash.update(container.as_str());
        hash.update([0]);
        hash.update(&self.schedule.name);
        let digest = hash.finalize();
        let number = digest.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        SignedDuration::from_millis((number % (spread.as_secs() * 1000)).try_into().unwrap_or(0))
    }

    /// The alias of the snapshot of a run, by the pattern: at most 100 characters. Two runs may have the same one, such as those of a repeated hour.
    #[must_use]
    pub fn alias(&self, container: &ContainerName, scheduled_for: Timestamp) -> String {
        alias::render(self.schedule.alias_pattern.as_deref(), self.name(), container.as_str(), &scheduled_for.to_zoned_datetime(self.zone.clone()))
    }

    fn warnings(&self, now: Timestamp) -> Vec<String> {
        let name = self.name();
        let mut warnings = Vec::new();
        let next = self.next_after(now);
        let distance = next.zip(next.and_then(|t| self.next_after(t))).map(|(first, second)| second.duration_since(first));
        if let (Some(distance), Some(spread)) = (distance, self.schedule.spread)
            && SignedDuration::try_from(spread.as_duration()).is_ok_and(|spread| spread >= distance)
        {
            warnings.push(format!("schedule {name:?}: spread ({spread}) is not shorter than the time between two runs: some runs may be left out"));
        }
        if let Some(max_age) = self.schedule.max_age
            && let Some((tier, n)) =
                self.schedule.keep.rules().find(|(tier, n)| shortest(*tier).is_some_and(|seconds| u64::from(*n) * seconds > max_age.as_secs()))
        {
            warnings.push(format!("schedule {name:?}: max_age ({max_age}) removes what keep.{} = {n} would keep", tier.as_str()));
        }
        warnings
    }
}

/// How long the shortest period of a rule is, in seconds.
fn shortest(tier: Tier) -> Option<u64> {
    let days = |n| Age::days(n).as_secs();
    match tier {
        Tier::Last => None,
        Tier::Hourly => Some(3600),
        Tier::Daily => Some(days(1)),
        Tier::Weekly => Some(days(7)),
        Tier::Monthly => Some(days(28)),
        Tier::Yearly => Some(days(365)),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
