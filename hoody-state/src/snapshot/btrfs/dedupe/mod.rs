//! Merges equal data of live volumes and images: see [`crate::snapshot::Dedupe`].
//!
//! 1. The trees of all volumes are read. Files whose data lie at the same places are equal already: one of them stands for all, so that clones cost their tree alone.
//! 2. Those that may have an equal are read once, in blocks of 128 KiB, and the hashes are sorted (`equal`). A hash is only a hint, with a key that nobody knows.
//! 3. The extents of files with equal blocks are given up for others, if all that refer to them can be changed (`merge`). The kernel compares the bytes under lock.
//!
//! Memory, at the most: three sorters of 32 MiB at a time, 48 MiB for the parts of a file, 44 MiB for pieces of files, and 4 MiB of what is known of extents.

mod equal;
mod extents;
mod files;
mod merge;
mod sorter;
#[cfg(test)]
mod tests;

use super::{BtrfsStore, exclusive, nested};
use crate::error::{Error, IoContext, Result};
use crate::snapshot::{Dedupe, DedupeRequest, Deduped, Volume};
use crate::units::Bytes;
use extents::Held;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// One run.
struct Run<'a, 'q> {
    store: &'a BtrfsStore,
    mount: BorrowedFd<'a>,
    request: &'q DedupeRequest<'q>,
    /// The subvolumes, and whether each is of a live volume.
    roots: Vec<(u64, bool)>,
    done: AtomicU64,
    total: AtomicU64,
    result: Mutex<Deduped>,
}

impl Run<'_, '_> {
    fn stopped(&self) -> bool {
        (self.request.stop)()
    }

    fn count(&self, f: impl FnOnce(&mut Deduped)) {
        f(&mut self.result.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self, bytes: u64) {
        self.count(|d| d.read = d.read + Bytes(bytes));
    }

    fn merged(&self, bytes: Bytes) {
        self.count(|d| d.merged = d.merged + bytes);
    }

    fn gained(&self, bytes: u64) {
        self.count(|d| d.gained = d.gained + Bytes(bytes));
    }

    fn left_held(&self, bytes: u64) {
        self.count(|d| d.held = d.held + Bytes(bytes));
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// There is more to do.
    fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.reached(self.done().saturating_add(bytes));
    }

    fn reached(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
        (self.request.progress)(Bytes(bytes), Bytes(self.total.load(Ordering::Relaxed)));
    }
}

impl Dedupe for BtrfsStore {
    fn merge_equal(&self, request: &DedupeRequest<'_>) -> Result<Deduped> {
        // A thread of its own: it gets the disk when nobody else wants it, and a thread cannot be given back what it gave up.
        std::thread::scope(|s| {
            let worker = std::thread::Builder::new().name("dedupe".into()).spawn_scoped(s, || {
                crate::sys::priority::be_idle();
                dedupe(self, request)
            });
            worker.io(|| "start a thread that merges data")?.join().unwrap_or_else(|_| Err(Error::internal("the thread that merges data panicked")))
        })
    }
}

fn dedupe(store: &BtrfsStore, request: &DedupeRequest<'_>) -> Result<Deduped> {
    // What has no place on the disk yet is in no tree.
    btrfs_uapi::filesystem::sync(store.mount()).io(|| "write out the volumes' data")?;
    let mut run = Run {
        store,
        mount: store.mount(),
        request,
        roots: Vec::new(),
        done: AtomicU64::new(0),
        total: AtomicU64::new(0),
        result: Mutex::new(Deduped::default()),
    };
    for volume in request.volumes {
        let live = !matches!(volume, Volume::Image(_));
        for root in exclusive::roots(store, volume)? {
            // What a container has made read-only in its volume is left.
            if !live || nested::open_root(run.mount, root)?.is_some_and(|fd| nested::is_read_only(fd.as_fd()).is_ok_and(|r| !r)) {
                run.roots.push((root, live));
            }
        }
    }
    let run = run;
    let mut held = Held::new(run.mount, run.roots.iter().map(|(root, _)| *root).collect());
    let candidates = equal::candidates(&run)?;
    let blocks = equal::blocks(&run, candidates)?;
    let matches = equal::matches(&run, blocks, &mut held)?;
    merge::Merger::new(&run, held).merge(matches)?;
    let mut result = *run.result.lock().unwrap_or_else(PoisonError::into_inner);
    result.stopped = run.stopped();
    Ok(result)
}
