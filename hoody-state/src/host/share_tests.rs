#![allow(clippy::unwrap_used)]
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::error::{Code, Error};
use crate::id::{ContainerId, ProjectId};
use crate::model::{NewContainer, NewShare, NewSnapshot, ProjectInput, Share, ShareFilter};
use crate::share::memory::MemoryShareMount;
use crate::share::{Detached, Identity, Receiver, ShareMount, Source, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Share mounts of which the next `failures` detachments fail.
#[derive(Default)]
struct Unreliable {
    mounts: MemoryShareMount,
    failures: AtomicU32,
}

impl ShareMount for Unreliable {
    fn open(&self, source: &Source) -> Result<Tree> {
        self.mounts.open(source)
    }
    fn attach(&self, receiver: &Receiver, name: &str, tree: &Tree) -> Result<Detached> {
        self.mounts.attach(receiver, name, tree)
    }
    fn detach(&self, receiver: &Receiver, name: &str) -> Result<Detached> {
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::new(Code::ShareMountFailed, "no process can be started"));
        }
        self.mounts.detach(receiver, name)
    }
    fn attached(&self, receiver: &Receiver) -> Result<BTreeMap<String, Identity>> {
        self.mounts.attached(receiver)
    }
}

struct Shared {
    host: Host,
    clock: Arc<ManualClock>,
    mounts: Arc<Unreliable>,
    owner: ContainerId,
    receiver: ContainerId,
    share: Share,
}

impl Shared {
    /// A directory of `owner` that `receiver` sees for an hour.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T10:00:00Z".parse().unwrap()));
        let mounts = Arc::new(Unreliable::default());
        let host = Host::in_memory_with(|b| b.clock(clock.clone()).shares(mounts.clone())).unwrap();
        let me = Caller::default();
        let p: ProjectId = host.create_project(&me, ProjectInput { alias: Some("web".into()), ..Default::default() }).unwrap().id;
        let container = || host.create_container(&me, &p, NewContainer::default()).unwrap().id;
        let (owner, receiver) = (container(), container());
        let ends = u64::try_from(clock.now().as_second()).unwrap() + 3600;
        let new = NewShare {
            source_path: "/data".into(),
            target_project_id: Some(p),
            target_container_id: None,
            mode: crate::model::ShareMode::Readonly,
            alias: None,
            label: None,
            description: None,
            enabled: None,
            expires_at: Some(ends),
        };
        let share = host.create_share(&me, &owner, new).unwrap();
        let shared = Shared { host, clock, mounts, owner, receiver, share };
        assert_eq!(shared.seen(), 1, "a running receiver sees it at once");
        shared
    }

    fn seen(&self) -> usize {
        self.mounts.attached(&Receiver { container: self.receiver.clone(), pid: 0 }).unwrap().len()
    }

    fn two_hours_later(&self) {
        self.clock.advance(Duration::from_secs(7200));
    }
}

/// Waits until `done`. The upkeep works beside the test.
fn within_20s(otherwise: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ending_a_share_is_tried_again_until_no_receiver_sees_it() {
    let s = Shared::new();
    s.mounts.failures.store(3, Ordering::SeqCst);
    s.two_hours_later();
    within_20s("a share that has ended is still readable", || {
        s.host.expire_due().unwrap();
        s.seen() == 0
    });
    assert_eq!(s.mounts.failures.load(Ordering::SeqCst), 0);
}

#[test]
fn deleting_a_share_is_tried_again_by_the_upkeep() {
    let s = Shared::new();
    s.mounts.failures.store(2, Ordering::SeqCst);
    assert_eq!(s.host.delete_share(&Caller::default(), &s.share.id).unwrap_err().code(), Code::ShareMountFailed);
    within_20s("the upkeep has not tried again", || s.seen() == 0);
}

#[test]
fn a_share_that_cannot_expire_keeps_nothing_else_from_expiring() {
    let s = Shared::new();
    let me = Caller::default();
    let kept = NewSnapshot { expiry: Some(1.into()), ..Default::default() };
    s.host.create_snapshot(&me, &s.receiver, kept).unwrap();
    // As a recovery of an earlier version left it: a share whose owner is gone.
    s.host.write(Durability::Disk, |tx| Ok(tx.conn.execute("DELETE FROM containers WHERE id = ?1", [s.owner.as_str()]).map(drop)?)).unwrap();
    s.clock.advance(Duration::from_secs(48 * 3600));
    // The host's own upkeep may be deleting the snapshot at this moment: then this call leaves it to that.
    let _ = s.host.expire_due();
    within_20s("the snapshot has not expired", || s.host.snapshots(&s.receiver).unwrap().snapshots.is_empty());
    within_20s("the share has not ended", || s.host.share(None, &s.share.id).is_err_and(|e| e.code() == Code::ShareNotFound));
    within_20s("the receiver still sees the share", || s.seen() == 0);
}

#[test]
fn the_row_of_a_container_takes_its_shares_along() {
    let s = Shared::new();
    s.host.write(Durability::Disk, |tx| tx.delete_container(&s.owner).map(drop)).unwrap();
    assert_eq!(s.host.share(None, &s.share.id).unwrap_err().code(), Code::ShareNotFound);
    assert!(s.host.incoming(&s.receiver).unwrap().is_empty());
    assert!(s.host.shares_of(&s.receiver, &ShareFilter::default()).unwrap().is_empty());
}
