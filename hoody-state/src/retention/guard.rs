//! A guard against a clock that is wrong.

use jiff::{SignedDuration, Timestamp};

/// How far the wall clock may move before the guard looks at it.
const TOLERATED: SignedDuration = SignedDuration::from_hours(24);

/// What both clocks of a host showed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock.
    pub wall: Timestamp,
    /// The boot clock, which counts steadily from the boot on, while the host sleeps too.
    pub boot: SignedDuration,
}

impl ClockReading {
    /// How much further the wall clock moved since `earlier` than the boot clock; negative: it was set back. Both readings must be of one boot.
    #[must_use]
    pub fn moved_since(&self, earlier: &ClockReading) -> SignedDuration {
        self.wall.duration_since(earlier.wall).saturating_sub(self.boot.saturating_sub(earlier.boot))
    }
}

/// Whether a run must remove nothing: it would remove more than half of the snapshots that it decides about, and the wall clock moved by more than a day
/// relative to the boot clock.
#[must_use]
pub fn holds_back(removed: usize, decided: usize, clock_moved: SignedDuration) -> bool {
    removed > decided / 2 && clock_moved.unsigned_abs() > TOLERATED.unsigned_abs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_many_removals_under_a_clock_that_moved_are_held_back() {
        let hours = SignedDuration::from_hours;
        for (removed, decided, moved, held) in [
            (6, 10, hours(25), true),
            (6, 10, hours(-25), true),
            (5, 10, hours(25), false),
            (10, 10, hours(24), false),
            (10, 10, hours(0), false),
            (0, 0, hours(1000), false),
            (1, 1, SignedDuration::MIN, true),
            (usize::MAX, usize::MAX, SignedDuration::MAX, true),
        ] {
            assert_eq!(holds_back(removed, decided, moved), held, "{removed} of {decided}, {moved}");
        }
    }

    #[test]
    fn the_wall_clock_is_measured_beside_the_boot_clock() {
        let reading = |wall: &str, boot: i64| ClockReading { wall: wall.parse().unwrap(), boot: SignedDuration::from_secs(boot) };
        let start = reading("2026-11-29T10:00:00Z", 100);
        assert_eq!(reading("2026-11-29T11:00:00Z", 3700).moved_since(&start), SignedDuration::ZERO);
        assert_eq!(reading("2042-11-29T11:00:00Z", 3700).moved_since(&start).as_hours(), 140_256);
        assert_eq!(reading("2026-11-28T10:00:00Z", 100).moved_since(&start).as_hours(), -24);
    }
}
