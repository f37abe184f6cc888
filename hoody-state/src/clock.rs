//! Time as a trait, so that expiry and schedules are tested without waiting.

use jiff::{SignedDuration, Timestamp};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The present, to the millisecond.
    fn now(&self) -> Timestamp;

    /// What the boot clock shows: it counts steadily from the boot of the machine on, while the machine sleeps too, and cannot be set.
    fn since_boot(&self) -> SignedDuration {
        let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        // Every kernel that this runs on has this clock.
        t.map_or(SignedDuration::ZERO, |t| SignedDuration::new(t.tv_sec(), i32::try_from(t.tv_nsec()).unwrap_or(0)))
    }
}

/// The host's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        truncate(Timestamp::now())
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, SignedDuration)>);

impl ManualClock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        ManualClock(Mutex::new((truncate(at), SignedDuration::ZERO)))
    }

    fn state(&self) -> MutexGuard<'_, (Timestamp, SignedDuration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time passes.
    pub fn advance(&self, by: std::time::Duration) {
        let mut t = self.state();
        if let Ok(later) = t.0.checked_add(by) {
            t.0 = truncate(later);
            t.1 = t.1.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX));
        }
    }

    /// The wall clock is set; the boot clock stays as it is.
    pub fn set(&self, at: Timestamp) {
        self.state().0 = truncate(at);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().0
    }

    fn since_boot(&self) -> SignedDuration {
        self.state().1
    }
}

fn truncate(t: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(t.as_millisecond()).unwrap_or(t)
}

/// The wire's form of a time: RFC 3339, UTC, milliseconds, `Z`. For `#[serde(with = "crate::clock::rfc3339")]`.
pub mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// The text.
    #[must_use]
    pub fn format(t: Timestamp) -> String {
        format!("{t:.3}")
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format(*t))
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is no RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }

    /// The same for a time that may be missing.
    pub mod option {
        use super::{Deserialize, Deserializer, Serializer, Timestamp, format};

        /// Writes it, or null.
        ///
        /// # Errors
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
            match t {
                Some(t) => s.serialize_str(&format(*t)),
                None => s.serialize_none(),
            }
        }

        /// Reads it, or null.
        ///
        /// # Errors
        /// When it is neither null nor an RFC 3339 time.
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
            Option::<String>::deserialize(d)?.map(|s| s.parse().map_err(serde::de::Error::custom)).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #[test]
    fn times_are_written_as_the_wire_has_them() {
        let t = "2026-11-23T10:00:00Z".parse().unwrap();
        assert_eq!(super::rfc3339::format(t), "2026-11-23T10:00:00.000Z");
    }
}
