//! Cases of volumes: creating, copying, exchanging, sealing, listing, measuring and deleting them.

use super::{Harness, container, holds, lacks, named, op};
use crate::Code;
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::snapshot::Volume;
use crate::units::Bytes;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const A_MINUTE: Duration = Duration::from_secs(60);

/// `create_home` does nothing if the home exists.
pub fn a_home_is_made_once(h: &dyn Harness) {
    let (c, live) = container(h);
    h.write(&live, "f", b"x").unwrap();
    h.store().create_home(&c).unwrap();
    holds(h, &live, "f", "x");
    let empty = ContainerId::generate();
    h.store().create_home(&empty).unwrap();
    assert_eq!(h.store().list(Some(&empty)).unwrap(), []);
}

/// `create` makes an empty writable volume.
pub fn a_new_volume_is_empty_and_writable(h: &dyn Harness) {
    let c = ContainerId::generate();
    h.store().create_home(&c).unwrap();
    for v in [
        Volume::Live(c.clone()),
        Volume::Next(c.clone()),
        named(&c, "s"),
        Volume::Databases(ProjectId::generate()),
        Volume::Staging(op()),
        Volume::Image("debian/13".parse().unwrap()),
        Volume::Image(".hidden/x.y".parse().unwrap()),
    ] {
        let info = h.store().create(&v).unwrap();
        assert!(!info.read_only);
        assert_eq!(info.nested, 0);
        lacks(h, &v, "f");
        h.write(&v, "f", b"x").unwrap();
        holds(h, &v, "f", "x");
        assert_eq!(h.store().info(&v).unwrap().unwrap().id, info.id);
    }
}

/// Missing volumes: `volume_not_found`, or no error where absence is allowed.
pub fn missing_volumes_are_reported(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let missing = Volume::Next(c.clone());
    let elsewhere = Volume::Live(ContainerId::generate());
    for gone in [&missing, &elsewhere] {
        for e in [
            s.snapshot(gone, &named(&c, "s"), &op()).unwrap_err(),
            s.clone_volume(gone, &named(&c, "s"), &op()).unwrap_err(),
            s.exchange(&live, gone).unwrap_err(),
            s.exchange(gone, &live).unwrap_err(),
            s.seal(gone, &named(&c, "s")).unwrap_err(),
            s.delta(gone, None).unwrap_err(),
        ] {
            assert_eq!(e.code(), Code::VolumeNotFound, "{e}");
        }
        assert_eq!(s.info(gone).unwrap(), None);
        assert_eq!(s.delete(gone).unwrap().volumes, []);
    }
    assert_eq!(s.info(&named(&c, "s")).unwrap(), None, "a failed copy leaves nothing in its place");
    assert_eq!(s.list(Some(&ContainerId::generate())).unwrap(), []);
    s.trash_home(&ContainerId::generate(), &op()).unwrap();
    assert_eq!(s.empty_trash(&op(), &mut |_, _| panic!("nothing to count")).unwrap().volumes, []);
}

/// `volume_exists`, and the existing volume is unchanged.
pub fn existing_volumes_are_not_replaced(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let next = Volume::Next(c.clone());
    s.create(&next).unwrap();
    h.write(&next, "f", b"kept").unwrap();
    for e in [
        s.create(&next).unwrap_err(),
        s.snapshot(&live, &next, &op()).unwrap_err(),
        s.clone_volume(&live, &next, &op()).unwrap_err(),
        s.seal(&live, &next).unwrap_err(),
    ] {
        assert_eq!(e.code(), Code::VolumeExists, "{e}");
    }
    holds(h, &next, "f", "kept");
    assert!(s.info(&live).unwrap().is_some());
}

/// Guarantee 1: the target holds exactly what the source held.
pub fn a_snapshot_holds_what_the_source_held(h: &dyn Harness) {
    let (c, live) = container(h);
    h.write(&live, "a", b"1").unwrap();
    h.write(&live, "b", b"2").unwrap();
    h.remove(&live, "a").unwrap();
    let info = h.store().snapshot(&live, &named(&c, "s"), &op()).unwrap();
    assert!(info.read_only);
    lacks(h, &named(&c, "s"), "a");
    holds(h, &named(&c, "s"), "b", "2");
    assert!(!h.store().list(None).unwrap().iter().any(|v| matches!(v, Volume::Staging(_))), "staging is left empty");
}

