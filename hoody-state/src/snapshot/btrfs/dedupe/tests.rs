#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What is gained comes back, and no content changes.

use crate::id::ContainerId;
use crate::snapshot::btrfs::BtrfsStore;
use crate::snapshot::btrfs::tests::{OnLoop, StopOnDrop, op, snap};
use crate::snapshot::{Dedupe, DedupeRequest, Deduped, SnapshotStore, Volume};
use crate::units::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MIB: usize = 1 << 20;

fn run(store: &BtrfsStore, volumes: &[Volume]) -> Deduped {
    store.merge_equal(&DedupeRequest { volumes, min_size: Bytes(4096), stop: &|| false, progress: &|_, _| {} }).unwrap()
}

/// Bytes that no block repeats.
fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend(x.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn write(path: &Path, data: &[u8]) {
    let mut f = File::create(path).unwrap();
    f.write_all(data).unwrap();
    f.sync_all().unwrap();
}

/// Bytes of file data in the pool.
fn used(store: &BtrfsStore) -> u64 {
    btrfs_uapi::filesystem::sync(store.mount()).unwrap();
    let groups = btrfs_uapi::space::space_info(store.mount().as_fd()).unwrap();
    groups.iter().filter(|g| g.flags.contains(btrfs_uapi::space::BlockGroupFlags::DATA)).map(|g| g.used_bytes).sum()
}

/// The content of all regular files below a directory, and their times.
fn content(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_file() {
                found.insert(path.clone(), (fs::read(&path).unwrap(), meta.ctime_nsec(), meta.mtime_nsec()));
            }
        }
    }
    found
}

/// An image as an import makes it: written, then sealed.
fn image(h: &OnLoop, name: &str, files: &[(String, Vec<u8>)]) -> Volume {
    let staging = Volume::Staging(op());
    h.store.create(&staging).unwrap();
    for (path, data) in files {
        write(&h.at(&staging, path), data);
    }
    let image = Volume::Image(name.parse().unwrap());
    h.store.seal(&staging, &image).unwrap();
    h.store.sync().unwrap();
    image
}

fn container_of(h: &OnLoop, image: &Volume) -> (ContainerId, Volume) {
    let c = ContainerId::generate();
    h.store.create_home(&c).unwrap();
    let live = Volume::Live(c.clone());
    h.store.clone_volume(image, &live, &op()).unwrap();
    (c, live)
}

fn near(a: u64, b: u64) -> bool {
    a.abs_diff(b) < MIB as u64 / 4
}

#[test]
fn two_containers_that_wrote_the_same_share_it_and_a_second_run_reads_nothing() {
    let h = OnLoop::new();
    let ((_, a), (_, b)) = (h.container(), h.container());
    let data = random(1, 64 * MIB + 777);
    write(&h.at(&a, "big"), &data);
    // The other writes it in pieces, so that its extents end elsewhere.
    let mut f = File::create(h.at(&b, "other name")).unwrap();
    for chunk in data.chunks(5 * MIB + 4096) {
        f.write_all(chunk).unwrap();
        f.sync_all().unwrap();
    }
    write(&h.at(&b, "own"), &random(2, 3 * MIB));
    let before = used(&h.store);
    let contents = [content(&h.at(&a, "")), content(&h.at(&b, ""))];
    let progress = AtomicU64::new(0);
    let volumes = [a.clone(), b.clone()];
    let request = DedupeRequest {
        volumes: &volumes,
        min_size: Bytes(4096),
        stop: &|| false,
        progress: &|done, total| {
            assert!(done <= total, "{done} of {total}");
            assert!(progress.swap(done.0, Ordering::Relaxed) <= done.0);
        },
    };
    let first = h.store.merge_equal(&request).unwrap();
    let back = before - used(&h.store);
    assert!(near(back, 64 * MIB as u64) && near(first.gained.0, back), "{first:?}, {back} came back");
    assert!(progress.load(Ordering::Relaxed) > 128 * MIB as u64);
    assert_eq!([content(&h.at(&a, "")), content(&h.at(&b, ""))], contents, "no content and no time changes");
    let second = run(&h.store, &volumes);
    assert_eq!((second.gained, second.merged), (Bytes(0), Bytes(0)));
    assert!(second.read.0 <= 70 * MIB as u64, "what lies at the same place is read once: {second:?}");
}

