//! Limits of descriptors: for the daemon, and for each volume.
//!
//! All volumes of a daemon share its limit of open files. So each volume has a budget for open files. A file that is only known by name takes a descriptor
//! too; such names are forgotten when there are many (`Core::forget_unused`), but programs can prevent that. So the last quarter of all descriptors is only
//! for volumes that use less than their equal share of it, and some are reserved for the control socket and the daemon itself.

use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::volume::Volume;

/// How many descriptors this process uses for files of volumes. The limit belongs to the process too.
static USED: AtomicUsize = AtomicUsize::new(0);

/// How many are reserved for the daemon itself, at least; of a large limit, one in sixteen.
const KEPT: usize = 64;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For a file or directory that the kernel knows by name.
    Known,
    /// For an open file or directory.
    Open,
}

/// How many descriptors a volume uses.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    known: AtomicUsize,
    open: AtomicUsize,
}

impl Usage {
    fn of(&self, purpose: Purpose) -> &AtomicUsize {
        match purpose {
            Purpose::Known => &self.known,
            Purpose::Open => &self.open,
        }
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub fn all(&self) -> usize {
        self.open() + self.known.load(Ordering::Relaxed)
    }
}

/// A descriptor in use, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    volume: Arc<Volume>,
    purpose: Purpose,
}

impl Taken {
    pub fn new(volume: &Arc<Volume>, purpose: Purpose) -> Self {
        USED.fetch_add(1, Ordering::Relaxed);
        volume.usage.of(purpose).fetch_add(1, Ordering::Relaxed);
        Taken { volume: volume.clone(), purpose }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        USED.fetch_sub(1, Ordering::Relaxed);
        self.volume.usage.of(self.purpose).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limits of a mount. See the [module](self).
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// For files of all volumes.
    limit: usize,
    /// For the open files of one volume.
    per_volume: usize,
    refused: AtomicU64,
}

impl Descriptors {
    /// `process` is the limit of open files of the process. A single directory may use all of them; otherwise each volume may use an eighth, unless `volume` says
    /// otherwise.
    pub fn new(process: usize, per_volume: Option<usize>, single: bool) -> Self {
        let limit = process.saturating_sub(KEPT.max(process / 16)).max(1);
        let per_volume = per_volume.unwrap_or(if single { limit } else { (limit / 8).max(256) });
        Descriptors { limit, per_volume: per_volume.min(limit), refused: AtomicU64::new(0) }
    }

    /// Whether a volume, one of `volumes`, may use one more descriptor.
    ///
    /// # Errors
    /// ENFILE, for this volume only.
    pub fn admit(&self, volume: &Volume, volumes: usize, purpose: Purpose) -> Result<(), Errno> {
        if self.is_within(USED.load(Ordering::Relaxed), volume.usage.all(), volume.usage.open(), volumes, purpose) {
            return Ok(());
        }
        if self.refused.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::warn!(
                "the volume {} uses {} descriptors, {} of them for open files (its budget is {}; the daemon has {}): it cannot open more",
                volume.name.display(),
                volume.usage.all(),
                volume.usage.open(),
                self.per_volume,
                self.limit
            );
        }
        Err(Errno::NFILE)
    }

    fn is_within(&self, used: usize, mine: usize, open: usize, volumes: usize, purpose: Purpose) -> bool {
        let share = (self.limit / 4 / volumes.max(1)).max(1);
        let is_plenty_left = used < self.limit - self.limit / 4 || (volumes <= 1 && used < self.limit);
        (purpose == Purpose::Known || open < self.per_volume) && (is_plenty_left || (used < self.limit && mine < share))
    }

    /// Counters for the status, by name.
    pub fn counters(&self) -> [(&'static str, u64); 4] {
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        [
            ("descriptors", number(USED.load(Ordering::Relaxed))),
            ("descriptors_limit", number(self.limit)),
            ("volume_descriptors_limit", number(self.per_volume)),
            ("refused_descriptors", self.refused.load(Ordering::Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{Descriptors, Purpose};

    #[test]
    fn a_volume_has_a_budget_and_the_last_quarter_is_for_those_that_use_little() {
        let d = Descriptors::new(1088, None, false);
        assert_eq!((d.limit, d.per_volume), (1020, 256));
        assert!(d.is_within(600, 300, 255, 4, Purpose::Open));
        assert!(!d.is_within(600, 300, 256, 4, Purpose::Open), "its budget is used up");
        assert!(d.is_within(600, 600, 256, 4, Purpose::Known), "names are forgotten when there are many");
        assert!(!d.is_within(765, 600, 10, 4, Purpose::Known), "unless somebody keeps them from being forgotten");
        assert!(d.is_within(765, 62, 62, 4, Purpose::Open), "others have a share of what is left");
        assert!(!d.is_within(765, 63, 62, 4, Purpose::Open));
        assert!(!d.is_within(1020, 0, 0, 4, Purpose::Open), "the rest is the daemon's own");
    }

    #[test]
    fn one_volume_by_itself_may_use_all_but_what_is_kept() {
        let d = Descriptors::new(1 << 20, None, true);
        assert_eq!(d.per_volume, (1 << 20) - (1 << 16));
        assert!(d.is_within(d.limit - 1, d.limit - 1, d.limit - 1, 1, Purpose::Open));
        assert!(!d.is_within(d.limit, d.limit, 0, 1, Purpose::Known));
        assert_eq!(Descriptors::new(1 << 20, Some(7), true).per_volume, 7);
    }
}