/// Guarantee 4.
pub fn a_snapshot_never_changes(h: &dyn Harness) {
    let (c, live) = container(h);
    let snap = named(&c, "s");
    h.write(&live, "f", b"before").unwrap();
    let made = h.store().snapshot(&live, &snap, &op()).unwrap();
    h.write(&live, "f", b"after").unwrap();
    h.write(&live, "g", b"new").unwrap();
    holds(h, &snap, "f", "before");
    lacks(h, &snap, "g");
    assert!(h.write(&snap, "f", b"x").is_err());
    assert!(h.remove(&snap, "f").is_err());
    assert_eq!(h.store().exchange(&snap, &live).unwrap_err().code(), Code::VolumeReadOnly);
    h.store().delete(&live).unwrap();
    holds(h, &snap, "f", "before");
    assert_eq!(h.store().info(&snap).unwrap().unwrap(), made);
}

/// `clone_volume` makes a writable copy.
pub fn a_clone_is_independent(h: &dyn Harness) {
    let (c, live) = container(h);
    let (snap, next) = (named(&c, "s"), Volume::Next(c.clone()));
    h.write(&live, "f", b"1").unwrap();
    h.store().snapshot(&live, &snap, &op()).unwrap();
    assert!(!h.store().clone_volume(&snap, &next, &op()).unwrap().read_only);
    h.write(&next, "f", b"2").unwrap();
    h.write(&live, "f", b"3").unwrap();
    holds(h, &snap, "f", "1");
    holds(h, &next, "f", "2");
    holds(h, &live, "f", "3");
}

/// A copy needs nothing of what it was made from.
pub fn copies_of_copies_do_not_need_their_sources(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    h.write(&live, "f", b"1").unwrap();
    s.snapshot(&live, &named(&c, "a"), &op()).unwrap();
    s.snapshot(&named(&c, "a"), &named(&c, "b"), &op()).unwrap();
    s.clone_volume(&named(&c, "b"), &Volume::Next(c.clone()), &op()).unwrap();
    for v in [&live, &named(&c, "a"), &named(&c, "b")] {
        s.delete(v).unwrap();
    }
    holds(h, &Volume::Next(c), "f", "1");
}

/// Unlike its place, a volume's id is never used twice.
pub fn an_id_is_never_used_again(h: &dyn Harness) {
    let (_, live) = container(h);
    let mut seen = HashSet::from([h.store().info(&live).unwrap().unwrap().id]);
    for _ in 0..20 {
        assert_eq!(h.store().delete(&live).unwrap().volumes.len(), 1);
        assert!(seen.insert(h.store().create(&live).unwrap().id));
    }
}

/// `info` agrees with what the calls returned, and generations grow.
pub fn information_agrees_with_the_calls(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let first = s.snapshot(&live, &named(&c, "a"), &op()).unwrap();
    h.write(&live, "f", b"x").unwrap();
    let second = s.snapshot(&live, &named(&c, "b"), &op()).unwrap();
    assert!(second.created > first.created);
    assert!(second.generation > first.generation);
    for (v, made) in [(named(&c, "a"), first), (named(&c, "b"), second)] {
        assert_eq!(s.info(&v).unwrap().unwrap(), made);
        if let Some(path) = s.path(&v) {
            assert!(path.is_dir(), "{}", path.display());
        }
    }
}

/// `exchange` swaps contents and ids.
pub fn exchange_swaps_two_volumes(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let next = Volume::Next(c);
    let (a, b) = (s.info(&live).unwrap().unwrap().id, s.create(&next).unwrap().id);
    h.write(&live, "f", b"live").unwrap();
    h.write(&next, "f", b"next").unwrap();
    s.exchange(&live, &next).unwrap();
    s.sync().unwrap();
    holds(h, &live, "f", "next");
    holds(h, &next, "f", "live");
    assert_eq!((s.info(&live).unwrap().unwrap().id, s.info(&next).unwrap().unwrap().id), (b, a));
}