#[test]
fn an_image_that_was_imported_twice_takes_its_space_once_with_containers_of_both() {
    let h = OnLoop::new();
    let mut files: Vec<(String, Vec<u8>)> = (0..200).map(|n| (format!("f{n}"), random(n + 10, 5000 + (n as usize * 37) % 9000))).collect();
    files.push(("library".into(), random(3, 7 * MIB + 5)));
    files.push(("tiny".into(), b"in the tree".to_vec()));
    let (one, two) = (image(&h, "one", &files), image(&h, "two", &files));
    let ((_, a), (_, b)) = (container_of(&h, &one), container_of(&h, &two));
    write(&h.at(&b, "f0"), b"changed in one container only, and much shorter than it was");
    h.store.sync().unwrap();
    let before = used(&h.store);
    let volumes = [one.clone(), two.clone(), a, b];
    let contents: Vec<_> = volumes.iter().map(|v| content(&h.at(v, ""))).collect();
    let d = run(&h.store, &volumes);
    let back = before - used(&h.store);
    let size: u64 = files.iter().filter(|(_, d)| d.len() > 4096).map(|(_, d)| (d.len() as u64).next_multiple_of(4096)).sum();
    assert!(near(back, size) && d.gained.0 == back, "{d:?}: {back} of {size} came back");
    assert_eq!(volumes.iter().map(|v| content(&h.at(v, ""))).collect::<Vec<_>>(), contents);
    assert!(h.store.info(&one).unwrap().unwrap().read_only);
    assert_eq!(run(&h.store, &volumes).gained, Bytes(0));
}

#[test]
fn what_a_snapshot_holds_stays_and_the_other_is_given_up_for_it() {
    let h = OnLoop::new();
    let ((c, a), (_, b), (e, third)) = (h.container(), h.container(), h.container());
    let data = random(4, 8 * MIB);
    for v in [&a, &b, &third] {
        write(&h.at(v, "f"), &data);
    }
    h.store.snapshot(&third, &snap(&e, "s"), &op()).unwrap();
    h.store.snapshot(&b, &snap(&c, "of-b"), &op()).unwrap();
    let generation = |v: &Volume| h.store.generation_of(h.store.info(v).unwrap().unwrap().id).unwrap();
    let (s, of_b) = (snap(&e, "s"), snap(&c, "of-b"));
    let (before, was) = (used(&h.store), [generation(&s), generation(&of_b)]);
    // `a` comes first and could be kept as well, but only its extents can be gained.
    let d = run(&h.store, &[a.clone(), b.clone(), third]);
    assert!(near(before - used(&h.store), 8 * MIB as u64) && d.gained == Bytes::mib(8), "{d:?}");
    assert!(d.held.0 >= 8 * MIB as u64, "two are held by snapshots: {d:?}");
    assert_eq!([generation(&s), generation(&of_b)], was, "snapshots are as they were");
    assert_eq!(fs::read(h.at(&s, "f")).unwrap(), data);
    // Volumes that were not named hold as well.
    for v in [&a, &b] {
        write(&h.at(v, "g"), &random(5, MIB));
        h.store.snapshot(v, &Volume::Staging(op()), &op()).unwrap();
    }
    let d = run(&h.store, &[a, b]);
    assert!(d.merged == Bytes(0) && d.held >= Bytes::mib(1), "{d:?}");
}

#[test]
fn parts_of_files_are_merged_where_whole_extents_can_be_gained() {
    let h = OnLoop::new();
    let (_, a) = h.container();
    let (common, other) = (random(5, 4 * MIB), random(6, 4 * MIB));
    write(&h.at(&a, "first"), &common);
    for (name, order) in [("second", [&common, &other]), ("third", [&random(7, 4 * MIB), &common])] {
        let mut f = File::create(h.at(&a, name)).unwrap();
        for part in order {
            f.write_all(part).unwrap();
            f.sync_all().unwrap();
        }
    }
    // An extent of which only a half has an equal stays.
    write(&h.at(&a, "fourth"), &[&common[..2 * MIB], &other[..MIB], &random(8, MIB)].concat());
    let (before, contents) = (used(&h.store), content(&h.at(&a, "")));
    let d = run(&h.store, std::slice::from_ref(&a));
    assert_eq!(content(&h.at(&a, "")), contents);
    assert!(near(before - used(&h.store), 8 * MIB as u64) && d.gained == Bytes::mib(8), "{d:?}");
}

#[test]
fn compressed_data_are_merged_and_counted_as_they_are_stored() {
    let h = OnLoop::new();
    let (_, a) = h.container();
    let text: Vec<u8> = (0..400_000u32).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    for name in ["x", "y"] {
        let path = h.at(&a, name);
        let f = File::create(&path).unwrap();
        rustix::fs::fsetxattr(&f, c"btrfs.compression", b"zstd", rustix::fs::XattrFlags::empty()).unwrap();
        write_into(f, &text);
    }
    let before = used(&h.store);
    let d = run(&h.store, std::slice::from_ref(&a));
    let back = before - used(&h.store);
    assert!(back > 0 && back < text.len() as u64 / 2 && d.gained.0 == back, "{d:?}: {back}");
    assert_eq!(d.merged.0, text.len() as u64);
    assert_eq!(fs::read(h.at(&a, "y")).unwrap(), text);
}

fn write_into(mut f: File, data: &[u8]) {
    f.write_all(data).unwrap();
    f.sync_all().unwrap();
}

