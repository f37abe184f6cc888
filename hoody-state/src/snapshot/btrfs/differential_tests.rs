#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]
//! Random trees, sent once and received twice: by this program and by `btrfs receive` of btrfs-progs. What this program makes must be what was
//! sent, in every tree. `btrfs receive` of version 6.2 makes something else of one in several hundred, so it must agree in most.
//!
//! `HOODY_TREES=N` sets how many trees (each with one whole stream and three increments); `HOODY_SEED=N` repeats one.

use super::tests::{OnLoop, op, snap};
use super::transfer_tests::{same, tree};
use super::*;
use crate::snapshot::suite::Harness;
use rustix::fs::{FallocateFlags, IFlags, SeekFrom, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

/// Numbers from a seed (xorshift).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A place in a file: on a block's edge, beside one, or anywhere.
    fn place(&mut self) -> u64 {
        match self.below(3) {
            0 => self.below(48) as u64 * 4096,
            1 => (self.below(48) as u64 * 4096).saturating_add_signed(self.below(9) as i64 - 4),
            _ => self.below(200_000) as u64,
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let (len, byte) = ([0, 3, 100, 4096, 10_000, 140_000][self.below(6)], self.below(256) as u8);
        // Half of it can be compressed.
        (0..len).map(|i| if i % 8192 < 4096 { byte } else { self.below(256) as u8 }).collect()
    }
}

/// All directories, regular files and other things of a tree.
fn contents(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut files, mut others) = (vec![root.to_owned()], Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let m = std::fs::symlink_metadata(&path).unwrap();
            let list = if m.is_dir() {
                &mut dirs
            } else if m.is_file() {
                &mut files
            } else {
                &mut others
            };
            list.push(path);
        }
    }
    (dirs, files, others)
}

