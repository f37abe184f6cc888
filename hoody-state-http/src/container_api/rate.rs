//! How often a container may ask: a bucket of tokens that fills with time. It costs nothing while nobody asks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a request costs that only reads.
pub const READ: f64 = 1.0;
/// What a request costs that changes something.
pub const CHANGE: f64 = 10.0;

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    capacity: f64,
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket that holds `capacity` tokens, of which `per_second` come back in a second.
    #[must_use]
    pub fn new(capacity: u32, per_second: u32, now: Instant) -> Self {
        let capacity = f64::from(capacity);
        Bucket { capacity, per_second: f64::from(per_second.max(1)), state: Mutex::new(State { tokens: capacity, at: now }) }
    }

    /// Takes out `cost` tokens.
    ///
    /// # Errors
    /// How long it takes until there are as many. Nothing is taken out then.
    pub fn take(&self, cost: f64, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = (state.tokens + passed * self.per_second).min(self.capacity);
        state.at = now.max(state.at);
        if state.tokens < cost {
            return Err(Duration::from_secs_f64((cost - state.tokens) / self.per_second));
        }
        state.tokens -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_as_much_as_comes_back() {
        let start = Instant::now();
        let bucket = Bucket::new(60, 5, start);
        for _ in 0..6 {
            bucket.take(CHANGE, start).unwrap();
        }
        assert_eq!(bucket.take(CHANGE, start).unwrap_err(), Duration::from_secs(2));
        assert!(bucket.take(CHANGE, start + Duration::from_millis(1900)).is_err());
        bucket.take(CHANGE, start + Duration::from_secs(2)).unwrap();
        // Never more than a full bucket, whatever time has passed, and none for a clock that goes back.
        let late = start + Duration::from_secs(100_000);
        assert_eq!((0..100).filter(|_| bucket.take(READ, late).is_ok()).count(), 60);
        assert!(bucket.take(READ, start).is_err());
    }
}