/// Guarantee 2, watched from another thread.
pub fn exchange_never_leaves_a_place_empty(h: &dyn Harness) {
    let (c, live) = container(h);
    let next = Volume::Next(c);
    h.store().create(&next).unwrap();
    h.write(&live, "f", b"1").unwrap();
    h.write(&next, "f", b"2").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) || looks == 0 {
                let found = h.read(&live, "f").unwrap().expect("a complete volume at every instant");
                assert!(found == b"1" || found == b"2");
                looks += 1;
            }
        });
        let outcome: Result<()> = (0..500).try_for_each(|_| h.store().exchange(&live, &next));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap();
        watcher.join().unwrap();
    });
}

/// `seal` moves once and may be repeated.
pub fn seal_moves_and_makes_read_only(h: &dyn Harness) {
    let s = h.store();
    let from = Volume::Staging(op());
    let to = Volume::Image("debian/13".parse().unwrap());
    let id = s.create(&from).unwrap().id;
    h.write(&from, "f", b"x").unwrap();
    for _ in 0..2 {
        let info = s.seal(&from, &to).unwrap();
        assert!(info.read_only);
        assert_eq!(info.id, id);
    }
    s.sync().unwrap();
    holds(h, &to, "f", "x");
    assert!(h.write(&to, "f", b"y").is_err());
    assert_eq!(s.list(None).unwrap(), [to]);
}

/// Guarantee 3, the first half.
pub fn a_deleted_volume_is_gone(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let id = s.snapshot(&live, &named(&c, "s"), &op()).unwrap().id;
    assert_eq!(s.delete(&named(&c, "s")).unwrap().volumes, [id]);
    assert_eq!(s.info(&named(&c, "s")).unwrap(), None);
    assert_eq!(s.list(Some(&c)).unwrap(), [live]);
    assert_eq!(s.delete(&named(&c, "s")).unwrap().volumes, []);
    s.snapshot(&Volume::Live(c.clone()), &named(&c, "s"), &op()).unwrap();
}

/// Guarantee 3, the second half; and the wait is bounded.
pub fn space_is_free_again_after_a_delete(h: &dyn Harness) {
    let s = h.store();
    let (_, live) = container(h);
    h.write(&live, "f", &vec![7; 8 << 20]).unwrap();
    s.sync().unwrap();
    let id = s.info(&live).unwrap().unwrap().id;
    let began = std::time::Instant::now();
    assert!(!s.reclaimed(id, Duration::from_millis(50)).unwrap(), "it is still there");
    assert!(began.elapsed() < Duration::from_secs(5));
    for id in s.delete(&live).unwrap().volumes {
        assert!(s.reclaimed(id, A_MINUTE).unwrap());
        assert!(s.reclaimed(id, Duration::ZERO).unwrap());
    }
    assert!(s.space().unwrap().used < Bytes::mib(8));
}

/// `list`.
pub fn list_returns_one_container_or_all(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let (d, other) = container(h);
    let image = Volume::Image("debian/13".parse().unwrap());
    let databases = Volume::Databases(ProjectId::generate());
    s.create(&image).unwrap();
    s.create(&databases).unwrap();
    s.snapshot(&live, &named(&c, "s"), &op()).unwrap();
    s.clone_volume(&live, &Volume::Next(c.clone()), &op()).unwrap();
    let mut mine = vec![live, Volume::Next(c.clone()), named(&c, "s")];
    mine.sort();
    assert_eq!(sorted(s.list(Some(&c)).unwrap()), mine);
    assert_eq!(s.list(Some(&d)).unwrap(), std::slice::from_ref(&other));
    mine.extend([other, image, databases]);
    assert_eq!(sorted(s.list(None).unwrap()), sorted(mine));
}

fn sorted(mut v: Vec<Volume>) -> Vec<Volume> {
    v.sort();
    v
}

/// `trash_home` takes everything out of sight, and the place is free at once.
pub fn trash_home_removes_everything_at_once(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let o = op();
    h.write(&live, "f", b"old").unwrap();
    s.snapshot(&live, &named(&c, "s"), &op()).unwrap();
    s.trash_home(&c, &o).unwrap();
    s.trash_home(&c, &o).unwrap();
    assert_eq!(s.list(None).unwrap(), []);
    assert_eq!(s.info(&live).unwrap(), None);
    assert_eq!(s.trash().unwrap(), std::slice::from_ref(&o));
    s.create_home(&c).unwrap();
    s.create(&live).unwrap();
    lacks(h, &live, "f");
    let mut counted = Vec::new();
    assert_eq!(s.empty_trash(&o, &mut |done, total| counted.push((done, total))).unwrap().volumes.len(), 2);
    assert_eq!(counted, [(1, 2), (2, 2)]);
    assert_eq!(s.trash().unwrap(), []);
    assert_eq!(s.list(None).unwrap(), [live]);
}

