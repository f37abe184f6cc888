//! Open backing files. Passthrough needs no descriptor of this process. The other requests (syncs, allocations, holes) can use any descriptor of the file, so
//! opens of a node with the same access share one.

use crate::descriptors::Taken;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// One descriptor of a backing file.
#[derive(Debug)]
pub(crate) struct BackingFile {
    file: File,
    _taken: Taken,
    syncs: Syncs,
}

/// The shared descriptors of a node: for reading, for writing, for both.
#[derive(Debug, Default)]
pub(crate) struct SharedFiles(Mutex<[Weak<BackingFile>; 3]>);

/// Which failed syncs one open has reported.
#[derive(Debug, Default)]
pub(crate) struct SeenSyncs(AtomicU64);

impl BackingFile {
    pub fn new(file: File, taken: Taken) -> Arc<Self> {
        Arc::new(BackingFile { file, _taken: taken, syncs: Syncs::default() })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The state for a new open: earlier failures are not reported to it.
    pub fn seen(&self) -> SeenSyncs {
        SeenSyncs(AtomicU64::new(self.syncs.state().failures))
    }

    /// Syncs, on behalf of one open.
    ///
    /// # Errors
    /// The error of this sync, or of an earlier one that was not yet reported to this open.
    pub fn sync(&self, data_only: bool, seen: &SeenSyncs) -> Result<(), Errno> {
        self.syncs.run(seen, || if data_only { rustix::fs::fdatasync(&self.file) } else { rustix::fs::fsync(&self.file) })
    }
}

impl SharedFiles {
    /// The slot that an open with these flags shares; `None` if it needs its own descriptor.
    fn place(flags: OFlags) -> Option<usize> {
        if flags.intersects(OFlags::SYNC | OFlags::DSYNC | OFlags::NOATIME) {
            return None;
        }
        Some(match flags & OFlags::RWMODE {
            OFlags::RDONLY => 0,
            OFlags::WRONLY => 1,
            _ => 2,
        })
    }

    /// Whether there is a descriptor for an open with these flags.
    pub fn is_there(&self, flags: OFlags) -> bool {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self::place(flags).and_then(|place| files.get(place)).is_some_and(|f| f.strong_count() > 0)
    }

    /// The shared descriptor for an open with these flags: the existing one, or this one from now on.
    pub fn share(&self, flags: OFlags, opened: Arc<BackingFile>) -> Arc<BackingFile> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = Self::place(flags).and_then(|place| files.get_mut(place)) else { return opened };
        if let Some(shared) = slot.upgrade() {
            return shared;
        }
        *slot = Arc::downgrade(&opened);
        opened
    }
}

/// The kernel reports a failed write-back once for each open file description. Opens that share one must each get the error, or a COMMIT would be acknowledged
/// although it is not on the disk.
#[derive(Debug, Default)]
struct Syncs {
    state: Mutex<SyncState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct SyncState {
    next: u64,
    running: BTreeSet<u64>,
    failures: u64,
    last: Option<Errno>,
}

impl Syncs {
    fn state(&self) -> MutexGuard<'_, SyncState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, seen: &SeenSyncs, sync: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let mut state = self.state();
        let mine = state.next;
        state.next += 1;
        state.running.insert(mine);
        drop(state);
        let done = sync();
        let mut state = self.state();
        state.running.remove(&mine);
        if let Err(e) = done {
            state.failures += 1;
            state.last = Some(e);
            seen.0.store(state.failures, Ordering::Relaxed);
            self.ended.notify_all();
            return Err(e);
        }
        self.ended.notify_all();
        // A sync that ran at the same time may have failed with an error that concerns this open too.
        let until = state.next;
        while state.running.first().is_some_and(|first| *first < until) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let missed = seen.0.swap(state.failures, Ordering::Relaxed) < state.failures;
        state.last.filter(|_| missed).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn each_open_is_told_once_of_a_failed_sync() {
        let syncs = Syncs::default();
        let (one, two) = (SeenSyncs::default(), SeenSyncs::default());
        assert_eq!(syncs.run(&one, || Ok(())), Ok(()));
        assert_eq!(syncs.run(&one, || Err(Errno::IO)), Err(Errno::IO));
        assert_eq!(syncs.run(&one, || Ok(())), Ok(()), "it was reported before");
        assert_eq!(syncs.run(&two, || Ok(())), Err(Errno::IO), "the kernel reported it only to the first");
        assert_eq!(syncs.run(&two, || Ok(())), Ok(()));
    }

    #[test]
    fn a_sync_that_ends_well_waits_for_those_that_were_under_way() {
        let syncs = Arc::new(Syncs::default());
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let first = {
            let syncs = syncs.clone();
            std::thread::spawn(move || {
                syncs.run(&SeenSyncs::default(), || {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Err(Errno::IO)
                })
            })
        };
        has_begun.recv().unwrap();
        let (ended, has_ended) = channel();
        let second = {
            let syncs = syncs.clone();
            std::thread::spawn(move || ended.send(syncs.run(&SeenSyncs::default(), || Ok(()))).unwrap())
        };
        assert!(has_ended.recv_timeout(Duration::from_millis(50)).is_err(), "it cannot know yet");
        go_on.send(()).unwrap();
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(5)), Ok(Err(Errno::IO)));
        assert_eq!(first.join().unwrap(), Err(Errno::IO));
        second.join().unwrap();
    }
}
