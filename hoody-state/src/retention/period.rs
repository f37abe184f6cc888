//! Calendar periods in a time zone.

use crate::model::Tier;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The periods that an instant lies in, as numbers that are equal within a period and differ between periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Periods {
    hour: i64,
    day: i64,
    week: i64,
    month: i64,
    year: i64,
}

impl Periods {
    pub(super) fn of(zone: &TimeZone, at: Timestamp) -> Periods {
        let offset = zone.to_offset(at);
        let local = at.as_millisecond().div_euclid(1000) + i64::from(offset.seconds());
        let day = local.div_euclid(86_400);
        let date = offset.to_datetime(at).date();
        Periods {
            // The offset distinguishes the two hours that are one on the clock. No offset has 2^18 seconds.
            hour: (local.div_euclid(3600) << 19) + i64::from(offset.seconds()) + (1 << 18),
            day,
            // The 1st of January 1970 was a Thursday: weeks begin three days before.
            week: (day + 3).div_euclid(7),
            month: i64::from(date.year()) * 12 + i64::from(date.month()),
            year: i64::from(date.year()),
        }
    }

    /// The period of a rule. `last` has none: each snapshot counts by itself.
    pub(super) fn of_tier(&self, tier: Tier) -> Option<i64> {
        match tier {
            Tier::Last => None,
            Tier::Hourly => Some(self.hour),
            Tier::Daily => Some(self.day),
            Tier::Weekly => Some(self.week),
            Tier::Monthly => Some(self.month),
            Tier::Yearly => Some(self.year),
        }
    }
}

/// What people call the period of a rule: `2026-10-25T02+02:00`, `2026-10-25`, `2026-W43`, `2026-10`, `2026`; for `last` the time itself.
pub(super) fn label(tier: Tier, zone: &TimeZone, at: Timestamp) -> String {
    let local = at.to_zoned_datetime(zone.clone());
    match tier {
        Tier::Last => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Tier::Hourly => local.strftime("%Y-%m-%dT%H%:z").to_string(),
        Tier::Daily => local.strftime("%Y-%m-%d").to_string(),
        Tier::Weekly => local.strftime("%G-W%V").to_string(),
        Tier::Monthly => local.strftime("%Y-%m").to_string(),
        Tier::Yearly => local.strftime("%Y").to_string(),
    }
}
