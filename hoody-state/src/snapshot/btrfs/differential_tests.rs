#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]
//! Random trees, sent once and received twice: by this program and by `btrfs receive` of btrfs-progs. What this program makes must be what was
//! sent, in every tree. `btrfs receive` of version 6.2 makes something else of one in several hundred, so it must agree in most.
//!
//! `HOODY_TREES=N` sets how many trees (each with one whole stream and three increments); `HOODY_SEED=N` repeats one.

use super::random_trees::{Rng, change, data_of, free_all, same, tree};
use super::tests::{OnLoop, op, snap};
use super::*;
use crate::snapshot::suite::Harness;
use rustix::fs::{IFlags, XattrFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

/// What `btrfs receive` makes of a stream.
fn by_btrfs_progs(stream: &[u8], into: &Path) {
    let mut child = Command::new("btrfs")
        .arg("receive")
        .arg(into)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("btrfs of btrfs-progs");
    let mut input = child.stdin.take().unwrap();
    let written = input.write_all(stream);
    drop(input);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && written.is_ok(), "btrfs receive: {}", String::from_utf8_lossy(&out.stderr));
}

/// What `btrfs receive` keeps: not the times of the root, and with a compressed root it compresses everything, since it makes each new file there.
fn comparable(root: &Path) -> Vec<(std::ffi::OsString, String)> {
    let compression = format!("{:?}", (b"btrfs.compression".to_vec(), b"zlib".to_vec()));
    let without = |said: String| said.replace(&format!("{compression}, "), "").replace(&compression, "");
    tree(root).into_iter().filter(|(path, _)| !path.is_empty()).map(|(path, said)| (path, without(said))).collect()
}

pub(super) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn random_trees_arrive_as_with_btrfs_receive() {
    let (h, theirs) = (OnLoop::new(), OnLoop::new());
    let (first, count) = (number("HOODY_SEED", 1), number("HOODY_TREES", 25));
    let mut agreed = 0;
    for seed in first..first + count {
        println!("HOODY_SEED={seed} HOODY_TREES=1");
        agreed += u64::from(one_tree(&h, &theirs, seed));
    }
    assert!(agreed * 10 >= count * 8, "the two agree on {agreed} of {count} trees only");
}

/// Whether both made the same tree. That this program's is what was sent is always so.
fn one_tree(h: &OnLoop, theirs: &OnLoop, seed: u64) -> bool {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let ((a, live), (b, _), (_, dir)) = (h.container(), h.container(), theirs.container());
    let mut base: Option<(Volume, Volume)> = None;
    let mut agreed = true;
    for round in 0..4 {
        let root = h.at(&live, "");
        free_all(&root);
        for _ in 0..10 + rng.below(40) {
            change(&mut rng, &root);
        }
        let (sent, here) = (snap(&a, &format!("s{round}")), snap(&b, &format!("s{round}")));
        h.store.snapshot(&live, &sent, &op()).unwrap();
        let mut bytes = Vec::new();
        h.store.send(&sent, base.as_ref().map(|b| &b.0), &mut bytes).unwrap();
        h.store.receive(&here, base.as_ref().map(|b| &b.1), &op(), &mut &bytes[..]).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e:?}"));
        by_btrfs_progs(&h.store.kernel_stream(&sent, base.as_ref().map(|b| &b.0)).unwrap(), &theirs.at(&dir, ""));
        let (sent_at, here_at, theirs_at) = (h.at(&sent, ""), h.at(&here, ""), theirs.at(&dir, format!("s{round}")));
        same(&here_at, &sent_at);
        if comparable(&theirs_at) != comparable(&here_at) {
            // What arrived here is what was sent, so the fault is that of `btrfs receive`, which goes on with a damaged base.
            println!("seed {seed}, round {round}: btrfs receive made another tree than was sent");
            agreed = false;
            break;
        }
        assert_eq!(data_of(&here_at), data_of(&theirs_at), "seed {seed}, round {round}: holes");
        assert_eq!(std::fs::metadata(&here_at).unwrap().uid(), std::fs::metadata(&sent_at).unwrap().uid());
        base = Some((sent, here));
    }
    for v in h.store.list(Some(&a)).unwrap().iter().chain(&h.store.list(Some(&b)).unwrap()) {
        h.store.delete(v).unwrap();
    }
    for round in 0..4 {
        let name = CString::new(format!("s{round}")).unwrap();
        let _ = subvolume::subvolume_delete(File::open(theirs.at(&dir, "")).unwrap().as_fd(), &name);
    }
    agreed
}

/// Sends the snapshots `s1` and `s2`, the second as an increment on the first.
fn pass_both(h: &OnLoop, from: &ContainerId, to: &ContainerId) {
    for (n, base) in [("s1", None), ("s2", Some("s1"))] {
        let mut bytes = Vec::new();
        h.store.send(&snap(from, n), base.map(|n| snap(from, n)).as_ref(), &mut bytes).unwrap();
        h.store.receive(&snap(to, n), base.map(|n| snap(to, n)).as_ref(), &op(), &mut &bytes[..]).unwrap();
    }
}

