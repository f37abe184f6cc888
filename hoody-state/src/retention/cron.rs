//! Cron texts in a time zone.
//!
//! Croner parses the text and knows which civil times it names. Which instants these are is decided here, because civil times do not always exist once:
//!
//! - A civil time that the clocks skip is made up for at the first instant after the gap, once for all times in the gap.
//! - A civil time that the clocks repeat is a run at its first instant alone, unless the cron names every hour of the day: an hourly schedule runs in the
//!   repeated hour too.
//!
//! So a daily run is never lost and never doubled, and an hourly one leaves no gap of two hours.

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Ordering;

/// How many days back missed runs are counted.
pub const COUNTED_DAYS: i64 = 3660;

/// The times that a cron text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    pattern: croner::Cron,
    runs_a_day: u64,
    every_hour: bool,
}

/// How many runs there are in a span of time, and the last of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    /// How many; those of the last ten years only.
    pub count: u64,
    /// The last one.
    pub last: Option<Timestamp>,
}

impl Cron {
    /// Reads a text of five fields, or one of the names that begin with `@`.
    ///
    /// # Errors
    /// What is wrong with it, for people. A text that names no time at all (the 30th of February) is wrong too.
    pub fn parse(text: &str) -> Result<Cron, String> {
        if !text.is_ascii() {
            return Err("a cron text has ASCII characters only".to_owned());
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|e| {
            let form = "give five fields (minute, hour, day of the month, month, day of the week), or @hourly, @daily, @weekly, @monthly or @yearly";
            format!("{text:?} is not a cron text ({}): {form}", e.to_string().trim_end_matches('.'))
        })?;
        let (minutes, hours) = (pattern.pattern.minutes.values().len() as u64, pattern.pattern.hours.values().len() as u64);
        let cron = Cron { pattern, runs_a_day: minutes * hours, every_hour: hours == 24 };
        if cron.runs_a_day == 0 || !cron.names_a_day() {
            return Err(format!("{text:?} never runs: no calendar has such a time"));
        }
        Ok(cron)
    }

    /// Whether any day is a day of this cron: dates and days of the week repeat after 28 years.
    fn names_a_day(&self) -> bool {
        let pattern = &self.pattern.pattern;
        let first = jiff::civil::date(2000, 1, 1);
        (0..28 * 366).any(|n| {
            first.checked_add(SignedDuration::from_hours(24 * n)).is_ok_and(|day| {
                let weekday = weekday(day.weekday());
                let of_month = pattern.day_match(i32::from(day.year()), day.month().unsigned_abs().into(), day.day().unsigned_abs().into(), weekday);
                pattern.month_match(day.month().unsigned_abs().into()).unwrap_or(false) && of_month.unwrap_or(false)
            })
        })
    }

    /// The first run after `after`; none if it lies beyond the year 5000. Cost: grows with the number of days between.
    #[must_use]
    pub fn next_after(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let mut span = Span::containing(zone, after, !self.every_hour)?;
        span.first = span.first.max(after_second(span.civil(after)?)?);
        loop {
            if let Some(run) = self.civil_from(span.first).and_then(|civil| span.instant(civil)).filter(|run| span.end.is_none_or(|end| *run < end)) {
                return Some(run);
            }
            let next = span.next(zone, !self.every_hour)?;
            if self.is_made_up_at(&span, &next) {
                return Some(next.start);
            }
            // What is not found before this year is not looked for in each later span.
            if next.first.year() >= 5000 {
                return None;
            }
            span = next;
        }
    }

    /// The runs after `after` up to and including `until`. Of a longer time the last ten years are counted. Cost: grows with the number of days.
    #[must_use]
    pub fn between(&self, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Runs {
        let earliest = until.checked_sub(SignedDuration::from_hours(24 * COUNTED_DAYS)).unwrap_or(Timestamp::MIN);
        self.count(zone, after.max(earliest), until).unwrap_or_default()
    }

    fn count(&self, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Option<Runs> {
        let mut runs = Runs::default();
        if after >= until {
            return Some(runs);
        }
        let mut span = Span::containing(zone, after, !self.every_hour)?;
        span.first = span.first.max(after_second(span.civil(after)?)?);
        loop {
            let ends_here = span.end.is_none_or(|end| end > until);
            let end = if ends_here { after_second(span.civil(until)?)? } else { span.civil(span.end?)? };
            runs.count += self.count_civil(span.first, end);
            if let Some(last) = self.civil_before(end).filter(|civil| *civil >= span.first) {
                runs.last = span.instant(last);
            }
            if ends_here {
                return Some(runs);
            }
            let next = span.next(zone, !self.every_hour)?;
            if self.is_made_up_at(&span, &next) && self.civil_from(next.first) != Some(next.first) {
                runs.count += 1;
                runs.last = Some(next.start);
            }
            span = next;
        }
    }

    /// Whether the clocks skip a time of this cron between two spans.
    fn is_made_up_at(&self, before: &Span, next: &Span) -> bool {
        let Some(gap) = before.civil(next.start) else { return false };
        next.civil(next.start).is_some_and(|end| self.civil_from(gap).is_some_and(|civil| civil < end))
    }

    /// How many of its civil times are in `from..end`.
    fn count_civil(&self, from: DateTime, end: DateTime) -> u64 {
        let mut count = 0;
        let mut next = self.civil_from(from).filter(|t| *t < end);
        while let Some(time) = next {
            // A day that is in the range as a whole has always as many.
            let day_end = time.date().tomorrow().map(|day| day.to_datetime(Time::midnight())).unwrap_or(DateTime::MAX);
            let day_start = time.date().to_datetime(Time::midnight());
            if day_start >= from && day_end <= end {
                count += self.runs_a_day;
                next = self.civil_from(day_end);
            } else {
                count += 1;
                next = after_second(time).and_then(|t| self.civil_from(t));
            }
            next = next.filter(|t| *t < end);
        }
        count
    }

    /// Its first civil time from `from` on.
    fn civil_from(&self, from: DateTime) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&Civil(from), true).ok().map(|found| found.0)
    }

