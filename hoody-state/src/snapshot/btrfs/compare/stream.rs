//! Reads what changed in a tree, and the same inodes of an older tree, while what was read before is compared.
//!
//! Two threads read, one each tree. They are only started if what changed does not fit into one batch.

use super::items::Tree;
use super::scan::Scan;
use crate::diff::object::Object;
use crate::error::{IoContext, Result};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, scope};

/// Batches that wait between two threads. Each is bounded by the memory that it takes.
const WAITING: usize = 1;

/// What of the old tree has the numbers of what was read of the new one.
type Both = (Vec<Object>, Vec<Object>);

/// Takes inodes of the old and of the new tree, in ascending order. Of what only the new one has there is nothing in the old one.
type Compare<'f> = &'f mut dyn FnMut(Vec<Object>, Vec<Object>) -> Result<()>;

/// Calls `compare` with all inodes that `scan` finds.
pub(super) fn read(mut scan: Scan<'_>, old: Tree<'_>, compare: Compare<'_>) -> Result<()> {
    let first = scan.next()?;
    if scan.has_ended() {
        return beside(old, first, &mut |old, new| compare(old, new).map(|()| true)).map(|_| ());
    }
    scope(|threads| {
        let (found, to_find) = sync_channel(WAITING);
        let (read, to_read) = sync_channel(WAITING);
        let start = || "start a thread that reads a volume";
        Builder::new().name("diff-new".into()).spawn_scoped(threads, move || find(scan, first, &found)).io(start)?;
        Builder::new().name("diff-old".into()).spawn_scoped(threads, move || look_up(old, &to_find, &read)).io(start)?;
        // Whatever ends this ends the threads too: their channels are closed.
        for batch in to_read {
            let (old, new) = batch?;
            compare(old, new)?;
        }
        Ok(())
    })
}

fn find(mut scan: Scan<'_>, first: Vec<Object>, found: &SyncSender<Result<Vec<Object>>>) {
    let mut batch = Ok(first);
    loop {
        let goes_on = batch.is_ok() && !scan.has_ended();
        if found.send(batch).is_err() || !goes_on {
            return;
        }
        batch = scan.next();
    }
}

fn look_up(old: Tree<'_>, found: &Receiver<Result<Vec<Object>>>, read: &SyncSender<Result<Both>>) {
    for batch in found {
        let done = batch.and_then(|new| beside(old, new, &mut |old, new| Ok(read.send(Ok((old, new))).is_ok())));
        match done {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => {
                let _ = read.send(Err(e));
                return;
            }
        }
    }
}

/// Reads the inodes of the old tree that have the numbers of `new`, in as many pieces as memory needs. `false` as soon as `take` says so.
fn beside(old: Tree<'_>, mut new: Vec<Object>, take: &mut dyn FnMut(Vec<Object>, Vec<Object>) -> Result<bool>) -> Result<bool> {
    let numbers: Vec<u64> = new.iter().map(|o| o.ino).collect();
    let mut rest = numbers.as_slice();
    while !rest.is_empty() {
        let (found, read) = old.objects(rest)?;
        let later = new.split_off(read.max(1));
        if !take(found, std::mem::replace(&mut new, later))? {
            return Ok(false);
        }
        rest = &rest[read.max(1)..];
    }
    Ok(true)
}