#[test]
fn flags_that_change_between_two_snapshots_arrive() {
    let h = OnLoop::new();
    let ((a, live), (b, _)) = (h.container(), h.container());
    let flag = |path: &str, flag: IFlags| {
        let f = File::open(h.at(&live, path)).unwrap();
        rustix::fs::ioctl_setflags(&f, rustix::fs::ioctl_getflags(&f).unwrap() ^ flag).unwrap();
    };
    for dir in ["plain", "packed"] {
        std::fs::create_dir(h.at(&live, dir)).unwrap();
    }
    std::fs::write(h.at(&live, "packed/file"), b"data").unwrap();
    rustix::fs::setxattr(h.at(&live, "packed/file"), "btrfs.compression", b"zstd", XattrFlags::empty()).unwrap();
    h.store.snapshot(&live, &snap(&a, "s1"), &op()).unwrap();
    flag("", IFlags::NODUMP);
    flag("plain", IFlags::NOCOW);
    flag("packed/file", IFlags::NOATIME);
    rustix::fs::setxattr(h.at(&live, "packed/file"), "btrfs.compression", b"zstd", XattrFlags::empty()).unwrap();
    flag("packed", IFlags::IMMUTABLE);
    h.store.snapshot(&live, &snap(&a, "s2"), &op()).unwrap();
    pass_both(&h, &a, &b);
    let flags = |path: &str| rustix::fs::ioctl_getflags(File::open(h.at(&snap(&b, "s2"), path)).unwrap()).unwrap();
    assert_eq!(flags(""), IFlags::NODUMP);
    assert_eq!(flags("plain"), IFlags::NOCOW);
    assert_eq!(flags("packed/file"), IFlags::NOATIME | IFlags::COMPRESSED);
    assert_eq!(flags("packed"), IFlags::empty(), "immutable is left out on purpose");
    // Compression is as it was, not the file system's own.
    same(&h.at(&snap(&b, "s2"), ""), &h.at(&snap(&a, "s2"), ""));
}

#[test]
fn new_files_do_not_inherit_from_the_root_what_they_did_not_at_the_source() {
    let h = OnLoop::new();
    let ((a, live), (b, _)) = (h.container(), h.container());
    std::fs::create_dir(h.at(&live, "dir")).unwrap();
    // A default access list: owner, group and others may read and write.
    let entry = |tag: u16| [&tag.to_le_bytes()[..], &6u16.to_le_bytes(), &u32::MAX.to_le_bytes()].concat();
    let list = [&2u32.to_le_bytes()[..], &entry(1), &entry(4), &entry(0x20)].concat();
    let root = File::open(h.at(&live, "")).unwrap();
    for (name, value) in [("system.posix_acl_default", &list[..]), ("btrfs.compression", b"zstd")] {
        rustix::fs::fsetxattr(&root, name, value, XattrFlags::empty()).unwrap();
    }
    h.store.snapshot(&live, &snap(&a, "s1"), &op()).unwrap();
    std::fs::create_dir(h.at(&live, "dir/sub")).unwrap();
    std::fs::write(h.at(&live, "dir/file"), b"data").unwrap();
    h.store.snapshot(&live, &snap(&a, "s2"), &op()).unwrap();
    pass_both(&h, &a, &b);
    for n in ["s1", "s2"] {
        same(&h.at(&snap(&b, n), ""), &h.at(&snap(&a, n), ""));
    }
    let flags = |path: &str| rustix::fs::ioctl_getflags(File::open(h.at(&snap(&b, "s2"), path)).unwrap()).unwrap();
    assert_eq!((flags(""), flags("dir/file")), (IFlags::COMPRESSED, IFlags::empty()));
}

#[test]
fn a_file_that_gets_a_hole_is_sent_as_an_increment() {
    let h = OnLoop::new();
    let ((a, live), (b, _)) = (h.container(), h.container());
    let log = h.at(&live, "log");
    std::fs::write(&log, vec![7; 300_000]).unwrap();
    h.store.snapshot(&live, &snap(&a, "s1"), &op()).unwrap();
    let f = File::options().write(true).open(&log).unwrap();
    f.set_len(0).unwrap();
    f.write_all_at(b"a new line\n", 300_000).unwrap();
    drop(f);
    h.store.snapshot(&live, &snap(&a, "s2"), &op()).unwrap();
    pass_both(&h, &a, &b);
    assert_eq!(h.read(&snap(&b, "s2"), "log").unwrap(), h.read(&snap(&a, "s2"), "log").unwrap());
    assert!(std::fs::metadata(h.at(&snap(&b, "s2"), "log")).unwrap().blocks() < 64, "the hole is one there too");
    assert_eq!(tree(&h.at(&snap(&b, "s2"), "")), tree(&h.at(&snap(&a, "s2"), "")));
}