    /// Its last civil time before `end`.
    fn civil_before(&self, end: DateTime) -> Option<DateTime> {
        self.pattern.find_previous_occurrence(&Civil(end), false).ok().map(|found| found.0)
    }
}

/// The first whole second after a time.
fn after_second(time: DateTime) -> Option<DateTime> {
    let whole = time.with().subsec_nanosecond(0).build().ok()?;
    whole.checked_add(SignedDuration::from_secs(1)).ok()
}

/// Instants between two changes of a time zone's offset.
struct Span {
    offset: jiff::tz::Offset,
    start: Timestamp,
    end: Option<Timestamp>,
    /// The first civil time that is looked at.
    first: DateTime,
}

impl Span {
    /// The one that contains `at`. With `once`, civil times that the span before had too are left out.
    fn containing(zone: &TimeZone, at: Timestamp, once: bool) -> Option<Span> {
        let begin = zone.preceding(at.checked_add(SignedDuration::from_nanos(1)).ok()?).next();
        let Some(begin) = begin else {
            let offset = zone.to_offset(at);
            let end = zone.following(at).next().map(|t| t.timestamp());
            return Some(Span { offset, start: Timestamp::MIN, end, first: DateTime::MIN });
        };
        let before = zone.preceding(begin.timestamp()).next().map(|t| t.offset());
        let before = before.unwrap_or_else(|| begin.timestamp().checked_sub(SignedDuration::from_secs(1)).map_or(begin.offset(), |t| zone.to_offset(t)));
        Span::beginning(zone, begin.timestamp(), before, once)
    }

    /// The one after this.
    fn next(&self, zone: &TimeZone, once: bool) -> Option<Span> {
        Span::beginning(zone, self.end?, self.offset, once)
    }

    fn beginning(zone: &TimeZone, start: Timestamp, before: jiff::tz::Offset, once: bool) -> Option<Span> {
        let offset = zone.to_offset(start);
        let own = offset.to_datetime(start);
        let first = if once { own.max(before.to_datetime(start)) } else { own };
        Some(Span { offset, start, end: zone.following(start).next().map(|t| t.timestamp()), first })
    }

    fn civil(&self, at: Timestamp) -> Option<DateTime> {
        Some(self.offset.to_datetime(at))
    }

    fn instant(&self, civil: DateTime) -> Option<Timestamp> {
        self.offset.to_timestamp(civil).ok()
    }
}

/// A civil time for croner, in a calendar without changes of the clock.
#[derive(Clone, Copy)]
struct Civil(DateTime);

fn weekday(day: jiff::civil::Weekday) -> Weekday {
    Weekday::from_days_from_sunday(day.to_sunday_zero_offset().unsigned_abs().into())
}

impl CronDateTime for Civil {
    fn to_civil(&self) -> CivilDateTime {
        let t = self.0;
        let part = |n: i8| u32::from(n.unsigned_abs());
        let date = CivilDate::from_parts_unchecked(i32::from(t.year()), part(t.month()), part(t.day()));
        CivilDateTime::new(date, CivilTime::from_parts_unchecked(part(t.hour()), part(t.minute()), part(t.second())))
    }

    fn civil_weekday(&self) -> Weekday {
        weekday(self.0.weekday())
    }

    fn resolve_civil(&self, t: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(t.year()).map_err(|_| CronError::InvalidDate)?;
        let part = |n: u32| i8::try_from(n).map_err(|_| CronError::InvalidDate);
        let time = DateTime::new(year, part(t.month())?, part(t.day())?, part(t.hour())?, part(t.minute())?, part(t.second())?, 0);
        time.map(|t| Resolution::Single(Civil(t))).map_err(|_| CronError::InvalidDate)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Civil)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
