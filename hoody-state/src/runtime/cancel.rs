use crate::error::{IoContext, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Ends a command early, from another thread. Clones are of one.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<EventFd>);

impl Cancel {
    /// One that was not used yet.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new() -> Result<Self> {
        let fd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).io(|| "make an eventfd for a command")?;
        Ok(Cancel(Arc::new(fd)))
    }

    /// Ends the command, now or as soon as it begins.
    pub fn cancel(&self) {
        // EAGAIN: it is signalled already.
        let _ = self.0.write(1);
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits for its use; whether it was used in this time.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_seen_by_every_clone_and_stays() {
        let (a, b) = {
            let c = Cancel::new().unwrap();
            (c.clone(), c)
        };
        assert!(!b.is_cancelled() && !b.wait(Duration::from_millis(5)));
        a.cancel();
        a.cancel();
        assert!(b.is_cancelled() && b.wait(Duration::from_secs(60)) && a.is_cancelled());
    }
}