/// One change of a tree. One that is not possible there (a name that is taken, a directory into itself) does nothing.
fn change(rng: &mut Rng, root: &Path) {
    let (dirs, files, others) = contents(root);
    let name = || PathBuf::from("abcdefghij");
    let new = rng.pick(&dirs).join(&name().to_str().unwrap()[rng.below(10)..][..1]);
    let any: Vec<&PathBuf> = dirs[1..].iter().chain(&files).chain(&others).collect();
    if files.is_empty() || rng.below(4) == 0 {
        let _ = match rng.below(8) {
            0 | 1 => std::fs::create_dir(&new),
            2 => std::os::unix::fs::symlink("somewhere/else", &new),
            3 => nix::unistd::mkfifo(&new, Mode::S_IRUSR).map_err(Into::into),
            4 => nix::sys::stat::mknod(&new, nix::sys::stat::SFlag::S_IFBLK, Mode::S_IRUSR, nix::sys::stat::makedev(7, 1)).map_err(Into::into),
            _ => File::create_new(&new).and_then(|f| f.write_all_at(&rng.data(), 0)),
        };
        return;
    }
    let file = rng.pick(&files).clone();
    let thing = any[rng.below(any.len())].clone();
    let open = || File::options().read(true).write(true).open(&file).unwrap();
    if File::options().write(true).open(&file).is_err() {
        // Immutable, until the next round.
        return;
    }
    let fallocate = |rng: &mut Rng, flags| rustix::fs::fallocate(open(), flags, rng.place(), 1 + rng.place()).unwrap_or_default();
    match rng.below(26) {
        0..4 => open().write_all_at(&rng.data(), rng.place()).unwrap(),
        4 => open().set_len(rng.place()).unwrap(),
        // A log that is rotated by "copy and truncate" while its writer goes on at its old place.
        5 => {
            let (f, size) = (open(), open().metadata().unwrap().len());
            f.set_len(0).unwrap();
            f.write_all_at(b"a new line\n", size).unwrap();
        }
        6 => {
            let (f, size) = (open(), open().metadata().unwrap().len());
            f.set_len(size / 2).unwrap();
            f.set_len(size + rng.place()).unwrap();
        }
        7 | 8 => fallocate(rng, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        9 => fallocate(rng, FallocateFlags::ZERO_RANGE),
        10 => fallocate(rng, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
        11 => fallocate(rng, FallocateFlags::empty()),
        12 => fallocate(rng, FallocateFlags::KEEP_SIZE),
        13 | 14 => drop(std::fs::rename(&thing, &new)),
        15 => {
            let other = any[rng.below(any.len())];
            let _ = rustix::fs::renameat_with(rustix::fs::CWD, &thing, rustix::fs::CWD, other, rustix::fs::RenameFlags::EXCHANGE);
        }
        16 => drop(std::fs::hard_link(&file, &new)),
        17 => drop(std::fs::remove_file(&thing).or_else(|_| std::fs::remove_dir_all(&thing))),
        18 => {
            let name = rng.pick(&["user.a", "user.b", "trusted.c"]);
            let _ = rustix::fs::lsetxattr(&thing, *name, &rng.data()[..].iter().take(2000).copied().collect::<Vec<_>>(), XattrFlags::empty());
        }
        19 => drop(rustix::fs::lremovexattr(&thing, *rng.pick(&["user.a", "user.b"]))),
        20 => {
            let directory = rng.pick(&dirs).clone();
            toggle_flag(rng, root, [file, directory]);
        }
        21 | 22 => {
            let from = File::open(rng.pick(&files)).unwrap();
            let block = |rng: &mut Rng| rng.below(30) as u64 * 4096;
            let (at, len, to) = (block(rng), block(rng), block(rng));
            let _ = btrfs_uapi::send_receive::clone_range(open().as_fd(), from.as_fd(), at, len, to);
        }
        23 => drop(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(rng.below(0o10_000) as u32))),
        24 => drop(std::os::unix::fs::lchown(&thing, Some(100_000 + rng.below(3) as u32), Some(100_000 + rng.below(3) as u32))),
        _ => {
            // Directories that change places, which the kernel sends by way of names of its own.
            let other = any[rng.below(any.len())].clone();
            let aside = root.join("aside");
            let _ = std::fs::rename(&thing, &aside).and_then(|()| std::fs::rename(&other, &thing));
            let _ = std::fs::rename(&aside, aside.with_file_name("z"));
        }
    }
}

fn toggle_flag(rng: &mut Rng, root: &Path, paths: [PathBuf; 2]) {
    let which = *rng.pick(&[IFlags::COMPRESSED, IFlags::NODUMP, IFlags::NOATIME, IFlags::NOCOW, IFlags::IMMUTABLE, IFlags::APPEND]);
    for path in paths {
        // No volume with such a root can be deleted, which only the host's root could bring about.
        if path == root && which.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            continue;
        }
        let f = File::open(path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&f).unwrap() ^ which;
        let _ = rustix::fs::ioctl_setflags(&f, flags);
    }
}

/// Immutable files forbid changes, to the random changes too; a later round may change them again.
fn free_all(root: &Path) {
    let (dirs, files, _) = contents(root);
    for path in dirs.iter().chain(&files) {
        let f = File::open(path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&f).unwrap();
        if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            rustix::fs::ioctl_setflags(&f, flags - (IFlags::IMMUTABLE | IFlags::APPEND)).unwrap();
        }
    }
}

/// Where each regular file has data.
fn data_of(root: &Path) -> BTreeMap<PathBuf, Vec<(u64, u64)>> {
    let map = |path: &Path| {
        let f = File::open(path).unwrap();
        let (mut at, mut out) = (0, Vec::new());
        while let Ok(begin) = rustix::fs::seek(&f, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&f, SeekFrom::Hole(begin)).unwrap();
            out.push((begin, at));
        }
        out
    };
    contents(root).1.into_iter().map(|p| (p.strip_prefix(root).unwrap().to_owned(), map(&p))).collect()
}

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

fn number(name: &str, default: u64) -> u64 {
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