#[test]
fn hostile_files_are_left_and_do_not_stop_it() {
    let h = OnLoop::new();
    let (_, a) = h.container();
    let data = random(9, MIB);
    for n in 0..3 {
        write(&h.at(&a, format!("equal{n}")), &data);
    }
    nix::unistd::mkfifo(&h.at(&a, "fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", h.at(&a, "link")).unwrap();
    File::create(h.at(&a, "sparse")).unwrap().set_len(1 << 44).unwrap();
    let zeros = File::create(h.at(&a, "zeros")).unwrap();
    write_into(zeros, &vec![0; MIB]);
    // Changed in place.
    fs::create_dir(h.at(&a, "db")).unwrap();
    crate::sys::fs::set_no_cow(&File::open(h.at(&a, "db")).unwrap()).unwrap();
    for n in 0..2 {
        write(&h.at(&a, format!("db/equal{n}")), &data);
    }
    fs::set_permissions(h.at(&a, "equal1"), fs::Permissions::from_mode(0o000)).unwrap();
    let attr = |flag: &str| assert!(std::process::Command::new("chattr").arg(flag).arg(h.at(&a, "equal2")).status().unwrap().success());
    attr("+i");
    let before = used(&h.store);
    let d = run(&h.store, &[a.clone(), Volume::Live(ContainerId::generate())]);
    attr("-i");
    assert!(near(before - used(&h.store), MIB as u64) && d.gained == Bytes::mib(1), "the immutable file cannot be changed: {d:?}");
    assert!(d.read.0 < 8 * MIB as u64, "holes are not read: {d:?}");
    assert_eq!(run(&h.store, std::slice::from_ref(&a)).gained, Bytes::mib(1), "now it can");
    assert_eq!(fs::read(h.at(&a, "db/equal1")).unwrap(), data);
}

#[test]
fn files_that_change_meanwhile_have_what_was_written_into_them() {
    let h = OnLoop::new();
    let ((_, a), (_, b)) = (h.container(), h.container());
    let files = 40;
    let data: Vec<Vec<u8>> = (0..files).map(|n| random(100 + n, MIB)).collect();
    for (n, d) in data.iter().enumerate() {
        write(&h.at(&a, format!("f{n}")), d);
        write(&h.at(&b, format!("f{n}")), d);
    }
    let stop = AtomicBool::new(false);
    // What each file of `b` must have: the writer changes it first here, then there.
    let expected = Mutex::new(data.clone());
    std::thread::scope(|s| {
        let guard = StopOnDrop(&stop);
        s.spawn(|| {
            let mut step = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (n, at) = ((step >> 33) as usize % (files as usize / 2), (step >> 20) % (MIB as u64 - 100));
                let mut expected = expected.lock().unwrap();
                expected[n][at as usize..at as usize + 8].copy_from_slice(&step.to_le_bytes());
                let f = File::options().write(true).open(h.at(&b, format!("f{n}"))).unwrap();
                f.write_all_at(&step.to_le_bytes(), at).unwrap();
                if step.is_multiple_of(16) {
                    f.sync_data().unwrap();
                }
            }
        });
        for _ in 0..3 {
            let d = run(&h.store, &[a.clone(), b.clone()]);
            assert!(!d.stopped);
        }
        drop(guard);
    });
    for (n, d) in expected.lock().unwrap().iter().enumerate() {
        assert!(fs::read(h.at(&b, format!("f{n}"))).unwrap() == *d, "file {n} of the container that was written to");
        assert!(fs::read(h.at(&a, format!("f{n}"))).unwrap() == data[n], "file {n} of the other");
    }
    assert!(run(&h.store, &[a, b]).gained < Bytes::mib(2), "what was not written to shares its space already");
}

#[test]
fn it_stops_when_asked_and_what_was_merged_stays_merged() {
    let h = OnLoop::new();
    let ((_, a), (_, b)) = (h.container(), h.container());
    for n in 0..20 {
        let data = random(n + 500, MIB);
        write(&h.at(&a, format!("f{n}")), &data);
        write(&h.at(&b, format!("f{n}")), &data);
    }
    let before = used(&h.store);
    let contents = content(&h.at(&b, ""));
    let merging = AtomicBool::new(false);
    let volumes = [a.clone(), b.clone()];
    let request = DedupeRequest {
        volumes: &volumes,
        min_size: Bytes(4096),
        stop: &|| merging.load(Ordering::Relaxed),
        // 40 MiB are read, then 20 MiB are merged.
        progress: &|done, _| merging.store(done.0 > 45 * MIB as u64, Ordering::Relaxed),
    };
    let d = h.store.merge_equal(&request).unwrap();
    let back = before - used(&h.store);
    assert!(d.stopped && d.gained.0 == back && (MIB as u64..20 * MIB as u64).contains(&back), "{d:?}: {back}");
    assert_eq!(content(&h.at(&b, "")), contents);
    assert_eq!(run(&h.store, &volumes).gained.0 + back, 20 * MIB as u64);
    let at_once = h.store.merge_equal(&DedupeRequest { stop: &|| true, ..request }).unwrap();
    assert!(at_once.stopped && at_once.read == Bytes(0));
}
