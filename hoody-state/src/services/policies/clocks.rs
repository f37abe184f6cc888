//! Whether the wall clock can be believed.
//!
//! The catalog keeps how far the wall clock was from the boot clock when it was last believed. A wall clock that moves beside the boot clock is believed again
//! after it has stood at its new place for a day. Boot clocks of two boots cannot be compared: after a reboot the wall clock is believed, unless it shows a time
//! before one that was seen already.

use crate::catalog::Durability;
use crate::catalog::records::Records;
use crate::error::Result;
use crate::retention::ClockReading;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const KEY: &str = "clocks";
/// A move that is no move: the clock is being adjusted.
const ADJUSTED: SignedDuration = SignedDuration::from_secs(60);
/// After how long at its new place a clock is believed.
const BELIEVED_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// How often the present time is written down at least, while somebody asks.
const WRITTEN: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    boot: String,
    /// Wall clock less boot clock, when the wall clock was believed.
    offset_ms: i64,
    /// Another offset, and what the boot clock showed when it was first seen.
    #[serde(default)]
    moved: Option<(i64, i64)>,
    /// A time that the wall clock has shown.
    seen_ms: i64,
}

/// How far the wall clock has moved beside the boot clock since it was last believed; zero: it is believed.
pub(super) fn moved(records: &Records, boot: &str) -> Result<SignedDuration> {
    let reading = ClockReading { wall: records.clock.now(), boot: records.clock.since_boot() };
    let known: Option<Known> = records.catalog.meta(KEY)?.and_then(|text| serde_json::from_str(&text).ok());
    let (next, moved) = look(known.as_ref(), boot, reading);
    let is_new = known
        .as_ref()
        .is_none_or(|k| (&k.boot, k.offset_ms, k.moved) != (&next.boot, next.offset_ms, next.moved) || (next.seen_ms - k.seen_ms).abs() >= millis(WRITTEN));
    if is_new {
        let text = crate::catalog::to_json(&next)?;
        records.write(Durability::Process, |tx| tx.set_meta(KEY, &text))?;
    }
    Ok(moved)
}

fn millis(d: SignedDuration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

fn look(known: Option<&Known>, boot: &str, reading: ClockReading) -> (Known, SignedDuration) {
    let (wall, since_boot) = (reading.wall.as_millisecond(), millis(reading.boot));
    let now = wall.saturating_sub(since_boot);
    let believed = Known { boot: boot.to_owned(), offset_ms: now, moved: None, seen_ms: wall };
    let Some(known) = known else { return (believed, SignedDuration::ZERO) };
    let (offset, moved) = match known.boot == boot {
        true => (known.offset_ms, known.moved),
        false if wall >= known.seen_ms.saturating_sub(millis(ADJUSTED)) => return (believed, SignedDuration::ZERO),
        // The time before which it cannot be.
        false => (known.seen_ms.saturating_sub(since_boot), None),
    };
    let near = |a: i64, b: i64| a.abs_diff(b) <= ADJUSTED.unsigned_abs().as_millis() as u64;
    if near(now, offset) {
        return (believed, SignedDuration::ZERO);
    }
    let since = match moved {
        Some((at, since)) if near(now, at) => since,
        _ => since_boot,
    };
    if since_boot.saturating_sub(since) >= millis(BELIEVED_AFTER) {
        return (believed, SignedDuration::ZERO);
    }
    let earlier = ClockReading { wall: Timestamp::from_millisecond(offset).unwrap_or(reading.wall), boot: SignedDuration::ZERO };
    (Known { boot: boot.to_owned(), offset_ms: offset, moved: Some((now, since)), seen_ms: known.seen_ms.max(wall) }, reading.moved_since(&earlier))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reading(wall: &str, boot_hours: i64) -> ClockReading {
        ClockReading { wall: wall.parse().unwrap(), boot: SignedDuration::from_hours(boot_hours) }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_a_day_at_its_new_place() {
        let (known, moved) = look(None, "a", reading("2026-11-29T10:00:00Z", 1));
        assert!(moved.is_zero());
        let (known, moved) = look(Some(&known), "a", reading("2026-12-13T10:00:00Z", 1 + 14 * 24));
        assert!(moved.is_zero(), "two weeks have passed");
        let (known, moved) = look(Some(&known), "a", reading("2042-12-13T11:00:00Z", 2 + 14 * 24));
        assert_eq!(moved.as_hours() / 24, 16 * 365 + 4);
        let (again, moved) = look(Some(&known), "a", reading("2042-12-14T10:00:00Z", 1 + 15 * 24));
        assert!(moved.as_hours() > 24, "not a day yet");
        assert!(look(Some(&again), "a", reading("2042-12-14T11:00:00Z", 2 + 15 * 24)).1.is_zero(), "a day");
        assert!(look(Some(&again), "a", reading("2026-12-14T10:00:00Z", 1 + 15 * 24)).1.is_zero(), "it was set right");
        let (_, moved) = look(Some(&again), "a", reading("2026-12-01T10:00:00Z", 1 + 15 * 24));
        assert_eq!(moved.as_hours(), -13 * 24);
    }

    #[test]
    fn after_a_reboot_only_a_time_that_has_been_before_is_doubted() {
        let (known, _) = look(None, "a", reading("2026-11-29T10:00:00Z", 100));
        assert!(look(Some(&known), "b", reading("2026-12-24T10:00:00Z", 0)).1.is_zero(), "the machine was off");
        let (doubted, moved) = look(Some(&known), "b", reading("1970-01-01T00:00:00Z", 0));
        assert!(moved.as_hours() < -24 * 365 * 50);
        assert!(look(Some(&doubted), "b", reading("2026-11-29T10:00:30Z", 0)).1.is_zero(), "it was set right");
    }
}
