#![allow(clippy::unwrap_used)]
use super::*;
use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The runs after `from`, in the zone's own time.
fn runs(cron: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (Cron::parse(cron).unwrap(), zone(zone_name));
    let all = std::iter::successors(cron.next_after(&zone, at(from)), |t| cron.next_after(&zone, *t));
    all.take(count).map(|t| t.to_zoned_datetime(zone.clone()).strftime("%d %H:%M%:z").to_string()).collect()
}

#[test]
fn an_hour_that_is_repeated_has_two_hourly_runs_and_one_daily_one() {
    let before = "2026-10-24T23:30:00Z";
    assert_eq!(runs("0 * * * *", "Europe/Berlin", before, 4), ["25 02:00+02:00", "25 02:00+01:00", "25 03:00+01:00", "25 04:00+01:00"]);
    assert_eq!(runs("@hourly", "Europe/Berlin", before, 2), ["25 02:00+02:00", "25 02:00+01:00"]);
    assert_eq!(runs("30 2 * * *", "Europe/Berlin", before, 2), ["25 02:30+02:00", "26 02:30+01:00"]);
    // Two hours on the clock, which are three by it.
    assert_eq!(runs("0 */2 * * *", "Europe/Berlin", before, 3), ["25 02:00+02:00", "25 04:00+01:00", "25 06:00+01:00"]);
    // From within the second of the two hours too.
    assert_eq!(runs("45 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["26 02:45+01:00"]);
    assert_eq!(runs("45 2 * * *", "Europe/Berlin", "2026-10-25T00:10:00Z", 1), ["25 02:45+02:00"]);
    // On Lord Howe the clocks go back by half an hour.
    assert_eq!(
        runs("*/30 * * * *", "Australia/Lord_Howe", "2026-04-04T14:10:00Z", 4),
        ["05 01:30+11:00", "05 01:30+10:30", "05 02:00+10:30", "05 02:30+10:30"]
    );
}

#[test]
fn a_time_that_is_skipped_is_made_up_for_once() {
    let before = "2026-03-28T23:30:00Z";
    assert_eq!(runs("30 2 * * *", "Europe/Berlin", before, 2), ["29 03:00+02:00", "30 02:30+02:00"]);
    assert_eq!(runs("0,20,40 2 * * *", "Europe/Berlin", before, 2), ["29 03:00+02:00", "30 02:00+02:00"]);
    assert_eq!(runs("0 * * * *", "Europe/Berlin", before, 3), ["29 01:00+01:00", "29 03:00+02:00", "29 04:00+02:00"]);
    // In Apia a whole day was skipped.
    assert_eq!(runs("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3), ["29 12:00-10:00", "31 00:00+14:00", "31 12:00+14:00"]);
    assert_eq!(runs("0 0 30 * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 2), ["31 00:00+14:00", "30 00:00+14:00"]);
}

#[test]
fn texts_that_name_no_time_are_refused() {
    for bad in [
        "",
        " ",
        "*",
        "* * * *",
        "* * * * * *",
        "0 0 * * * 2027",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "*/0 * * * *",
        "5-1 * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 31 2 *",
        ", * * * *",
        "0 0 , * *",
        "@reboot",
        "@every 5m",
        "a b c d e",
        "0 0 * * Sonntag",
        "٠ * * * *",
        "0 0 29 2 +8",
    ] {
        assert!(Cron::parse(bad).is_err(), "{bad:?}");
    }
    for good in ["0 0 29 2 *", "0 0 31 2,3 *", "0 0 L * *", "0 0 15W * *", "0 0 * * MON#1", "0 0 29 2 +MON", "@yearly", "0 0 * JAN-MAR SUN", "0 0 * * 7"] {
        assert!(Cron::parse(good).is_ok(), "{good:?}: {:?}", Cron::parse(good));
    }
}

#[test]
fn a_day_that_is_rare_is_found() {
    assert_eq!(runs("0 0 29 2 *", "UTC", "2026-11-29T00:00:00Z", 2), ["29 00:00+00:00", "29 00:00+00:00"]);
    let leap_mondays = Cron::parse("0 0 29 2 +MON").unwrap();
    assert_eq!(leap_mondays.next_after(&zone("Europe/Berlin"), at("2026-11-29T00:00:00Z")), Some(at("2044-02-28T23:00:00Z")));
    assert_eq!(leap_mondays.next_after(&zone("UTC"), at("9999-01-01T00:00:00Z")), None);
    assert_eq!(leap_mondays.next_after(&zone("UTC"), Timestamp::MAX), None);
    assert!(Cron::parse("* * * * *").unwrap().next_after(&zone("Europe/Berlin"), Timestamp::MIN).is_none_or(|t| t > Timestamp::MIN));
}

#[test]
fn runs_of_years_are_counted_without_visiting_each() {
    let every_minute = Cron::parse("* * * * *").unwrap();
    let (from, until) = (at("2026-01-01T00:00:00Z"), at("2036-01-01T00:00:30Z"));
    let runs = every_minute.between(&zone("Europe/Berlin"), from, until);
    assert_eq!(runs, Runs { count: 3652 * 1440, last: Some(at("2036-01-01T00:00:00Z")) });
    // Ten years are the most.
    let runs = every_minute.between(&zone("UTC"), at("1970-01-01T00:00:00Z"), until);
    assert_eq!(runs.count, 3660 * 1440);
    assert_eq!(every_minute.between(&zone("UTC"), until, from), Runs::default());
    let yearly = Cron::parse("@yearly").unwrap();
    assert_eq!(yearly.between(&zone("UTC"), Timestamp::MIN, Timestamp::MAX), Runs::default(), "the year 9999 is beyond what cron texts name");
}

/// By the definition: each minute is looked at. The cron text is `minutes hours * * *`.
fn by_minutes(minutes: &[i8], hours: &[i8], zone: &TimeZone, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let named = |t: DateTime| minutes.contains(&t.minute()) && hours.contains(&t.hour());
    let minute = SignedDuration::from_mins(1);
    let mut found = Vec::new();
    let mut t = Timestamp::from_second(after.as_second().div_euclid(60) * 60).unwrap();
    while t <= until {
        let (civil, earlier) = (zone.to_datetime(t), zone.to_datetime(t - minute));
        let second_time = hours.len() < 24 && zone.to_ambiguous_timestamp(civil).earlier().unwrap() < t;
        // Minutes of the clock that lie between this minute and the one before it.
        let mut skipped = std::iter::successors(earlier.checked_add(minute).ok(), |c| c.checked_add(minute).ok()).take_while(|c| *c < civil);
        if t > after && ((named(civil) && !second_time) || skipped.any(named)) {
            found.push(t);
        }
        t += minute;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn runs_are_those_of_the_definition(
        zone_name in prop::sample::select(vec!["Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "America/St_Johns", "America/Havana"]),
        change in prop::sample::select(vec!["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z", "2011-12-30T10:00:00Z",
            "2021-04-03T14:00:00Z", "2006-10-29T02:31:00Z", "2026-11-01T05:00:00Z", "2026-03-08T05:00:00Z"]),
        minutes in prop::collection::btree_set(0i8..60, 1..5),
        hours in prop::collection::btree_set(prop_oneof![0i8..4, 0i8..24], 1..6),
        every_hour in any::<bool>(),
        start in 0i64..2000,
        length in 1i64..2000,
    ) {
        let minutes: Vec<i8> = minutes.into_iter().collect();
        let hours: Vec<i8> = if every_hour { (0..24).collect() } else { hours.into_iter().collect() };
        let list = |numbers: &[i8]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let cron = Cron::parse(&format!("{} {} * * *", list(&minutes), list(&hours))).unwrap();
        let zone = zone(zone_name);
        let after = at(change) - SignedDuration::from_secs(start * 60 - 7);
        let until = after + SignedDuration::from_secs(length * 60 + 13);
        let expected = by_minutes(&minutes, &hours, &zone, after, until);
        let found: Vec<Timestamp> = std::iter::successors(cron.next_after(&zone, after), |t| cron.next_after(&zone, *t)).take_while(|t| *t <= until).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(cron.between(&zone, after, until), Runs { count: expected.len() as u64, last: expected.last().copied() });
    }

    #[test]
    fn no_text_is_too_strange(text in "[ -~]{0,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert!(cron.next_after(&TimeZone::UTC, Timestamp::UNIX_EPOCH).is_some());
        }
    }
}
