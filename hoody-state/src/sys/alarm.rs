//! Waiting for a time of day.
//!
//! **Guarantee**: [`Alarm::wait`] returns when the host's clock has reached the deadline, however the clock came there: by passing time, by a suspend, or
//! because somebody set it. It also returns, early, whenever the clock was set, so that the caller can look at the time again, and when [`Alarm::ring`] was
//! called. A waiting thread uses no processor time.
//!
//! Timeouts of condition variables and `poll` count `CLOCK_MONOTONIC`, which stands still during a suspend and does not follow a clock that is set: what
//! should end at three o'clock would end later by as much. (`timerfd_create(2)`: `TFD_TIMER_ABSTIME`, `TFD_TIMER_CANCEL_ON_SET`.)

use crate::error::{IoContext, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

/// Longer waits are taken in several: the kernel's times end in 2262.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the [module](self).
pub(crate) struct Alarm {
    deadline: TimerFd,
    /// Set to a far time; only its cancellation by a change of the clock counts. Apart from `deadline`, because setting a timer forgets a change before it.
    changes: TimerFd,
    bell: EventFd,
}

/// Why a wait ended; several may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    /// The deadline is there.
    pub due: bool,
    /// Somebody set the clock, or the machine was suspended.
    pub clock_changed: bool,
    /// [`Alarm::ring`] was called.
    pub rung: bool,
}

impl Alarm {
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> Result<Self> {
        let timer = || TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).io(|| "make a timer");
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).io(|| "make an event descriptor")?;
        let alarm = Alarm { deadline: timer()?, changes: timer()?, bell };
        alarm.watch_the_clock()?;
        Ok(alarm)
    }

    /// Ends the wait under way, or the next one.
    pub(crate) fn ring(&self) {
        // It fails only when it was rung 2^64 times.
        let _ = self.bell.write(1);
    }

    /// Waits until the host's clock shows `until`; without one, for a ring or a change of the clock.
    ///
    /// # Errors
    /// Those of `poll` and of timers: none is expected.
    pub(crate) fn wait(&self, until: Option<SystemTime>) -> Result<Woken> {
        match until {
            Some(until) => arm(&self.deadline, until)?,
            None => self.deadline.unset().io(|| "stop a timer")?,
        }
        let mut fds = [self.deadline.as_fd(), self.changes.as_fd(), self.bell.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Woken::default()),
            Err(e) => return Err(e).io(|| "wait for a timer"),
        }
        let ready = |n: usize| fds[n].any().unwrap_or(true);
        let woken = Woken { due: ready(0), clock_changed: ready(1), rung: ready(2) };
        if woken.clock_changed {
            // Before the caller looks at the time: a later change is not missed.
            self.watch_the_clock()?;
        }
        if woken.rung {
            let _ = self.bell.read();
        }
        Ok(woken)
    }

    fn watch_the_clock(&self) -> Result<()> {
        arm(&self.changes, SystemTime::now() + LONGEST)
    }
}

/// Sets a timer to a time of day; one that is set counts as changed when the clock is.
fn arm(timer: &TimerFd, until: SystemTime) -> Result<()> {
    let at = until.min(SystemTime::now() + LONGEST).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // A timer that is set to zero would be off.
    let at = at.max(Duration::from_nanos(1));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(at)), flags).io(|| "set a timer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn a_deadline_ends_the_wait_and_so_does_a_ring() {
        let alarm = Alarm::new().unwrap();
        let began = Instant::now();
        assert!(alarm.wait(Some(SystemTime::now() + Duration::from_millis(30))).unwrap().due);
        assert!(began.elapsed() >= Duration::from_millis(29));
        assert!(alarm.wait(Some(SystemTime::UNIX_EPOCH)).unwrap().due, "a time in the past");
        alarm.ring();
        alarm.ring();
        assert!(alarm.wait(None).unwrap().rung, "a ring before the wait");
        let alarm = Arc::new(alarm);
        let other = alarm.clone();
        let thread = std::thread::spawn(move || other.wait(Some(SystemTime::now() + Duration::from_secs(3600))).unwrap());
        alarm.ring();
        assert_eq!(thread.join().unwrap(), Woken { rung: true, ..Woken::default() });
    }

    #[test]
    fn the_deadline_is_a_time_of_day_and_changes_of_the_clock_are_watched() {
        // What the kernel says of the timers: their clock, that they are absolute (bit 0), that they watch for changes (bit 1).
        let alarm = Alarm::new().unwrap();
        arm(&alarm.deadline, SystemTime::now() + Duration::from_secs(60)).unwrap();
        for timer in [&alarm.deadline, &alarm.changes] {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&timer.as_fd());
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
            let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
            assert_eq!((field("clockid:").as_deref(), field("settime flags:").as_deref()), (Some("0"), Some("03")), "{info}");
        }
    }
}