/// `recover_home` puts back what `trash_home` took away, and replaces nothing.
pub fn recover_home_puts_everything_back(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let (o, snap) = (op(), named(&c, "s"));
    h.write(&live, "f", b"kept").unwrap();
    s.snapshot(&live, &snap, &op()).unwrap();
    s.recover_home(&c, &o).unwrap();
    s.trash_home(&c, &o).unwrap();
    s.create_home(&c).unwrap();
    assert_eq!(s.recover_home(&c, &o).unwrap_err().code(), Code::VolumeExists);
    let other = op();
    s.trash_home(&c, &other).unwrap();
    s.empty_trash(&other, &mut |_, _| {}).unwrap();
    s.recover_home(&c, &o).unwrap();
    s.recover_home(&c, &o).unwrap();
    assert_eq!(s.trash().unwrap(), []);
    holds(h, &live, "f", "kept");
    holds(h, &snap, "f", "kept");
    assert!(s.info(&snap).unwrap().unwrap().read_only);
    h.write(&live, "f", b"written again").unwrap();
    assert_eq!(s.empty_trash(&o, &mut |_, _| {}).unwrap().volumes, []);
    holds(h, &live, "f", "written again");
}

/// `empty_trash` may be repeated, and touches one operation's trash only.
pub fn emptying_the_trash_can_be_repeated(h: &dyn Harness) {
    let s = h.store();
    let (c, _) = container(h);
    let (d, _) = container(h);
    let (o, p) = (op(), op());
    s.trash_home(&c, &o).unwrap();
    s.trash_home(&d, &p).unwrap();
    assert_eq!(s.empty_trash(&o, &mut |_, _| {}).unwrap().volumes.len(), 1);
    assert_eq!(s.empty_trash(&o, &mut |_, _| {}).unwrap().volumes.len(), 0);
    assert_eq!(s.trash().unwrap(), [p]);
}

/// `delta`.
pub fn delta_counts_what_was_written_since(h: &dyn Harness) {
    const MIB: usize = 1 << 20;
    let s = h.store();
    let (c, live) = container(h);
    h.write(&live, "old", &vec![1; 4 * MIB]).unwrap();
    let first = s.snapshot(&live, &named(&c, "a"), &op()).unwrap();
    assert_eq!(s.delta(&named(&c, "a"), None).unwrap(), Bytes::mib(4));
    assert_eq!(s.delta(&live, Some(first.created)).unwrap(), Bytes(0));
    h.write(&live, "new", &vec![2; 2 * MIB]).unwrap();
    h.write(&live, "small", b"tiny").unwrap();
    let second = s.snapshot(&live, &named(&c, "b"), &op()).unwrap();
    assert_eq!(s.delta(&named(&c, "b"), Some(first.created)).unwrap(), Bytes::mib(2) + Bytes(4));
    assert_eq!(s.delta(&live, Some(first.created)).unwrap(), Bytes::mib(2) + Bytes(4));
    assert_eq!(s.delta(&live, Some(second.created)).unwrap(), Bytes(0));
    h.write(&live, "new", &vec![3; MIB]).unwrap();
    h.write(&live, "new", &vec![4; MIB]).unwrap();
    assert_eq!(s.delta(&live, Some(second.created)).unwrap(), Bytes::mib(1), "what was overwritten meanwhile does not count");
    assert_eq!(s.delta(&live, None).unwrap(), Bytes::mib(5) + Bytes(4));
    h.remove(&live, "new").unwrap();
    assert_eq!(s.delta(&live, Some(second.created)).unwrap(), Bytes(0));
}

