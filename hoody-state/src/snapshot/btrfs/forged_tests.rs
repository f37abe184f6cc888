#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What a container's root can write into the volumes that it owns: identities (`received_uuid`) and the read-only flag, nested volumes included. None of it
//! becomes the identity of a snapshot.

use super::tests::{OnLoop, StopOnDrop, nest, op, snap};
use super::*;
use crate::snapshot::suite::Harness;
use btrfs_uapi::send_receive::received_subvol_set;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

/// The host's id of root in a container.
const ROOT_INSIDE: u32 = 100_000;

/// Runs `f` as the user that root in a container is to the host: only this thread's ids change.
fn as_root_inside<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let run = || {
        let (user, group) = (rustix::process::Uid::from_raw(ROOT_INSIDE), rustix::process::Gid::from_raw(ROOT_INSIDE));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        f()
    };
    std::thread::scope(|s| s.spawn(run).join().unwrap())
}

fn forged() -> Uuid {
    Uuid::from_bytes([9; 16])
}

/// What the owner of a volume does to it.
fn forge(volume: &Path, read_only: bool) {
    let fd = File::open(volume).unwrap();
    as_root_inside(|| {
        let _ = subvolume::subvolume_flags_set(fd.as_fd(), SubvolumeFlags::empty());
        received_subvol_set(fd.as_fd(), &forged(), 7).unwrap();
        if read_only {
            subvolume::subvolume_flags_set(fd.as_fd(), SubvolumeFlags::RDONLY).unwrap();
        }
    });
}

fn owned(h: &OnLoop) -> (ContainerId, Volume) {
    let (c, live) = h.container();
    std::os::unix::fs::chown(h.at(&live, ""), Some(ROOT_INSIDE), Some(ROOT_INSIDE)).unwrap();
    (c, live)
}

fn received_uuid(path: &Path) -> Uuid {
    subvolume::subvolume_info(File::open(path).unwrap().as_fd()).unwrap().received_uuid
}

#[test]
fn a_container_does_not_choose_the_identity_of_its_snapshots() {
    for read_only in [false, true] {
        let h = OnLoop::new();
        let (c, live) = owned(&h);
        let mut seen = Vec::new();
        for n in ["s1", "s2"] {
            forge(&h.at(&live, ""), read_only);
            let info = h.store.snapshot(&live, &snap(&c, n), &op()).unwrap();
            assert!(info.read_only && !h.store.claims_identity(&snap(&c, n)).unwrap());
            seen.push(h.store.identity(&snap(&c, n)).unwrap().unwrap());
        }
        assert!(seen[0] != forged() && seen[1] != forged() && seen[0] != seen[1], "{seen:?}");
    }
}

#[test]
fn nor_does_it_choose_those_of_its_nested_volumes() {
    let h = OnLoop::new();
    let (c, live) = owned(&h);
    let nested = nest(&h.at(&live, "o257-9-0"));
    let inner = nest(&nested.join("inner"));
    for path in [&nested, &inner] {
        std::os::unix::fs::chown(path, Some(ROOT_INSIDE), Some(ROOT_INSIDE)).unwrap();
        forge(path, true);
    }
    forge(&h.at(&live, ""), true);
    let (s1, s2) = (snap(&c, "s1"), snap(&c, "s2"));
    h.store.snapshot(&live, &s1, &op()).unwrap();
    for path in ["", "o257-9-0", "o257-9-0/inner"] {
        assert!(received_uuid(&h.at(&s1, path)).is_nil(), "{path:?}");
    }
    // What was read-only inside is so in the next live volume, though the container made its own root read-only.
    let next = Volume::Next(c.clone());
    h.store.clone_volume(&s1, &next, &op()).unwrap();
    let flags = |path: &str| subvolume::subvolume_flags_get(File::open(h.at(&next, path)).unwrap().as_fd()).unwrap();
    assert!(flags("o257-9-0").contains(SubvolumeFlags::RDONLY) && flags("").is_empty());
    // And it arrives elsewhere, under a name that looks like one of the kernel's own.
    h.store.snapshot(&next, &s2, &op()).unwrap();
    let (d, _) = h.container();
    for (from, base, to) in [(&s1, None, "r1"), (&s2, Some((&s1, "r1")), "r2")] {
        let mut bytes = Vec::new();
        h.store.send(from, base.map(|b| b.0), &mut bytes).unwrap();
        h.store.receive(&snap(&d, to), base.map(|b| snap(&d, b.1)).as_ref(), &op(), &mut &bytes[..]).unwrap();
        assert!(h.at(&snap(&d, to), "o257-9-0/inner").is_dir());
    }
}

#[test]
fn an_identity_that_is_written_again_and_again_does_not_get_into_a_snapshot() {
    let h = OnLoop::new();
    let (c, live) = owned(&h);
    let (stop, fd) = (AtomicBool::new(false), File::open(h.at(&live, "")).unwrap());
    std::thread::scope(|s| {
        let _stop = StopOnDrop(&stop);
        s.spawn(|| {
            as_root_inside(|| {
                while !stop.load(Ordering::Relaxed) {
                    for uuid in [forged(), Uuid::nil()] {
                        let _ = received_subvol_set(fd.as_fd(), &uuid, 7);
                    }
                }
            });
        });
        for n in 0..40 {
            let to = snap(&c, &format!("s{n}"));
            h.store.snapshot(&live, &to, &op()).unwrap();
            assert!(received_uuid(&h.at(&to, "")).is_nil(), "snapshot {n}");
        }
    });
}

#[test]
fn what_a_restore_keeps_has_no_forged_identity() {
    for read_only in [false, true] {
        let h = OnLoop::new();
        let (c, live) = owned(&h);
        let nested = nest(&h.at(&live, "nested"));
        std::os::unix::fs::chown(&nested, Some(ROOT_INSIDE), Some(ROOT_INSIDE)).unwrap();
        forge(&nested, read_only);
        forge(&h.at(&live, ""), read_only);
        let kept = snap(&c, "kept");
        h.store.seal(&live, &kept).unwrap();
        assert!(h.store.info(&kept).unwrap().unwrap().read_only);
        for path in ["", "nested"] {
            assert!(received_uuid(&h.at(&kept, path)).is_nil(), "{path:?}");
            let flags = subvolume::subvolume_flags_get(File::open(h.at(&kept, path)).unwrap().as_fd()).unwrap();
            assert!(flags.contains(SubvolumeFlags::RDONLY), "{path:?}");
        }
        // Repeated, as after a crash.
        h.store.seal(&live, &kept).unwrap();
        assert!(h.read(&kept, "nothing").unwrap().is_none());
    }
}

#[test]
fn a_crash_cannot_leave_a_forged_identity_to_be_listed() {
    let h = OnLoop::new();
    let (c, live) = owned(&h);
    forge(&h.at(&live, ""), false);
    // The kernel's own snapshot, as a crash between it and the look at it leaves it.
    let at = h.at(&snap(&c, "s1"), "");
    let dir = File::open(at.parent().unwrap()).unwrap();
    let source = File::open(h.at(&live, "")).unwrap();
    subvolume::snapshot_create(dir.as_fd(), source.as_fd(), c"s1", true, &[]).unwrap();
    assert_eq!(received_uuid(&at), forged(), "a read-only snapshot inherits it: that is what all of this is about");
    assert!(h.store.claims_identity(&snap(&c, "s1")).unwrap());
}