/// `space`.
pub fn space_follows_what_is_written(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let before = s.space().unwrap();
    assert!(before.free <= before.total && before.used <= before.total && before.free > Bytes(0));
    h.write(&live, "f", &vec![9; 16 << 20]).unwrap();
    // The snapshot also writes the data out.
    s.snapshot(&live, &named(&c, "s"), &op()).unwrap();
    let after = s.space().unwrap();
    assert!(after.used >= before.used + Bytes::mib(16), "{before:?} {after:?}");
    s.snapshot(&live, &named(&c, "t"), &op()).unwrap();
    assert!(s.space().unwrap().used < after.used + Bytes::mib(8), "a snapshot shares");
}

/// What lies in staging is listed, can be cleared, and does not hinder the operation that left it.
pub fn staging_is_found_and_cleared(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let o = op();
    let staging = Volume::Staging(o.clone());
    s.create(&staging).unwrap();
    assert!(s.list(None).unwrap().contains(&staging));
    assert!(!s.list(Some(&c)).unwrap().contains(&staging));
    s.snapshot(&live, &named(&c, "s"), &o).unwrap();
    assert_eq!(s.delete(&staging).unwrap().volumes.len(), usize::from(s.info(&staging).unwrap().is_none()));
    assert_eq!(s.delete(&staging).unwrap().volumes, []);
    assert!(!s.list(None).unwrap().contains(&staging));
}

/// The store may be used from many threads.
pub fn the_store_works_from_many_threads(h: &dyn Harness) {
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let (c, live) = container(h);
                for i in 0..5 {
                    h.write(&live, "f", i.to_string().as_bytes()).unwrap();
                    h.store().snapshot(&live, &named(&c, &format!("s{i}")), &op()).unwrap();
                }
                for i in 0..5 {
                    holds(h, &named(&c, &format!("s{i}")), "f", &i.to_string());
                }
                let o = op();
                h.store().trash_home(&c, &o).unwrap();
                assert_eq!(h.store().empty_trash(&o, &mut |_, _| {}).unwrap().volumes.len(), 6);
            });
        }
    });
    assert_eq!(h.store().list(None).unwrap(), []);
}

/// Nested volumes are copied, sealed, counted and deleted with theirs.
pub fn nested_volumes_follow_their_volume(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    let (snap, next) = (named(&c, "s"), Volume::Next(c.clone()));
    if !h.nest(&live, "n", b"inner").unwrap() {
        return;
    }
    assert_eq!(s.info(&live).unwrap().unwrap().nested, 1);
    let info = s.snapshot(&live, &snap, &op()).unwrap();
    assert_eq!((info.nested, info.read_only), (1, true));
    h.write(&live, "n/in", b"changed").unwrap();
    holds(h, &snap, "n/in", "inner");
    assert!(h.write(&snap, "n/in", b"x").is_err(), "sealed with it");
    let info = s.clone_volume(&snap, &next, &op()).unwrap();
    assert_eq!((info.nested, info.read_only), (1, false));
    h.write(&next, "n/in", b"mine").unwrap();
    holds(h, &snap, "n/in", "inner");
    s.exchange(&live, &next).unwrap();
    holds(h, &live, "n/in", "mine");
    assert!(!s.list(None).unwrap().iter().any(|v| matches!(v, Volume::Staging(_))));
    for v in [live, snap, next] {
        assert_eq!(s.delete(&v).unwrap().volumes.len(), 2, "{v}");
    }
    assert_eq!(s.list(None).unwrap(), []);
}

/// A thousand snapshots work like a few.
pub fn a_thousand_snapshots(h: &dyn Harness) {
    let s = h.store();
    let (c, live) = container(h);
    for i in 0..1000 {
        h.write(&live, "f", i.to_string().as_bytes()).unwrap();
        s.snapshot(&live, &named(&c, &format!("s{i}")), &op()).unwrap();
    }
    assert_eq!(s.list(Some(&c)).unwrap().len(), 1001);
    for i in [0, 499, 999] {
        holds(h, &named(&c, &format!("s{i}")), "f", &i.to_string());
    }
    let o = op();
    s.trash_home(&c, &o).unwrap();
    let mut last = (0, 0);
    assert_eq!(s.empty_trash(&o, &mut |done, total| last = (done, total)).unwrap().volumes.len(), 1001);
    assert_eq!(last, (1001, 1001));
}
